// The sparse layer: counter-based draws, gradients by differences with the choice of experts held fixed, the same bits
// for any number of threads and after a pause, failures.
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "check.h"
#include "common/errors.h"
#include "differences.h"
#include "layer/train.h"

namespace {

using namespace cosmoe;

struct Problem {
    LayerSpec spec;
    LayerData data;
    std::vector<double> x;
    std::vector<int> y, cluster;
    arma::mat zeta;
    arma::vec theta;
};

Problem make(std::size_t n, std::size_t d, std::size_t patches, const LayerSpec& spec, unsigned seed,
             const arma::mat& projection = arma::mat()) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> draw;
    Problem out;
    out.spec = spec;
    out.x.resize(n * d * patches);
    for (double& v : out.x) v = draw(generator);
    for (std::size_t i = 0; i < n; ++i) {
        out.y.push_back(static_cast<int>(generator() % spec.classes));
        out.cluster.push_back(static_cast<int>(generator() % 3));
    }
    out.data.x = out.x.data(), out.data.y = out.y.data(), out.data.cluster = out.cluster.data();
    out.data.n = n, out.data.dim = d, out.data.patches = patches, out.data.clusters = 3;
    out.zeta = layer_features(spec, out.data, projection);
    out.data.zeta = out.zeta.memptr(), out.data.gate_dim = out.zeta.n_rows;
    out.theta.set_size(LayerLayout(spec, out.data).size());
    for (double& v : out.theta) v = 0.5 * draw(generator);
    return out;
}

LayerSpec layer(Protocol protocol, std::size_t experts, std::size_t top_k, std::size_t classes,
                const char* router = "linear") {
    LayerSpec spec;
    spec.protocol = protocol, spec.experts = experts, spec.router.top_k = top_k, spec.classes = classes;
    spec.router.name = router, spec.filters = 6, spec.seed = 7;
    return spec;
}

const Hooks no_hooks;

void check_counter() {
    const Counter a(1, Stream::training, 5), b(1, Stream::training, 5), step(1, Stream::training, 6),
        seed(2, Stream::training, 5), stream(1, Stream::prediction, 5);
    double sum = 0, squares = 0, product = 0, normal = 0, normal_squares = 0;
    const std::size_t n = 200000;
    bool same = true, inside = true;
    std::size_t equal = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const double u = a.uniform(i);
        same = same && u == b.uniform(i), inside = inside && u >= 0 && u < 1;
        equal += u == step.uniform(i), equal += u == seed.uniform(i), equal += u == stream.uniform(i);
        sum += u - 0.5, squares += (u - 0.5) * (u - 0.5);
        product += (u - 0.5) * (a.uniform(i + 1) - 0.5) + (u - 0.5) * (step.uniform(i) - 0.5);
        normal += a.normal(i), normal_squares += a.normal(i) * a.normal(i);
    }
    CHECK(same && inside && equal == 0);
    // Four standard errors.
    const double scale = 4 / std::sqrt(static_cast<double>(n));
    CHECK_NEAR(sum / n, 0, scale * std::sqrt(1 / 12.0));
    CHECK_NEAR(squares / n, 1 / 12.0, scale * std::sqrt(1 / 180.0));
    CHECK_NEAR(product / n, 0, scale * std::sqrt(2.0) / 12);
    CHECK_NEAR(normal / n, 0, scale);
    CHECK_NEAR(normal_squares / n, 1, scale * std::sqrt(2.0));
}

