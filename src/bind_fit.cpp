#include "bind_convert.h"
#include "regression/columns.h"
#include "regression/em.h"
#include "regression/outcome.h"
#include "regression/ridge.h"

namespace {

const char* status_name(cosmoe::Status status) {
    switch (status) {
        case cosmoe::Status::converged: return "converged";
        case cosmoe::Status::max_passes: return "max_passes";
        case cosmoe::Status::interrupted: return "interrupted";
        default: return "stalled";
    }
}

void read_settings(const Rcpp::List& control, cosmoe::FitSettings& settings) {
    settings.optimizer = Rcpp::as<std::string>(control["optimizer"]);
    settings.max_passes = Rcpp::as<int>(control["max_passes"]);
    if (control.containsElementNamed("certify")) settings.certify = Rcpp::as<bool>(control["certify"]);
    settings.tolerance = Rcpp::as<double>(control["tolerance"]);
    settings.threads = static_cast<std::size_t>(Rcpp::as<int>(control["threads"]));
    if (settings.optimizer == "sgd") {
        settings.learning_rate = Rcpp::as<double>(control["learning_rate"]);
        settings.batch_size = static_cast<std::size_t>(Rcpp::as<int>(control["batch_size"]));
        const Rcpp::List order = control["order"];
        for (const Rcpp::IntegerVector epoch : order) {
            std::vector<std::size_t> rows;
            for (const int row : epoch) rows.push_back(static_cast<std::size_t>(row - 1));
            settings.order.push_back(std::move(rows));
        }
    }
}

Rcpp::List wrap_parameters(const cosmoe::Parameters& par) {
    return Rcpp::List::create(
        Rcpp::Named("u") = par.u, Rcpp::Named("b") = Rcpp::NumericVector(par.b.begin(), par.b.end()),
        Rcpp::Named("eta") = par.eta, Rcpp::Named("phi") = Rcpp::NumericVector(par.phi.begin(), par.phi.end()));
}

// As R counts.
Rcpp::IntegerVector numbers(const std::vector<std::size_t>& index) {
    Rcpp::IntegerVector out;
    for (const std::size_t i : index) out.push_back(static_cast<int>(i) + 1);
    return out;
}

// The objective is twice the minimised value: sum w r^2, or minus twice the log likelihood.
Rcpp::List wrap_fit(const cosmoe::Model& model, const cosmoe::Fit& fit) {
    Rcpp::List out = wrap_parameters(cosmoe::unpack(model.layout, fit.theta));
    out["objective"] = 2 * fit.value;
    out["passes"] = fit.passes;
    out["probes"] = fit.probes;
    out["status"] = status_name(fit.status);
    out["message"] = fit.message;
    if (fit.certified) {
        const cosmoe::Certificate& c = fit.certificate;
        out["certificate"] = Rcpp::List::create(Rcpp::Named("projected_gradient") = c.projected_gradient,
                                                Rcpp::Named("predicted_decrease") = c.predicted_decrease,
                                                Rcpp::Named("active_gates") = numbers(fit.active_gates),
                                                Rcpp::Named("active_experts") = numbers(fit.active_experts),
                                                Rcpp::Named("active_dispersions") = numbers(fit.active_dispersions),
                                                Rcpp::Named("smallest_curvature") = c.smallest_curvature,
                                                Rcpp::Named("null_directions") = static_cast<int>(c.null_directions),
                                                Rcpp::Named("rank") = static_cast<int>(c.rank),
                                                Rcpp::Named("gauge") = static_cast<int>(c.gauge));
    }
    out["trace"] = Rcpp::NumericVector(fit.trace.begin(), fit.trace.end());
    if (!fit.last.is_empty()) {
        Rcpp::List last = wrap_parameters(cosmoe::unpack(model.layout, fit.last));
        last["beta"] = fit.last_beta;
        out["last"] = last;
    }
    return out;
}

// What a model minimises: a likelihood where it has a family, else the sum of squares.
struct CriterionOf {
    explicit CriterionOf(const Rcpp::List& model) {
        if (!model.containsElementNamed("family")) return;
        family = cosmoe::make_family(bind::as_family(model["family"]));
        const bool complete =
            model.containsElementNamed("information") && Rcpp::as<std::string>(model["information"]) == "complete";
        likelihood = std::make_unique<cosmoe::LikelihoodCriterion>(*family, complete ? cosmoe::Information::complete
                                                                                     : cosmoe::Information::scores);
    }
    const cosmoe::Criterion& get() const {
        if (likelihood) return *likelihood;
        return cosmoe::least_squares_criterion();
    }
    std::unique_ptr<const cosmoe::Family> family;
    std::unique_ptr<const cosmoe::LikelihoodCriterion> likelihood;
};

// The host's own sums: evaluate(par, order, judge) gives what core_objective() does, or NULL after an interrupt.
cosmoe::Evaluator host_sums(const cosmoe::Model& model, const Rcpp::Function& evaluate, bool judge) {
    return [&model, evaluate, judge](const arma::vec& theta, cosmoe::Order order) {
        const Rcpp::RObject result =
            evaluate(wrap_parameters(cosmoe::unpack(model.layout, theta)), static_cast<int>(order), judge);
        if (result.isNULL()) throw cosmoe::Interrupted();
        const Rcpp::List sums(result);
        cosmoe::Evaluation out;
        out.value = Rcpp::as<double>(sums["value"]);
        if (order >= cosmoe::Order::gradient) out.gradient = Rcpp::as<arma::vec>(sums["gradient"]);
        if (order >= cosmoe::Order::normal) out.normal = Rcpp::as<arma::mat>(sums["normal"]);
        if (order >= cosmoe::Order::hessian) out.hessian = Rcpp::as<arma::mat>(sums["hessian"]);
        return out;
    };
}

// One of the two estimators, each a function of start, settings and hooks.
template <class LeastSquares, class Likelihood>
Rcpp::List run_fit(const Rcpp::List& model, const cosmoe::Model& built, const Rcpp::List& start,
                   const Rcpp::List& control, LeastSquares least_squares, Likelihood likelihood) {
    const arma::vec theta = cosmoe::pack(built.layout, bind::as_parameters(start));
    const cosmoe::Hooks hooks = bind::interrupt_hooks();
    if (!model.containsElementNamed("family")) {
        cosmoe::FitSettings settings;
        read_settings(control, settings);
        if (start.containsElementNamed("beta")) settings.beta = Rcpp::as<arma::mat>(start["beta"]);
        return wrap_fit(built, least_squares(theta, settings, hooks));
    }
    cosmoe::EmSettings settings;
    read_settings(control, settings);
    settings.hybrid = Rcpp::as<bool>(control["hybrid"]);
    return wrap_fit(built, likelihood(theta, settings, hooks));
}

}  // namespace

