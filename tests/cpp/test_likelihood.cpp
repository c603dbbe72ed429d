// The mixture likelihood and EM's expected likelihood: values by definition, derivatives against differences.
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "common/errors.h"
#include "differences.h"
#include "regression/em.h"
#include "regression/pass.h"

namespace {

using namespace cosmoe;

const Hooks no_hooks;

struct Data {
    arma::mat x, z;
    arma::vec y, w, offset, trials;
    Rows rows;

    Data(const std::string& family, arma::uword n, unsigned seed) : x(n, 2), z(n, 3), y(n), w(n), offset(n), trials(n) {
        std::mt19937 generator(seed);
        std::normal_distribution<double> draw;
        for (arma::mat* m : {&x, &z})
            for (double& v : *m) v = draw(generator);
        for (arma::uword i = 0; i < n; ++i) {
            w[i] = std::abs(draw(generator));
            offset[i] = 0.2 * draw(generator);
            trials[i] = family == "binomial" ? 1 + static_cast<double>(generator() % 5) : 1;
            if (family == "gaussian") y[i] = 2 * draw(generator);
            if (family == "Gamma") y[i] = std::exp(draw(generator));
            if (family == "poisson") y[i] = static_cast<double>(generator() % 6);
            if (family == "binomial")
                y[i] = static_cast<double>(generator() % (1 + static_cast<unsigned>(trials[i]))) / trials[i];
        }
        w[0] = 0;
        rows.n = n;
        rows.x = x.memptr(), rows.dx = 2, rows.z = z.memptr(), rows.dz = 3;
        rows.y = y.memptr(), rows.w = w.memptr(), rows.offset = offset.memptr(), rows.trials = trials.memptr();
    }
    Data(const Data&) = delete;
    Data& operator=(const Data&) = delete;
};

ModelSpec model_spec(const std::string& router, const std::string& expert, std::size_t dispersions, std::size_t top_k) {
    ModelSpec out;
    out.k = 3;
    out.dispersions = dispersions;
    out.expert.name = expert;
    out.expert.hidden = 2;
    out.router.name = router, out.router.scale = 2, out.router.top_k = top_k;
    return out;
}

// Predictors stay positive where the link needs it: constants of experts are lifted.
arma::vec random_theta(const Model& model, unsigned seed, bool positive) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> draw;
    arma::vec theta(static_cast<arma::uword>(model.layout.size()));
    for (double& v : theta) v = (positive ? 0.1 : 0.6) * draw(generator);
    if (positive)
        for (std::size_t m = 0; m < model.layout.k(); ++m) theta[model.layout.eta(m) + model.layout.q() - 1] += 2;
    return theta;
}

// The density of y at a mean, written down once more.
double density(const std::string& family, double y, double n, double mean, double phi) {
    if (family == "gaussian") {
        const double sigma = std::exp(phi), e = (y - mean) / sigma;
        return std::exp(-0.5 * e * e) / (sigma * std::sqrt(2 * arma::datum::pi));
    }
    if (family == "poisson") return std::exp(-mean) * std::pow(mean, y) / std::tgamma(y + 1);
    if (family == "Gamma") {
        const double nu = std::exp(phi), rate = nu / mean;
        return std::pow(rate, nu) * std::pow(y, nu - 1) * std::exp(-rate * y) / std::tgamma(nu);
    }
    const double hits = n * y;
    return std::tgamma(n + 1) / (std::tgamma(hits + 1) * std::tgamma(n - hits + 1)) * std::pow(mean, hits) *
           std::pow(1 - mean, n - hits);
}

