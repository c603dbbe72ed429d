#include "bind_convert.h"

namespace bind {
namespace {

template <class T>
T field(const Rcpp::List& list, const char* name, T otherwise) {
    if (!list.containsElementNamed(name)) return otherwise;
    const SEXP value = list[name];
    return Rf_isNull(value) ? otherwise : Rcpp::as<T>(value);
}

arma::vec vector_field(const Rcpp::List& list, const char* name) { return field(list, name, arma::vec()); }

void copy_checked(const Rcpp::RObject& value, std::size_t rows, std::size_t cols, const char* what, double* out,
                  std::size_t ld) {
    if (!Rf_isNumeric(value) || static_cast<std::size_t>(Rf_xlength(value)) != rows * cols)
        throw cosmoe::InvalidArgument(std::string("the custom expert's ") + what + " function must return " +
                                      std::to_string(rows * cols) + " numbers for " + std::to_string(rows) + " rows");
    const Rcpp::NumericVector numbers(value);
    for (std::size_t j = 0; j < cols; ++j) std::copy_n(numbers.begin() + j * rows, rows, out + j * ld);
}

cosmoe::CustomFunction custom_function(const Rcpp::Function& value, const Rcpp::Function& gradient, std::size_t n_par) {
    return [value, gradient, n_par](const double* x, std::size_t ldx, std::size_t n, std::size_t d, const double* eta,
                                    double* out, double* slope, std::size_t ld) {
        Rcpp::NumericMatrix block(static_cast<int>(n), static_cast<int>(d));
        for (std::size_t j = 0; j < d; ++j) std::copy_n(x + j * ldx, n, block.begin() + j * n);
        const Rcpp::NumericVector par(eta, eta + n_par);
        copy_checked(value(block, par), n, 1, "value", out, n);
        if (slope) copy_checked(gradient(block, par), n, n_par, "gradient", slope, ld);
    };
}

void check_interrupt(void*) { R_CheckUserInterrupt(); }

}  // namespace

cosmoe::RouterSpec as_router(const Rcpp::List& router) {
    cosmoe::RouterSpec spec;
    spec.name = Rcpp::as<std::string>(router["name"]);
    spec.scale = field(router, "scale", 1.0);
    spec.tau1 = field(router, "tau1", spec.tau1);
    spec.tau2 = field(router, "tau2", spec.tau2);
    spec.top_k = static_cast<std::size_t>(field(router, "top_k", 0));
    spec.bound_gate = field(router, "bound_gate", spec.bound_gate);
    return spec;
}

cosmoe::ModelSpec as_model(const Rcpp::List& model) {
    const Rcpp::List expert = model["expert"];
    cosmoe::ModelSpec spec;
    spec.router = as_router(model["router"]);
    spec.k = static_cast<std::size_t>(Rcpp::as<int>(model["k"]));
    spec.dispersions = static_cast<std::size_t>(field(model, "dispersions", 0));
    spec.dispersion_bound = field(model, "dispersion_bound", spec.dispersion_bound);
    spec.expert.name = Rcpp::as<std::string>(expert["name"]);
    spec.expert.degree = field(expert, "degree", 1);
    spec.expert.hidden = static_cast<std::size_t>(field(expert, "hidden", 1));
    spec.expert.activation = field(expert, "activation", spec.expert.activation);
    spec.expert.n_par = static_cast<std::size_t>(field(expert, "n_par", 0));
    spec.expert.bound_expert = field(expert, "bound_expert", spec.expert.bound_expert);
    if (spec.expert.name == "custom")
        spec.expert.custom = custom_function(Rcpp::as<Rcpp::Function>(expert["value"]),
                                             Rcpp::as<Rcpp::Function>(expert["gradient"]), spec.expert.n_par);
    return spec;
}

// The core points into R's own memory: a converted copy would not live long enough.
SEXP doubles(const Rcpp::List& rows, const char* name) {
    const SEXP value = rows[name];
    if (TYPEOF(value) != REALSXP) throw cosmoe::InvalidArgument(std::string(name) + " must be of type double");
    return value;
}

cosmoe::Rows as_rows(const Rcpp::List& rows) {
    const auto present = [&](const char* name) { return rows.containsElementNamed(name) && !Rf_isNull(rows[name]); };
    cosmoe::Rows out;
    const Rcpp::NumericMatrix x(doubles(rows, "x"));
    out.n = static_cast<std::size_t>(x.nrow());
    out.x = out.z = x.begin();
    out.dx = out.dz = static_cast<std::size_t>(x.ncol());
    if (present("z")) {
        const Rcpp::NumericMatrix z(doubles(rows, "z"));
        out.z = z.begin();
        out.dz = static_cast<std::size_t>(z.ncol());
        if (static_cast<std::size_t>(z.nrow()) != out.n) throw cosmoe::InvalidArgument("x and z differ in rows");
    }
    const auto column = [&](const char* name) -> const double* {
        if (!present(name)) return nullptr;
        const Rcpp::NumericVector v(doubles(rows, name));
        if (static_cast<std::size_t>(v.size()) != out.n)
            throw cosmoe::InvalidArgument(std::string("x and ") + name + " differ in rows");
        return v.begin();
    };
    out.y = column("y"), out.w = column("w"), out.offset = column("offset"), out.trials = column("trials");
    out.x_center = vector_field(rows, "x_center");
    out.x_scale = vector_field(rows, "x_scale");
    out.z_center = vector_field(rows, "z_center");
    out.z_scale = vector_field(rows, "z_scale");
    return out;
}

cosmoe::Parameters as_parameters(const Rcpp::List& par) {
    return {Rcpp::as<arma::mat>(par["u"]), Rcpp::as<arma::vec>(par["b"]), Rcpp::as<arma::mat>(par["eta"]),
            vector_field(par, "phi")};
}

cosmoe::FamilySpec as_family(const Rcpp::List& family) {
    return {Rcpp::as<std::string>(family["name"]), Rcpp::as<std::string>(family["link"])};
}

cosmoe::Atoms as_atoms(const Rcpp::List& measure) {
    return {Rcpp::as<arma::vec>(measure["beta0"]), field(measure, "u", arma::mat()),
            Rcpp::as<arma::mat>(measure["beta1"]), Rcpp::as<arma::mat>(measure["eta"])};
}

cosmoe::Hooks interrupt_hooks() {
    cosmoe::Hooks hooks;
    hooks.interrupted = [] { return R_ToplevelExec(check_interrupt, nullptr) == FALSE; };
    return hooks;
}

}  // namespace bind
