// The pass: derivatives against finite differences, threads, subsets of rows, interrupts and exceptions.
#include <algorithm>
#include <functional>
#include <limits>
#include <mutex>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "common/errors.h"
#include "differences.h"
#include "regression/family.h"
#include "regression/likelihood.h"
#include "regression/pass.h"

namespace {

using namespace cosmoe;

const Hooks no_hooks;

ModelSpec model_spec(const std::string& expert, std::size_t k = 3) {
    ModelSpec out;
    out.k = k;
    out.expert.name = expert;
    out.router.scale = 3;
    return out;
}

ModelSpec network(std::size_t hidden, const std::string& activation) {
    ModelSpec out = model_spec("network", 2);
    out.expert.hidden = hidden, out.expert.activation = activation;
    return out;
}

ModelSpec polynomial(int degree) {
    ModelSpec out = model_spec("polynomial");
    out.expert.degree = degree;
    return out;
}

// eta_0 + eta_1 x_1^2 + eta_2 sin(x_2): linear in its parameters, so that its second derivatives are 0 in truth, too.
ModelSpec custom() {
    ModelSpec out = model_spec("custom");
    out.expert.n_par = 3;
    out.expert.custom = [](const double* x, std::size_t ldx, std::size_t n, std::size_t, const double* eta,
                           double* value, double* gradient, std::size_t ld) {
        for (std::size_t i = 0; i < n; ++i) {
            const double basis[] = {1, x[i] * x[i], std::sin(x[ldx + i])};
            value[i] = 0;
            for (std::size_t j = 0; j < 3; ++j) {
                value[i] += eta[j] * basis[j];
                if (gradient) gradient[j * ld + i] = basis[j];
            }
        }
    };
    return out;
}

// eta_0 exp(eta_1 x_1)
ModelSpec curved_custom() {
    ModelSpec out = model_spec("custom", 2);
    out.expert.n_par = 2;
    out.expert.custom = [](const double* x, std::size_t, std::size_t n, std::size_t, const double* eta, double* value,
                           double* gradient, std::size_t ld) {
        for (std::size_t i = 0; i < n; ++i) {
            const double e = std::exp(eta[1] * x[i]);
            value[i] = eta[0] * e;
            if (gradient) gradient[i] = e, gradient[ld + i] = eta[0] * x[i] * e;
        }
    };
    return out;
}

struct Data {
    arma::mat x, z;
    arma::vec y, w;
    Rows rows;

    Data(arma::uword n, arma::uword dx, arma::uword dz, unsigned seed) : x(n, dx), z(n, dz), y(n), w(n) {
        std::mt19937 generator(seed);
        std::normal_distribution<double> draw;
        for (arma::mat* m : {&x, &z})
            for (double& v : *m) v = draw(generator);
        for (double& v : y) v = 2 * draw(generator);
        for (double& v : w) v = std::abs(draw(generator));
        bind();
    }
    Data(const Data& other, const std::vector<std::size_t>& index)
        : x(index.size(), other.x.n_cols),
          z(index.size(), other.z.n_cols),
          y(index.size()),
          w(index.size()) {
        for (arma::uword i = 0; i < y.n_elem; ++i) {
            const auto from = static_cast<arma::uword>(index[i]);
            x.row(i) = other.x.row(from), z.row(i) = other.z.row(from), y[i] = other.y[from], w[i] = other.w[from];
        }
        bind();
    }
    Data(const Data&) = delete;
    Data& operator=(const Data&) = delete;

  private:
    void bind() {
        rows.n = y.n_elem;
        rows.x = x.memptr(), rows.dx = x.n_cols;
        rows.z = z.memptr(), rows.dz = z.n_cols;
        rows.y = y.memptr(), rows.w = w.memptr();
    }
};

arma::vec random_theta(const Model& model, unsigned seed, double size = 0.7) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> draw;
    arma::vec theta(static_cast<arma::uword>(model.layout.size()));
    for (double& v : theta) v = size * draw(generator);
    return theta;
}