// [[Rcpp::export]]
Rcpp::List core_fit(const Rcpp::List& model, const Rcpp::List& rows, const Rcpp::List& start,
                    const Rcpp::List& control) {
    const cosmoe::Rows data = bind::as_rows(rows);
    const cosmoe::Model built(bind::as_model(model), data.dx, data.dz);
    const CriterionOf criterion(model);
    return run_fit(
        model, built, start, control,
        [&](const auto&... rest) { return cosmoe::fit_least_squares(built, data, rest...); },
        [&](const auto&... rest) { return cosmoe::fit_likelihood(built, *criterion.family, data, rest...); });
}

// [[Rcpp::export]]
Rcpp::List core_fit_sums(const Rcpp::List& model, const Rcpp::Function& evaluate, const Rcpp::List& totals,
                         const Rcpp::List& start, const Rcpp::List& control) {
    const auto total = [&](const char* name) { return Rcpp::as<double>(totals[name]); };
    const auto size = [&](const char* name) { return static_cast<std::size_t>(total(name)); };
    const cosmoe::Model built(bind::as_model(model), size("dx"), size("dz"));
    const cosmoe::RowSums sums{host_sums(built, evaluate, false),
                               host_sums(built, evaluate, true),
                               {total("used"), total("weight"), total("squares"), total("deviation")},
                               false};
    return run_fit(
        model, built, start, control,
        [&](const auto&... rest) { return cosmoe::fit_least_squares(built, sums, rest...); },
        [&](const auto&... rest) { return cosmoe::fit_likelihood(built, sums, rest...); });
}

