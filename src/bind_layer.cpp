#include "bind_convert.h"
#include "expert/expert.h"
#include "layer/train.h"

namespace {

cosmoe::LayerSpec as_layer(const Rcpp::List& layer) {
    cosmoe::LayerSpec spec;
    spec.router = bind::as_router(layer["router"]);
    spec.activation = cosmoe::activation_named(Rcpp::as<std::string>(layer["activation"]));
    spec.protocol =
        Rcpp::as<std::string>(layer["protocol"]) == "notebook" ? cosmoe::Protocol::notebook : cosmoe::Protocol::paper;
    const std::string noise = Rcpp::as<std::string>(layer["noise"]);
    spec.noise = noise == "uniform"    ? cosmoe::Noise::uniform
                 : noise == "gaussian" ? cosmoe::Noise::gaussian
                                       : cosmoe::Noise::none;
    spec.fresh_noise = Rcpp::as<bool>(layer["fresh_noise"]);
    spec.experts = static_cast<std::size_t>(Rcpp::as<int>(layer["experts"]));
    spec.filters = static_cast<std::size_t>(Rcpp::as<int>(layer["filters"]));
    spec.classes = static_cast<std::size_t>(Rcpp::as<int>(layer["classes"]));
    spec.balance = Rcpp::as<double>(layer["balance"]);
    spec.seed = static_cast<std::uint64_t>(Rcpp::as<double>(layer["seed"]));
    return spec;
}

// R's own memory: a converted copy would not live long enough.
template <int TYPE>
const typename Rcpp::traits::storage_type<TYPE>::type* memory(const Rcpp::List& list, const char* name,
                                                              std::size_t size) {
    if (!list.containsElementNamed(name) || Rf_isNull(list[name])) return nullptr;
    const SEXP value = list[name];
    if (TYPEOF(value) != TYPE || static_cast<std::size_t>(Rf_xlength(value)) != size)
        throw cosmoe::InvalidArgument(std::string(name) + " has the wrong type or length");
    return Rcpp::internal::r_vector_start<TYPE>(value);
}

cosmoe::LayerData as_data(const Rcpp::List& list) {
    const Rcpp::IntegerVector dim = Rcpp::as<Rcpp::IntegerVector>(Rcpp::RObject(list["x"]).attr("dim"));
    if (dim.size() != 3) throw cosmoe::InvalidArgument("x must be an array of d x patches x samples");
    cosmoe::LayerData data;
    data.dim = static_cast<std::size_t>(dim[0]);
    data.patches = static_cast<std::size_t>(dim[1]);
    data.n = static_cast<std::size_t>(dim[2]);
    data.x = memory<REALSXP>(list, "x", data.dim * data.patches * data.n);
    data.y = memory<INTSXP>(list, "y", data.n);
    data.cluster = memory<INTSXP>(list, "cluster", data.n);
    data.clusters = static_cast<std::size_t>(Rcpp::as<int>(list["clusters"]));
    if (list.containsElementNamed("zeta") && !Rf_isNull(list["zeta"])) {
        data.gate_dim = static_cast<std::size_t>(Rf_nrows(list["zeta"]));
        data.zeta = memory<REALSXP>(list, "zeta", data.n * data.gate_dim);
    }
    return data;
}

arma::vec as_theta(const Rcpp::List& state, const char* name) {
    const Rcpp::NumericVector v = state[name];
    return arma::vec(v.begin(), static_cast<arma::uword>(v.size()));
}

Rcpp::NumericVector wrap_vector(const arma::vec& v) { return Rcpp::NumericVector(v.begin(), v.end()); }

Rcpp::NumericVector wrap_vector(const std::vector<double>& v) { return Rcpp::NumericVector(v.begin(), v.end()); }

const char* status_name(cosmoe::TrainStatus status) {
    switch (status) {
        case cosmoe::TrainStatus::stop_loss: return "stop_loss";
        case cosmoe::TrainStatus::stop_rise: return "stop_rise";
        case cosmoe::TrainStatus::diverged: return "diverged";
        case cosmoe::TrainStatus::overflow: return "overflow";
        case cosmoe::TrainStatus::interrupted: return "interrupted";
        default: return "steps";
    }
}

void check_size(const cosmoe::LayerPass& pass, const arma::vec& theta) {
    if (theta.n_elem != pass.layout().size()) throw cosmoe::InvalidArgument("the parameters have the wrong length");
}

}  // namespace

// [[Rcpp::export]]
arma::mat core_layer_features(const Rcpp::List& layer, const Rcpp::List& data, const arma::mat& projection) {
    return cosmoe::layer_features(as_layer(layer), as_data(data), projection);
}