// The gradient, with given routes: the loss is then smooth in everything.
void check_gradient(const LayerSpec& spec, const arma::mat& projection = arma::mat()) {
    Problem p = make(11, 5, 3, spec, 3, projection);
    LayerPass pass(p.spec, p.data, 1, no_hooks);
    const Counter counter(p.spec.seed, Stream::training, 0);
    std::vector<int> route;
    for (std::size_t i = 0; i < p.data.n; ++i)
        for (std::size_t k = 0; k < spec.router.top_k; ++k) route.push_back(static_cast<int>((i + k) % spec.experts));
    const arma::mat by_differences = differences(p.theta, [&](const arma::vec& theta) {
        return arma::vec{pass.evaluate(theta, counter, nullptr, p.data.n, route.data()).loss};
    });
    const LayerEvaluation e = pass.evaluate(p.theta, counter, nullptr, p.data.n, route.data());
    check_near(e.gradient, by_differences.t(), 1e-9);
    // The same over an index of all samples, in another order.
    std::vector<std::size_t> index;
    std::vector<int> moved;
    for (std::size_t i = p.data.n; i-- > 0;) {
        index.push_back(i);
        moved.insert(moved.end(), route.begin() + i * spec.router.top_k, route.begin() + (i + 1) * spec.router.top_k);
    }
    const LayerEvaluation turned = pass.evaluate(p.theta, counter, index.data(), p.data.n, moved.data());
    check_near(turned.gradient, e.gradient, 1e-12);
    CHECK_NEAR(turned.loss, e.loss, 1e-12);
    CHECK(turned.correct == e.correct && turned.sent == e.sent);
}

void check_gradients() {
    for (const Protocol protocol : {Protocol::paper, Protocol::notebook})
        for (const std::size_t classes : {2, 3})
            for (const std::size_t top_k : {1, 2})
                for (const char* router : {"linear", "cosine", "perturbed_cosine"}) {
                    LayerSpec spec = layer(protocol, 4, top_k, classes, router);
                    check_gradient(spec);
                    spec.balance = 0.3, spec.activation = Activation::gelu;
                    check_gradient(spec, arma::mat{{1, 0, 2, 0, 1}, {0, 1, 0, -1, 0.5}});
                }
    for (const Activation phi : {Activation::identity, Activation::relu, Activation::celu, Activation::tanh}) {
        LayerSpec spec = layer(Protocol::notebook, 3, 1, 2);
        spec.activation = phi;
        check_gradient(spec);
        check_gradient([&] {
            spec.experts = 1;
            return spec;
        }());
    }
}

TrainResult train(const Problem& p, TrainState& state, std::size_t steps, std::size_t threads, std::size_t batch,
                  LayerOptimizer optimizer = LayerOptimizer::ngd, double rate = 0.01) {
    LayerPass pass(p.spec, p.data, threads, no_hooks);
    TrainSettings settings;
    settings.steps = steps, settings.batch = batch, settings.optimizer = optimizer;
    settings.expert_rate = rate, settings.gate_rate = 0.1;
    return train_layer(pass, settings, state);
}

bool same_bits(const arma::vec& a, const arma::vec& b) {
    return a.n_elem == b.n_elem && std::equal(a.begin(), a.end(), b.begin());
}

void check_threads_and_pauses() {
    for (const LayerOptimizer optimizer : {LayerOptimizer::ngd, LayerOptimizer::adam})
        for (const std::size_t batch : {0, 700}) {
            Problem p = make(2100, 6, 4, layer(Protocol::paper, 3, 1, 2), 5);
            TrainState one, three, paused;
            one.theta = three.theta = paused.theta = p.theta;
            const TrainResult whole = train(p, one, 7, 1, batch, optimizer);
            train(p, three, 7, 3, batch, optimizer);
            train(p, paused, 4, 2, batch, optimizer);
            train(p, paused, 3, 1, batch, optimizer);
            CHECK(whole.status == TrainStatus::steps && whole.history.loss.size() == 7 && one.step == 7);
            CHECK(!same_bits(one.theta, p.theta) && one.theta.is_finite());
            CHECK(same_bits(one.theta, three.theta) && same_bits(one.theta, paused.theta));
        }
}