// [[Rcpp::export]]
Rcpp::List core_objective(const Rcpp::List& model, const Rcpp::List& rows, const Rcpp::List& par, int order,
                          int threads) {
    const cosmoe::Rows data = bind::as_rows(rows);
    const cosmoe::Model built(bind::as_model(model), data.dx, data.dz);
    const cosmoe::Hooks hooks = bind::interrupt_hooks();
    const CriterionOf criterion(model);
    const cosmoe::Pass pass(built, data, static_cast<std::size_t>(threads), hooks, criterion.get());
    const cosmoe::Evaluation e =
        pass.evaluate(cosmoe::pack(built.layout, bind::as_parameters(par)), static_cast<cosmoe::Order>(order));
    Rcpp::List out = Rcpp::List::create(Rcpp::Named("value") = e.value);
    if (order >= 1) out["gradient"] = Rcpp::NumericVector(e.gradient.begin(), e.gradient.end());
    if (order >= 2) out["normal"] = e.normal;
    if (order >= 3) out["hessian"] = e.hessian;
    return out;
}

// [[Rcpp::export]]
Rcpp::List core_predict(const Rcpp::List& model, const Rcpp::List& rows, const Rcpp::List& par, int threads) {
    const cosmoe::Rows data = bind::as_rows(rows);
    const cosmoe::Model built(bind::as_model(model), data.dx, data.dz);
    const cosmoe::Hooks hooks = bind::interrupt_hooks();
    const int n = static_cast<int>(data.n), k = static_cast<int>(built.layout.k());
    Rcpp::NumericVector f(n);
    Rcpp::NumericMatrix gate(n, k), expert(n, k), logit(n, k);
    const cosmoe::Pass pass(built, data, static_cast<std::size_t>(threads), hooks);
    pass.predict(cosmoe::pack(built.layout, bind::as_parameters(par)),
                 {f.begin(), gate.begin(), expert.begin(), logit.begin()});
    return Rcpp::List::create(Rcpp::Named("f") = f, Rcpp::Named("gate") = gate, Rcpp::Named("expert") = expert,
                              Rcpp::Named("logit") = logit);
}

// What a solution does with the rows: fitted values, and sums over rows (see Outcome), in blocks, so that no n x k matrix
// is there. `own` has response, weights, offset and trials of the rows, which the prediction does not need, and limits.
// [[Rcpp::export]]
Rcpp::List core_outcome(const Rcpp::List& model, const Rcpp::List& rows, const Rcpp::List& par, const Rcpp::List& own,
                        const Rcpp::Nullable<Rcpp::List>& family, const arma::vec& phi, int threads) {
    constexpr std::size_t most = 16384;
    const cosmoe::Rows data = bind::as_rows(rows);
    const cosmoe::Model built(bind::as_model(model), data.dx, data.dz);
    const cosmoe::Hooks hooks = bind::interrupt_hooks();
    const cosmoe::Pass pass(built, data, static_cast<std::size_t>(threads), hooks);
    const arma::vec theta = cosmoe::pack(built.layout, bind::as_parameters(par));
    const auto column = [&](const char* name) -> const double* {
        const SEXP value = own.containsElementNamed(name) ? static_cast<SEXP>(own[name]) : R_NilValue;
        return Rf_isNull(value) ? nullptr : REAL(value);
    };
    const double *y = column("y"), *w = column("w"), *offset = column("offset"), *trials = column("trials");
    const double* limits = column("limits");
    const auto known =
        family.isNull() ? nullptr : cosmoe::make_family(bind::as_family(static_cast<Rcpp::List>(family.get())));
    const std::size_t k = built.layout.k();
    std::vector<double> gate(std::min(most, data.n) * k), expert(gate.size());
    Rcpp::NumericVector f(static_cast<R_xlen_t>(data.n));
    cosmoe::Outcome out(k);
    for (std::size_t first = 0; first < data.n; first += most) {
        const std::size_t count = std::min(most, data.n - first);
        cosmoe::Prediction at;
        at.gate = gate.data(), at.expert = expert.data();
        pass.predict(theta, at, first, count);
        const auto from = [&](const double* values) { return values ? values + first : nullptr; };
        out.add(cosmoe::summarise(
            {count, k, gate.data(), expert.data(), from(y), from(w), from(offset), from(trials), limits}, known.get(),
            phi, f.begin() + first));
    }
    return Rcpp::List::create(
        Rcpp::Named("f") = f, Rcpp::Named("gate") = Rcpp::NumericVector(out.gate.begin(), out.gate.end()),
        Rcpp::Named("influence") = Rcpp::NumericVector(out.influence.begin(), out.influence.end()),
        Rcpp::Named("extreme") = Rcpp::NumericVector(out.extreme.begin(), out.extreme.end()),
        Rcpp::Named("both") = out.both, Rcpp::Named("difference") = out.difference,
        Rcpp::Named("entropy") = out.entropy);
}