bool same(const arma::mat& a, const arma::mat& b) {
    return arma::size(a) == arma::size(b) && std::equal(a.begin(), a.end(), b.begin());
}

bool same(const Evaluation& a, const Evaluation& b) {
    return a.value == b.value && same(a.gradient, b.gradient) && same(a.normal, b.normal) && same(a.hessian, b.hessian);
}

// --- derivatives --------------------------------------------------------------------------------------------------

// The value by its definition, from the prediction's parts.
void check_value(const Model& model, const Data& data, const arma::vec& theta) {
    const arma::uword n = data.y.n_elem, k = static_cast<arma::uword>(model.layout.k());
    const Pass pass(model, data.rows, 1, no_hooks);
    arma::vec f(n);
    arma::mat gate(n, k), expert(n, k), logit(n, k);
    pass.predict(theta, {f.memptr(), gate.memptr(), expert.memptr(), logit.memptr()});
    CHECK_NEAR(arma::abs(arma::sum(gate, 1) - 1).max(), 0, 1e-14);
    CHECK_NEAR(arma::abs(arma::sum(gate % expert, 1) - f).max(), 0, 1e-12 * (1 + arma::abs(expert).max()));
    const double value = 0.5 * arma::dot(data.w, arma::square(data.y - f));
    CHECK_NEAR(pass.evaluate(theta, Order::value).value, value, 1e-12 * value);
    // Parts can be left out.
    arma::vec alone(n);
    pass.predict(theta, {alone.memptr(), nullptr, nullptr, nullptr});
    CHECK(same(alone, f));
}

void check_derivatives(const ModelSpec& spec, bool exact_second = true) {
    const Data data(37, 2, 3, 5);
    const Model model(spec, 2, 3);
    const Pass pass(model, data.rows, 1, no_hooks);
    for (const unsigned seed : {1, 2}) {
        const arma::vec theta = random_theta(model, seed);
        check_value(model, data, theta);
        const Evaluation e = pass.evaluate(theta, Order::hessian);
        const Evaluation first = pass.evaluate(theta, Order::gradient);
        CHECK(pass.evaluate(theta, Order::value).value == first.value);
        if (spec.router.top_k == 0) {
            CHECK(first.value == e.value);
            CHECK(same(first.gradient, e.gradient));
        }
        CHECK_NEAR(first.value, e.value, 1e-13 * e.value);
        check_near(first.gradient, e.gradient, 1e-13);
        CHECK(same(pass.evaluate(theta, Order::normal).normal, e.normal));
        CHECK(same(e.hessian, e.hessian.t().eval()));
        CHECK(same(e.normal, e.normal.t().eval()));

        const arma::mat gradient =
            differences(theta, [&](const arma::vec& at) { return arma::vec{pass.evaluate(at, Order::value).value}; });
        check_near(e.gradient, gradient.t(), 1e-8);
        const arma::mat jacobian = differences(theta, [&](const arma::vec& at) {
            arma::vec f(data.y.n_elem);
            pass.predict(at, {f.memptr(), nullptr, nullptr, nullptr});
            return f;
        });
        check_near(e.normal, jacobian.t() * arma::diagmat(data.w) * jacobian, 1e-8);
        arma::mat rows(arma::size(jacobian));
        pass.jacobian(theta, rows.memptr());
        check_near(rows, jacobian, 1e-8);
        if (!exact_second) continue;
        const arma::mat hessian =
            differences(theta, [&](const arma::vec& at) { return pass.evaluate(at, Order::gradient).gradient; });
        check_near(e.hessian, hessian, 1e-8);
    }
}