// An expert that no sample is sent to has no gradient and stays where it is.
void check_idle_expert() {
    Problem p = make(40, 5, 2, layer(Protocol::paper, 3, 1, 2), 9);
    p.spec.noise = Noise::none;
    const LayerLayout layout(p.spec, p.data);
    // Equal scores: the first expert gets everything.
    for (std::size_t i = layout.gate(0); i < layout.size(); ++i) p.theta[i] = 0;
    TrainState state;
    state.theta = p.theta;
    const TrainResult result = train(p, state, 1, 1, 0);
    CHECK(result.history.sent[0] + result.history.sent[1] + result.history.sent[2] == 40);
    CHECK(state.theta.is_finite());
    double moved = 0;
    for (std::size_t i = 0; i < layout.filter(1); ++i) moved += std::pow(state.theta[i] - p.theta[i], 2);
    CHECK_NEAR(std::sqrt(moved), 0.01, 1e-14);
    for (std::size_t i = layout.filter(1); i < layout.filter(3); ++i) CHECK(state.theta[i] == p.theta[i]);
}

void check_failures() {
    Problem p = make(40, 5, 2, layer(Protocol::paper, 3, 1, 2), 9);
    TrainState state;
    state.theta = p.theta * 1e120;  // the cube overflows
    CHECK(train(p, state, 3, 1, 0).status == TrainStatus::overflow);
    TrainState wild;
    wild.theta = p.theta * 1e-3;
    CHECK(train(p, wild, 50, 1, 0, LayerOptimizer::ngd, 1e4).status == TrainStatus::diverged);
    CHECK(same_bits(wild.theta, wild.lowest) && wild.theta.is_finite());

    LayerSpec bad = p.spec;
    bad.router.top_k = 4;
    CHECK_THROWS(LayerPass(bad, p.data, 1, no_hooks), InvalidArgument);
    bad = p.spec, bad.protocol = Protocol::notebook, bad.filters = 5;
    CHECK_THROWS(LayerPass(bad, p.data, 1, no_hooks), InvalidArgument);

    Hooks stop;
    stop.interrupted = [] { return true; };
    LayerPass pass(p.spec, p.data, 2, stop);
    TrainState held;
    held.theta = p.theta;
    CHECK(train_layer(pass, TrainSettings(), held).status == TrainStatus::interrupted);
    CHECK(same_bits(held.theta, p.theta) && held.step == 0);
}

// What is predicted is what the training saw.
void check_prediction() {
    Problem p = make(300, 5, 3, layer(Protocol::paper, 4, 2, 3), 11);
    p.spec.noise = Noise::none;
    LayerPass pass(p.spec, p.data, 2, no_hooks);
    const LayerEvaluation e = pass.evaluate(p.theta, Counter(7, Stream::training, 0), nullptr, 300);
    std::vector<double> output(900), gate(1200);
    std::vector<int> expert(600);
    pass.predict(p.theta, Counter(7, Stream::prediction, 0), {output.data(), expert.data(), gate.data()});
    std::size_t correct = 0;
    std::vector<std::size_t> sent(12, 0);
    for (std::size_t i = 0; i < 300; ++i) {
        std::size_t best = 0;
        for (std::size_t c = 1; c < 3; ++c)
            if (output[i + 300 * c] > output[i + 300 * best]) best = c;
        correct += best == static_cast<std::size_t>(p.y[i]);
        double sum = 0;
        for (std::size_t m = 0; m < 4; ++m) sum += gate[i + 300 * m];
        CHECK_NEAR(sum, 1, 1e-14);
        CHECK(expert[i] != expert[i + 300]);
        for (std::size_t m = 0; m < 4; ++m)
            CHECK(gate[i + 300 * m] <= gate[i + 300 * static_cast<std::size_t>(expert[i])]);
        for (std::size_t k = 0; k < 2; ++k)
            ++sent[static_cast<std::size_t>(p.cluster[i]) + 3 * static_cast<std::size_t>(expert[i + 300 * k])];
    }
    CHECK(correct == e.correct);
    CHECK(sent == e.sent);
}

}  // namespace

int main() {
    check_counter();
    check_gradients();
    check_threads_and_pauses();
    check_idle_expert();
    check_failures();
    check_prediction();
    return check::report();
}