// [[Rcpp::export]]
Rcpp::NumericMatrix core_jacobian(const Rcpp::List& model, const Rcpp::List& rows, const Rcpp::List& par, int threads) {
    const cosmoe::Rows data = bind::as_rows(rows);
    const cosmoe::Model built(bind::as_model(model), data.dx, data.dz);
    const cosmoe::Hooks hooks = bind::interrupt_hooks();
    Rcpp::NumericMatrix out(static_cast<int>(data.n), static_cast<int>(built.layout.size()));
    const CriterionOf criterion(model);
    const cosmoe::Pass pass(built, data, static_cast<std::size_t>(threads), hooks, criterion.get());
    pass.jacobian(cosmoe::pack(built.layout, bind::as_parameters(par)), out.begin());
    return out;
}

// A row for each column of a matrix (or for a vector).
// [[Rcpp::export]]
Rcpp::NumericMatrix core_summarise_columns(const Rcpp::NumericVector& x, const Rcpp::Nullable<Rcpp::NumericVector>& w) {
    const R_xlen_t columns = x.hasAttribute("dim") ? Rcpp::IntegerVector(x.attr("dim"))[1] : 1;
    const std::size_t n = columns > 0 ? static_cast<std::size_t>(x.size() / columns) : 0;
    const Rcpp::NumericVector weights = w.isNull() ? Rcpp::NumericVector() : Rcpp::NumericVector(w.get());
    Rcpp::NumericMatrix out(static_cast<int>(columns), 6);
    Rcpp::colnames(out) =
        Rcpp::CharacterVector::create("center", "spread", "least", "largest", "least_row", "largest_row");
    if (n == 0) std::fill(out.begin(), out.end(), NA_REAL);
    for (R_xlen_t j = 0; n > 0 && j < columns; ++j) {
        const cosmoe::ColumnSummary c = cosmoe::summarise_column(x.begin() + static_cast<std::size_t>(j) * n,
                                                                 w.isNull() ? nullptr : weights.begin(), n);
        const double values[] = {c.center, c.spread, c.least, c.largest, c.least_row + 1.0, c.largest_row + 1.0};
        for (int i = 0; i < 6; ++i) out(static_cast<int>(j), i) = values[i];
    }
    return out;
}

// [[Rcpp::export]]
double core_lower_median(const Rcpp::NumericVector& x) {
    return cosmoe::lower_median(x.begin(), static_cast<std::size_t>(x.size()));
}

// [[Rcpp::export]]
Rcpp::NumericVector core_ridge(const arma::mat& x, const arma::vec& y, const arma::vec& w, double shrink) {
    const arma::vec coef = cosmoe::ridge(x, y, w, shrink);
    return Rcpp::NumericVector(coef.begin(), coef.end());
}