void check_all_derivatives() {
    std::vector<ModelSpec> specs = {
        polynomial(1),      polynomial(2),         polynomial(3),        network(1, "tanh"),     network(3, "gelu"),
        network(2, "relu"), network(2, "sigmoid"), network(2, "linear"), network(2, "softplus"), custom()};
    for (const char* name : {"constant", "linear", "relu", "gelu", "tanh", "sigmoid", "softplus"})
        specs.push_back(model_spec(name));
    for (const ModelSpec& spec : specs) check_derivatives(spec);
    check_derivatives(curved_custom(), false);

    for (const char* router : {"linear", "cosine"})
        for (ModelSpec spec : {model_spec("linear"), model_spec("tanh"), network(2, "tanh"), custom()}) {
            spec.router.name = router;
            check_derivatives(spec);
        }
    for (const std::size_t top_k : {1, 2}) {
        ModelSpec spec = model_spec("gelu", 4);
        spec.router.top_k = top_k;
        check_derivatives(spec);
    }
    check_derivatives(model_spec("tanh", 1));
}

// Models without gate covariates or without expert covariates.
void check_empty_sides() {
    const Data data(21, 2, 2, 6);
    for (const bool gate : {false, true}) {
        Rows rows = data.rows;
        (gate ? rows.dz : rows.dx) = 0;
        (gate ? rows.z : rows.x) = nullptr;
        const Model model(model_spec("tanh", 2), rows.dx, rows.dz);
        const Pass pass(model, rows, 1, no_hooks);
        const arma::vec theta = random_theta(model, 3);
        const Evaluation e = pass.evaluate(theta, Order::hessian);
        check_near(e.hessian,
                   differences(theta, [&](const arma::vec& at) { return pass.evaluate(at, Order::gradient).gradient; }),
                   1e-8);
    }
    CHECK_THROWS(Model(model_spec("tanh", 0), 2, 2), InvalidArgument);
    CHECK_THROWS(Model(model_spec("sine"), 2, 2), InvalidArgument);
    CHECK_THROWS(Model(polynomial(0), 2, 2), InvalidArgument);
    CHECK_THROWS(Model(network(0, "tanh"), 2, 2), InvalidArgument);
}

// --- rows ---------------------------------------------------------------------------------------------------------

void check_threads() {
    for (const ModelSpec& spec : {model_spec("linear"), network(2, "tanh"), custom()})
        for (const arma::uword n : {1, 300, 2048, 5 * 1024 + 37}) {
            const Data data(n, 2, 2, 7);
            const Model model(spec, 2, 2);
            const arma::vec theta = random_theta(model, 4);
            const Evaluation one = Pass(model, data.rows, 1, no_hooks).evaluate(theta, Order::hessian);
            arma::vec f_one(n), f(n);
            Pass(model, data.rows, 1, no_hooks).predict(theta, {f_one.memptr(), nullptr, nullptr, nullptr});
            for (const std::size_t threads : {0, 2, 3}) {
                const Pass pass(model, data.rows, threads, no_hooks);
                CHECK(same(pass.evaluate(theta, Order::hessian), one));
                pass.predict(theta, {f.memptr(), nullptr, nullptr, nullptr});
                CHECK(same(f, f_one));
            }
            // A sum over rows: the same, to rounding, as the sum over the two halves.
            std::vector<std::size_t> index(n);
            for (std::size_t i = 0; i < n; ++i) index[i] = i;
            const Pass pass(model, data.rows, 2, no_hooks);
            const Evaluation low = pass.evaluate(theta, Order::hessian, index.data(), n / 2);
            const Evaluation high = pass.evaluate(theta, Order::hessian, index.data() + n / 2, n - n / 2);
            CHECK_NEAR(low.value + high.value, one.value, 1e-12 * one.value);
            check_near(low.gradient + high.gradient, one.gradient, 1e-11);
            check_near(low.hessian + high.hessian, one.hessian, 1e-11);
        }
}