void check_case(const FamilySpec& spec, const ModelSpec& model_settings, bool positive) {
    const Data data(spec.name, 33, 7);
    const std::unique_ptr<const Family> family = make_family(spec);
    const Model model(model_settings, 2, 3);
    const arma::uword n = data.y.n_elem, k = 3;
    const LikelihoodCriterion criterion(*family);
    const Pass pass(model, data.rows, 1, no_hooks, criterion);
    for (const unsigned seed : {1, 2}) {
        const arma::vec theta = random_theta(model, seed, positive);
        arma::mat gate(n, k), expert(n, k);
        pass.predict(theta, {nullptr, gate.memptr(), expert.memptr(), nullptr});
        double value = 0;
        for (arma::uword i = 0; i < n; ++i) {
            double sum = 0;
            for (arma::uword m = 0; m < k; ++m)
                sum += gate(i, m) * density(spec.name, data.y[i], data.trials[i],
                                            family->mean(expert(i, m) + data.offset[i]),
                                            model_settings.dispersions ? theta[model.layout.dispersion(m)] : 0);
            if (data.w[i] > 0) value -= data.w[i] * std::log(sum);
        }
        const Evaluation e = pass.evaluate(theta, Order::hessian);
        CHECK_NEAR(e.value, value, 1e-10 * std::abs(value));
        CHECK(pass.evaluate(theta, Order::value).value == e.value);
        check_near(
            e.gradient,
            differences(theta, [&](const arma::vec& at) { return arma::vec{pass.evaluate(at, Order::value).value}; })
                .t(),
            1e-8);
        check_near(e.hessian,
                   differences(theta, [&](const arma::vec& at) { return pass.evaluate(at, Order::gradient).gradient; }),
                   1e-8);

        // The complete data's information, in place of the scores' cross product, leaves everything else as it is.
        const LikelihoodCriterion informed(*family, Information::complete);
        const Evaluation complete = Pass(model, data.rows, 1, no_hooks, informed).evaluate(theta, Order::hessian);
        CHECK(complete.value == e.value);
        check_near(complete.gradient, e.gradient, 0);
        check_near(complete.hessian, e.hessian, 0);

        // EM's function at the anchor has the same gradient, and everywhere its own derivatives.
        const LikelihoodCriterion expected(*family, theta);
        const Pass em(model, data.rows, 1, no_hooks, expected);
        const Evaluation here = em.evaluate(theta, Order::normal);
        check_near(here.gradient, e.gradient, 1e-12);
        check_near(here.normal, complete.normal, 1e-12);
        const arma::vec away = theta + 0.05 * random_theta(model, seed + 10, false);
        const Evaluation there = em.evaluate(away, Order::hessian);
        check_near(
            there.gradient,
            differences(away, [&](const arma::vec& at) { return arma::vec{em.evaluate(at, Order::value).value}; }).t(),
            1e-8);
        check_near(there.hessian,
                   differences(away, [&](const arma::vec& at) { return em.evaluate(at, Order::gradient).gradient; }),
                   1e-8);
        CHECK(arma::eig_sym(there.normal).min() > -1e-8 * arma::abs(there.normal).max());
        // Jensen: what EM's function gains, the likelihood gains at least.
        const double gain = em.evaluate(theta, Order::value).value - there.value;
        CHECK(e.value - pass.evaluate(away, Order::value).value >= gain - 1e-9 * std::abs(e.value));
    }
}

void check_families() {
    struct Case {
        FamilySpec family;
        bool positive;
    };
    const Case cases[] = {
        {{"gaussian", "identity"}, false}, {{"gaussian", "log"}, false},    {{"gaussian", "inverse"}, true},
        {{"poisson", "log"}, false},       {{"poisson", "identity"}, true}, {{"poisson", "sqrt"}, true},
        {{"binomial", "logit"}, false},    {{"binomial", "probit"}, false}, {{"binomial", "cloglog"}, false},
        {{"Gamma", "inverse"}, true},      {{"Gamma", "log"}, false},       {{"Gamma", "identity"}, true}};
    for (const Case& c : cases) {
        const bool free = make_family(c.family)->has_dispersion();
        for (const std::size_t dispersions : {1, 3}) {
            check_case(c.family, model_spec("perturbed_cosine", "linear", free ? dispersions : 0, 0), c.positive);
            if (!free) break;
        }
    }
    for (const char* router : {"linear", "cosine", "perturbed_cosine"})
        for (const char* expert : {"constant", "tanh", "network"})
            for (const std::size_t top_k : {0, 2})
                check_case({"gaussian", "identity"}, model_spec(router, expert, 3, top_k), false);
    CHECK_THROWS(make_family({"cauchy", "identity"}), InvalidArgument);
    CHECK_THROWS(make_family({"gaussian", "cube"}), InvalidArgument);
}

// --- fits ----------------------------------------------------------------------------------------------------------