// [[Rcpp::export]]
Rcpp::List core_layer_train(const Rcpp::List& layer, const Rcpp::List& data, const Rcpp::List& state,
                            const Rcpp::List& control) {
    const cosmoe::Hooks hooks = bind::interrupt_hooks();
    cosmoe::LayerPass pass(as_layer(layer), as_data(data), static_cast<std::size_t>(Rcpp::as<int>(control["threads"])),
                           hooks);
    cosmoe::TrainState at;
    at.theta = as_theta(state, "theta"), at.first = as_theta(state, "first"), at.second = as_theta(state, "second");
    at.lowest = as_theta(state, "lowest");
    at.step = static_cast<std::size_t>(Rcpp::as<int>(state["step"]));
    at.first_loss = Rcpp::as<double>(state["first_loss"]);
    at.lowest_loss = Rcpp::as<double>(state["lowest_loss"]);
    check_size(pass, at.theta);
    cosmoe::TrainSettings settings;
    settings.optimizer = Rcpp::as<std::string>(control["optimizer"]) == "adam" ? cosmoe::LayerOptimizer::adam
                                                                               : cosmoe::LayerOptimizer::ngd;
    settings.expert_rate = Rcpp::as<double>(control["expert_rate"]);
    settings.gate_rate = Rcpp::as<double>(control["gate_rate"]);
    settings.weight_decay = Rcpp::as<double>(control["weight_decay"]);
    settings.steps = static_cast<std::size_t>(Rcpp::as<int>(control["steps"]));
    settings.batch = static_cast<std::size_t>(Rcpp::as<int>(control["batch"]));
    settings.stop_loss = Rcpp::as<double>(control["stop_loss"]);
    settings.stop_rise = Rcpp::as<double>(control["stop_rise"]);
    const cosmoe::TrainResult result = cosmoe::train_layer(pass, settings, at);
    return Rcpp::List::create(
        Rcpp::Named("status") = status_name(result.status),
        Rcpp::Named("state") = Rcpp::List::create(
            Rcpp::Named("theta") = wrap_vector(at.theta), Rcpp::Named("first") = wrap_vector(at.first),
            Rcpp::Named("second") = wrap_vector(at.second), Rcpp::Named("step") = static_cast<int>(at.step),
            Rcpp::Named("first_loss") = at.first_loss, Rcpp::Named("lowest_loss") = at.lowest_loss,
            Rcpp::Named("lowest") = wrap_vector(at.lowest)),
        Rcpp::Named("history") = Rcpp::List::create(Rcpp::Named("step") = wrap_vector(result.history.step),
                                                    Rcpp::Named("loss") = wrap_vector(result.history.loss),
                                                    Rcpp::Named("accuracy") = wrap_vector(result.history.accuracy),
                                                    Rcpp::Named("sent") = wrap_vector(result.history.sent)));
}

// Loss and gradient at one point; `route` (top_k x n, from 0) fixes the choice of experts.
// [[Rcpp::export]]
Rcpp::List core_layer_loss(const Rcpp::List& layer, const Rcpp::List& data, const arma::vec& theta, int step,
                           const Rcpp::Nullable<Rcpp::IntegerVector>& route, int threads) {
    const cosmoe::Hooks hooks = bind::interrupt_hooks();
    const cosmoe::LayerSpec spec = as_layer(layer);
    cosmoe::LayerPass pass(spec, as_data(data), static_cast<std::size_t>(threads), hooks);
    check_size(pass, theta);
    const cosmoe::Counter counter(spec.seed, cosmoe::Stream::training, static_cast<std::uint64_t>(step));
    const Rcpp::IntegerVector given = route.isNull() ? Rcpp::IntegerVector() : Rcpp::IntegerVector(route.get());
    const std::size_t n = pass.data().n;
    if (route.isNotNull() && static_cast<std::size_t>(given.size()) != n * spec.router.top_k)
        throw cosmoe::InvalidArgument("route has the wrong length");
    const cosmoe::LayerEvaluation e =
        pass.evaluate(theta, counter, nullptr, n, route.isNull() ? nullptr : given.begin());
    return Rcpp::List::create(Rcpp::Named("loss") = e.loss, Rcpp::Named("correct") = static_cast<int>(e.correct),
                              Rcpp::Named("sent") = Rcpp::IntegerVector(e.sent.begin(), e.sent.end()),
                              Rcpp::Named("gradient") = wrap_vector(e.gradient));
}

// [[Rcpp::export]]
Rcpp::List core_layer_predict(const Rcpp::List& layer, const Rcpp::List& data, const arma::vec& theta, int threads) {
    const cosmoe::Hooks hooks = bind::interrupt_hooks();
    const cosmoe::LayerSpec spec = as_layer(layer);
    cosmoe::LayerPass pass(spec, as_data(data), static_cast<std::size_t>(threads), hooks);
    check_size(pass, theta);
    const int n = static_cast<int>(pass.data().n);
    Rcpp::NumericMatrix output(n, static_cast<int>(spec.outputs())), gate(n, static_cast<int>(spec.experts));
    Rcpp::IntegerMatrix expert(n, static_cast<int>(spec.router.top_k));
    pass.predict(theta, cosmoe::Counter(spec.seed, cosmoe::Stream::prediction, 0),
                 {output.begin(), expert.begin(), gate.begin()});
    return Rcpp::List::create(Rcpp::Named("output") = output, Rcpp::Named("expert") = expert,
                              Rcpp::Named("gate") = gate);
}

// The routing noise of a step: experts x n.
// [[Rcpp::export]]
Rcpp::NumericMatrix core_layer_noise(const Rcpp::List& layer, int step, int n, bool training) {
    const cosmoe::LayerSpec spec = as_layer(layer);
    const cosmoe::Counter counter(spec.seed, training ? cosmoe::Stream::training : cosmoe::Stream::prediction,
                                  static_cast<std::uint64_t>(step));
    Rcpp::NumericMatrix out(static_cast<int>(spec.experts), n);
    for (int i = 0; i < out.size(); ++i) {
        const auto draw = static_cast<std::uint64_t>(i);
        if (spec.noise == cosmoe::Noise::uniform) out[i] = counter.uniform(draw);
        if (spec.noise == cosmoe::Noise::gaussian) out[i] = counter.normal(draw);
    }
    return out;
}