void check_index() {
    const Data data(700, 3, 2, 8);
    const Model model(model_spec("gelu"), 3, 2);
    const arma::vec theta = random_theta(model, 5);
    std::mt19937 generator(9);
    std::uniform_int_distribution<std::size_t> draw(0, 699);
    for (const std::size_t count : {1, 7, 8, 255, 256, 257, 2500}) {
        std::vector<std::size_t> index(count);
        for (std::size_t& i : index) i = draw(generator);
        const Data chosen(data, index);
        const Evaluation by_index =
            Pass(model, data.rows, 2, no_hooks).evaluate(theta, Order::hessian, index.data(), index.size());
        CHECK(same(by_index, Pass(model, chosen.rows, 1, no_hooks).evaluate(theta, Order::hessian)));
    }
}

void check_weights() {
    Data data(50, 2, 2, 10);
    const Model model(model_spec("tanh"), 2, 2);
    const arma::vec theta = random_theta(model, 6);
    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < 50; ++i)
        if (i % 3 == 0) data.w[static_cast<arma::uword>(i)] = 0, data.y[static_cast<arma::uword>(i)] = std::nan("");
        else kept.push_back(i);
    // A row without weight is as good as none, whatever its response.
    const Evaluation all = Pass(model, data.rows, 1, no_hooks).evaluate(theta, Order::hessian);
    const Evaluation rest = Pass(model, Data(data, kept).rows, 1, no_hooks).evaluate(theta, Order::hessian);
    CHECK_NEAR(all.value, rest.value, 1e-12 * rest.value);
    check_near(all.gradient, rest.gradient, 1e-12);
    check_near(all.hessian, rest.hessian, 1e-12);
    // No weights are weights of one.
    Data plain(50, 2, 2, 11);
    plain.w.ones();
    Rows unweighted = plain.rows;
    unweighted.w = nullptr;
    CHECK(same(Pass(model, plain.rows, 1, no_hooks).evaluate(theta, Order::hessian),
               Pass(model, unweighted, 1, no_hooks).evaluate(theta, Order::hessian)));
}

// Expert 2 overflows where it has no weight: no harm is done.
void check_overflow_without_weight() {
    const Data data(20, 2, 2, 12);
    for (const bool sparse : {false, true}) {
        ModelSpec spec = polynomial(5);
        spec.k = 2, spec.router.top_k = sparse;
        const Model model(spec, 2, 2);
        const Layout& layout = model.layout;
        arma::vec theta(static_cast<arma::uword>(layout.size()), arma::fill::zeros);
        theta[layout.bias(1)] = -1e4;
        theta[layout.eta(0)] = 0.5, theta[layout.eta(1) + 2] = 1e80;
        const Evaluation e = Pass(model, data.rows, 1, no_hooks).evaluate(theta, Order::hessian);
        CHECK(std::isfinite(e.value));
        CHECK(e.gradient.is_finite());
        CHECK(e.normal.is_finite());
        CHECK(e.hessian.is_finite());
    }
}

// --- interrupts and exceptions ------------------------------------------------------------------------------------

void check_interrupts() {
    const Data data(20000, 2, 2, 13);
    const Model model(model_spec("tanh"), 2, 2);
    const arma::vec theta = random_theta(model, 7);
    const Evaluation undisturbed = Pass(model, data.rows, 1, no_hooks).evaluate(theta, Order::hessian);
    for (const std::size_t threads : {1, 2, 3})
        for (const int last_call : {1, 3}) {
            // With helpers at work the caller may not come to a third block.
            if (threads > 1 && last_call > 1) continue;
            Hooks hooks;
            int calls = 0;
            bool here = true;
            const auto caller = std::this_thread::get_id();
            hooks.interrupted = [&] {
                hooks.last_asked = {};  // ask again at the next block
                here = here && std::this_thread::get_id() == caller;
                return ++calls == last_call;
            };
            const Pass pass(model, data.rows, threads, hooks);
            CHECK_THROWS(pass.evaluate(theta, Order::hessian), Interrupted);
            CHECK(calls == last_call);
            CHECK(here);
            // Stopping leaves nothing behind.
            CHECK(same(pass.evaluate(theta, Order::hessian), undisturbed));
            CHECK(here);
        }
    // The host is not asked at every block.
    Hooks hooks;
    int calls = 0;
    hooks.interrupted = [&] { return ++calls, false; };
    for (int i = 0; i < 100; ++i) hooks.stop_requested();
    CHECK(calls >= 1 && calls < 50);
}