// Two lines under a smooth gate, with noise of two sizes.
struct TwoLines {
    arma::mat x, z;
    arma::vec y;
    Rows rows;
    explicit TwoLines(arma::uword n, unsigned seed) : x(n, 1), z(n, 1), y(n) {
        std::mt19937 generator(seed);
        std::normal_distribution<double> draw;
        std::uniform_real_distribution<double> share;
        for (arma::uword i = 0; i < n; ++i) {
            x(i, 0) = draw(generator), z(i, 0) = draw(generator);
            const bool first = share(generator) < 1 / (1 + std::exp(-0.5 - 1.5 * z(i, 0)));
            y[i] = first ? 1 + 2 * x(i, 0) + 0.3 * draw(generator) : -1 - x(i, 0) + 0.6 * draw(generator);
        }
        rows.n = n;
        rows.x = x.memptr(), rows.dx = 1, rows.z = z.memptr(), rows.dz = 1, rows.y = y.memptr();
    }
    TwoLines(const TwoLines&) = delete;
    TwoLines& operator=(const TwoLines&) = delete;
};

ModelSpec two_experts(const std::string& router, std::size_t dispersions) {
    ModelSpec out = model_spec(router, "linear", dispersions, 0);
    out.k = 2;
    return out;
}

bool never_increases(const Fit& fit) {
    for (std::size_t i = 1; i < fit.trace.size(); ++i)
        if (fit.trace[i] > fit.trace[i - 1]) return false;
    return fit.trace.size() > 1 && fit.value <= fit.trace.back() + 1e-9 * std::abs(fit.value);
}

void check_one_expert() {
    const TwoLines data(100, 3);
    ModelSpec spec = two_experts("linear", 1);
    spec.k = 1;
    const Model model(spec, 1, 1);
    const auto family = make_family({"gaussian", "identity"});
    const Fit fit = fit_likelihood(model, *family, data.rows, random_theta(model, 1, false), EmSettings(), no_hooks);
    const arma::mat design = arma::join_rows(data.x, arma::ones(100));
    const arma::vec beta = arma::solve(design, data.y);
    const double squares = arma::accu(arma::square(data.y - design * beta));
    CHECK(fit.status == Status::converged);
    CHECK_NEAR(fit.theta[model.layout.eta(0)], beta[0], 1e-5);
    CHECK_NEAR(std::exp(fit.theta[model.layout.dispersion(0)]), std::sqrt(squares / 100), 1e-5);
    CHECK_NEAR(-fit.value, -50 * (std::log(2 * arma::datum::pi * squares / 100) + 1), 1e-6);
}

// Pure EM, its hybrid and NLopt end at the same maximum, and no iteration loses likelihood.
void check_maxima() {
    const auto family = make_family({"gaussian", "identity"});
    for (const char* router : {"linear", "cosine", "perturbed_cosine"})
        for (const std::size_t dispersions : {1, 2})
            for (const unsigned seed : {1, 2, 3}) {
                const TwoLines data(400, seed);
                const Model model(two_experts(router, dispersions), 1, 1);
                const arma::vec start = random_theta(model, seed, false);
                EmSettings settings;
                settings.max_passes = 5000;
                const Fit hybrid = fit_likelihood(model, *family, data.rows, start, settings, no_hooks);
                CHECK(hybrid.status == Status::converged);
                CHECK(never_increases(hybrid));
                settings.hybrid = false;
                const Fit em = fit_likelihood(model, *family, data.rows, start, settings, no_hooks);
                CHECK(em.status == Status::converged);
                CHECK(never_increases(em));
                CHECK_NEAR(em.value, hybrid.value, 1e-5);
                settings.optimizer = "slsqp";
                const Fit other = fit_likelihood(model, *family, data.rows, hybrid.theta, settings, no_hooks);
                CHECK_NEAR(other.value, hybrid.value, 1e-6);
            }
}

// An expert that takes two equal responses for itself would have no noise: the dispersion stops at its bound.
void check_degenerate() {
    TwoLines data(60, 5);
    data.y[0] = data.y[1] = 30;
    data.x(1, 0) = data.x(0, 0) + 0.5;
    const Model model(two_experts("linear", 2), 1, 1);
    const auto family = make_family({"gaussian", "identity"});
    arma::vec start = random_theta(model, 1, false);
    start[model.layout.eta(1)] = 0, start[model.layout.eta(1) + 1] = 30, start[model.layout.dispersion(1)] = -3;
    const Fit fit = fit_likelihood(model, *family, data.rows, start, EmSettings(), no_hooks);
    CHECK(std::isfinite(fit.value));
    CHECK(fit.active_dispersions == std::vector<std::size_t>{1});
    CHECK_NEAR(fit.theta[model.layout.dispersion(1)], -10, 1e-6);
}

}  // namespace

int main() {
    check_families();
    check_one_expert();
    check_maxima();
    check_degenerate();
    return check::report();
}