// A constant that fails in every thread but one.
class Failing final : public Expert {
  public:
    explicit Failing(std::thread::id spared) : spared_(spared) {}
    std::size_t wide() const override { return 0; }
    std::size_t scalars() const override { return 1; }
    const std::vector<std::pair<std::size_t, std::size_t>>& curved_pairs() const override { return none_; }
    void evaluate(const ExpertBlock& block, const double* eta, int, double* value, double* first, double*,
                  Buffer&) const override {
        if (std::this_thread::get_id() != spared_) throw std::domain_error("in a worker");
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        std::fill_n(value, block.n, eta[0]);
        std::fill_n(first, block.n, 1.0);
    }

  private:
    std::thread::id spared_;
    std::vector<std::pair<std::size_t, std::size_t>> none_;
};

void check_exceptions() {
    const Data data(5000, 2, 2, 14);
    ModelSpec spec = custom();
    const CustomFunction good = spec.expert.custom;
    std::size_t calls = 0, rows = 0;
    bool here = true;
    const auto caller = std::this_thread::get_id();
    spec.expert.custom = [&](const double* x, std::size_t ldx, std::size_t n, std::size_t d, const double* eta,
                             double* value, double* gradient, std::size_t ld) {
        here = here && std::this_thread::get_id() == caller && d == 2;
        rows += n;
        if (++calls == 20) throw std::domain_error("the twentieth call");
        good(x, ldx, n, d, eta, value, gradient, ld);
    };
    const Model model(spec, 2, 2);
    const Pass pass(model, data.rows, 3, no_hooks);
    const arma::vec theta = random_theta(model, 8);
    std::string message;
    try {
        pass.evaluate(theta, Order::gradient);
    } catch (const std::domain_error& error) {
        message = error.what();
    }
    CHECK(message == "the twentieth call");
    CHECK(calls == 20);
    CHECK(here);  // a host with one thread is called from that thread
    rows = 0;
    pass.evaluate(theta, Order::gradient);
    CHECK(rows == 3 * 5000);  // padding rows are not shown to it

    Model failing(model_spec("constant", 2), 2, 2);
    failing.expert = std::make_unique<Failing>(caller);
    const Data many(20000, 2, 2, 15);
    for (const std::size_t threads : {2, 3})
        CHECK_THROWS(Pass(failing, many.rows, threads, no_hooks).evaluate(random_theta(failing, 9), Order::gradient),
                     std::domain_error);
}

// --- sparse gates, many rows --------------------------------------------------------------------------------------

// Enough rows that they are sorted by their experts: the sums against those over the rows' derivatives, which come from
// the gate with a mask; the Hessian against differences of the gradient along a direction, for a step so small that no
// row changes its experts.
void check_sorted_rows() {
    for (const std::string router : {"linear", "perturbed_cosine"})
        for (const bool shared : {false, true})
            for (const std::size_t top_k : {1, 2, 3, 4}) {
                ModelSpec spec = model_spec(top_k % 2 == shared ? "gelu" : "network", 6);
                spec.expert.hidden = 2;
                spec.router.name = router, spec.router.top_k = top_k;
                Data data(6000, 3, 3, 21);
                if (shared) data.rows.z = data.rows.x;
                const Model model(spec, 3, 3);
                const arma::vec theta = random_theta(model, 5);
                const Pass pass(model, data.rows, 1, no_hooks);
                arma::mat jacobian(6000, theta.n_elem, arma::fill::zeros);
                pass.jacobian(theta, jacobian.memptr());
                arma::vec f(6000);
                Prediction out;
                out.f = f.memptr();
                pass.predict(theta, out);
                const arma::vec r = data.y - f;
                const Evaluation at = pass.evaluate(theta, Order::hessian);
                CHECK_NEAR(at.value, 0.5 * arma::accu(data.w % r % r), 1e-10 * at.value);
                check_near(at.gradient, -jacobian.t() * (data.w % r), 1e-12);
                check_near(at.normal, jacobian.t() * (jacobian.each_col() % data.w), 1e-12);
                check_near(pass.evaluate(theta, Order::normal).normal, at.normal, 1e-15);
                const Evaluation first = pass.evaluate(theta, Order::gradient);
                check_near(first.gradient, at.gradient, 1e-13);
                CHECK_NEAR(first.value, at.value, 1e-13 * at.value);
                CHECK(pass.evaluate(theta, Order::value).value == first.value);
                CHECK(same(Pass(model, data.rows, 2, no_hooks).evaluate(theta, Order::gradient), first));
                arma::vec direction = random_theta(model, 6);
                // Gates stay: only their biases move.
                for (std::size_t m = 0; m < 6; ++m)
                    for (std::size_t j = 0; j < 3; ++j) direction[model.layout.gate(m) + j] = 0;
                const double h = 1e-5;
                const arma::vec slope = (pass.evaluate(theta + h * direction, Order::gradient).gradient -
                                         pass.evaluate(theta - h * direction, Order::gradient).gradient) /
                                        (2 * h);
                check_near(at.hessian * direction, slope, 1e-7);
                CHECK(same(Pass(model, data.rows, 3, no_hooks).evaluate(theta, Order::hessian), at));
            }
}

// The same for a likelihood, with rows without weight.
void check_sorted_likelihood() {
    const auto family = make_family(FamilySpec());
    const LikelihoodCriterion criterion(*family);
    for (const std::string expert : {"tanh", "constant"})
        for (const std::size_t dispersions : {1, 7})
            for (const std::size_t top_k : {1, 2, 3}) {
                ModelSpec spec = model_spec(expert, 7);
                spec.router.name = "cosine", spec.router.top_k = top_k, spec.dispersions = dispersions;
                Data data(5003, 2, 3, 22);
                for (arma::uword i = 0; i < 5003; i += 5) data.w[i] = 0, data.y[i] = std::nan("");
                const Model model(spec, 2, 3);
                const arma::vec theta = random_theta(model, 7);
                const Pass pass(model, data.rows, 1, no_hooks, criterion);
                arma::mat gate(5003, 7), mean(5003, 7), scores(5003, theta.n_elem, arma::fill::zeros);
                pass.predict(theta, {nullptr, gate.memptr(), mean.memptr(), nullptr});
                double value = 0;
                for (arma::uword i = 0; i < 5003; ++i) {
                    double density = 0;
                    for (arma::uword m = 0; m < 7; ++m) {
                        const double sigma = std::exp(theta[static_cast<arma::uword>(model.layout.dispersion(m))]);
                        const double z = (data.y[i] - mean(i, m)) / sigma;
                        density += gate(i, m) * std::exp(-0.5 * z * z) / (sigma * std::sqrt(2 * arma::datum::pi));
                    }
                    if (data.w[i] > 0) value -= data.w[i] * std::log(density);
                }
                pass.jacobian(theta, scores.memptr());
                for (arma::uword i = 0; i < 5003; i += 5) scores.row(i).zeros();
                for (const Order order : {Order::gradient, Order::normal}) {
                    const Evaluation at = pass.evaluate(theta, order);
                    CHECK_NEAR(at.value, value, 1e-10 * std::abs(value));
                    check_near(at.gradient, scores.t() * data.w, 1e-11);
                    CHECK(same(Pass(model, data.rows, 3, no_hooks, criterion).evaluate(theta, order), at));
                }
            }
}

}  // namespace

int main() {
    check_all_derivatives();
    check_empty_sides();
    check_threads();
    check_index();
    check_weights();
    check_overflow_without_weight();
    check_interrupts();
    check_exceptions();
    check_sorted_rows();
    check_sorted_likelihood();
    return check::report();
}
