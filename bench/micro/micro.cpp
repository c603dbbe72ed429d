// Times of the pieces that fits are made of, beside the machine's peaks that they are measured against. Every
// benchmark of a pass counts the multiply-adds and the exponentials that its formula needs at least; bench/task_micro.R
// turns them into the time that they would take at the peaks.
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "regression/likelihood.h"
#include "regression/pass.h"

namespace {

using namespace cosmoe;

// ---- peaks -----------------------------------------------------------------------------------------------------------

constexpr int chains = 12;  // independent sums, enough to hide a multiply-add's latency on two units
constexpr int rounds = 4096;

#define COSMOE_PEAK(name, lanes, attribute)                                                         \
    attribute double name(double factor) {                                                          \
        typedef double Vec __attribute__((vector_size(8 * lanes), aligned(8), may_alias));          \
        Vec sums[chains], by, add;                                                                  \
        for (int l = 0; l < lanes; ++l) by[l] = factor, add[l] = 1e-3;                              \
        _Pragma("GCC unroll 16") for (int c = 0; c < chains; ++c) sums[c] = add * (1.0 + c);        \
        for (int r = 0; r < rounds; ++r) {                                                          \
            _Pragma("GCC unroll 16") for (int c = 0; c < chains; ++c) sums[c] = sums[c] * by + add; \
        }                                                                                           \
        double total = 0;                                                                           \
        _Pragma("GCC unroll 16") for (int c = 0; c < chains; ++c) total += sums[c][0];              \
        return total;                                                                               \
    }

COSMOE_PEAK(peak_portable, 2, )
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
COSMOE_PEAK(peak_avx2, 4, __attribute__((target("avx2,fma"))))
COSMOE_PEAK(peak_avx512, 8, __attribute__((target("avx512f,avx512dq,avx512vl,prefer-vector-width=512"))))
#else
constexpr auto peak_avx2 = peak_portable;
constexpr auto peak_avx512 = peak_portable;
#endif

void count(benchmark::State& state, double multiply_adds, double exponentials, double rows) {
    state.counters["multiply_adds"] = multiply_adds;
    state.counters["exponentials"] = exponentials;
    state.counters["rows"] = rows;
}

void multiply_adds(benchmark::State& state) {
    const std::string isa = kernel::instruction_set();
    const int lanes = isa == "avx512" ? 8 : isa == "avx2" ? 4 : 2;
    const auto peak = isa == "avx512" ? peak_avx512 : isa == "avx2" ? peak_avx2 : peak_portable;
    double factor = 0.999;
    for (auto _ : state) {
        benchmark::DoNotOptimize(factor);
        benchmark::DoNotOptimize(peak(factor));
    }
    count(state, static_cast<double>(chains) * rounds * lanes, 0, 0);
    state.SetLabel(isa);
}

void exponentials(benchmark::State& state) {
    constexpr std::size_t n = 1024;
    std::vector<double> x(n), out(n);
    for (std::size_t i = 0; i < n; ++i) x[i] = -5.0 + 10.0 * static_cast<double>(i) / n;
    for (auto _ : state) {
        kernel::exponential(x.data(), n, out.data());
        benchmark::DoNotOptimize(out.data());
        benchmark::ClobberMemory();
    }
    count(state, 0, n, 0);
}

// ---- passes ----------------------------------------------------------------------------------------------------------

struct Problem {
    Problem(std::size_t rows, std::size_t d, std::size_t k, const std::string& router, const std::string& expert,
            bool likelihood, std::size_t top_k = 0)
        : n(rows),
          x(rows * d),
          y(rows),
          model(spec(router, expert, k, likelihood, top_k), d, d) {
        std::mt19937 random(1);
        std::normal_distribution<double> normal;
        for (double& value : x) value = normal(random);
        for (double& value : y) value = normal(random);
        theta.set_size(model.layout.size());
        for (double& value : theta) value = 0.3 * normal(random);
        data.n = n, data.dx = data.dz = d, data.x = data.z = x.data(), data.y = y.data();
    }
    static ModelSpec spec(const std::string& router, const std::string& expert, std::size_t k, bool likelihood,
                          std::size_t top_k) {
        ModelSpec out;
        out.router.name = router, out.router.top_k = top_k;
        out.expert.name = expert;
        out.k = k;
        out.dispersions = likelihood ? k : 0;
        return out;
    }

    // What each row needs: the predictors, their products with the features for the gradient, and for each matrix a
    // product of every pair of predictors with every pair of their features; two predictors with the same features
    // (all of them where the gate sees the covariates themselves) share the products of feature a with b and b with a.
    double multiply_adds(Order order, bool em = false) const {
        const double k = static_cast<double>(model.layout.k()), d = static_cast<double>(model.layout.dx());
        const double predictors = 2 * k * (d + 1), symmetric = (d + 1) * (d + 2) / 2;
        // A sparse gate has to know all scores, whatever it chooses.
        if (sparse() && order < Order::normal) return (k + chosen() * (order == Order::value ? 1 : 3)) * (d + 1);
        if (order == Order::value) return predictors;
        if (order == Order::gradient) return 2 * predictors;
        const double within = k * (k + 1) / 2, between = k * k;
        // EM's matrix has no products of an expert with a gate or with another expert.
        if (em) return 2 * predictors + (within + k) * symmetric;
        const bool same = !model.router->scales_features();
        const double matrix = 2 * within * symmetric + between * (same ? symmetric : (d + 1) * (d + 1));
        return 2 * predictors + (order == Order::hessian ? 2 : 1) * matrix;
    }

    bool sparse() const { return model.spec.router.top_k > 0; }
    double chosen() const { return static_cast<double>(sparse() ? model.spec.router.top_k : model.layout.k()); }

    std::size_t n;
    std::vector<double> x, y;
    Model model;
    arma::vec theta;
    Rows data;
};

const Hooks no_hooks;

void pass(benchmark::State& state, Order order, std::size_t d, std::size_t k, std::string router, std::string expert,
          std::size_t threads = 1, std::size_t top_k = 0) {
    const Problem problem(100000, d, k, router, expert, false, top_k);
    const Pass evaluation(problem.model, problem.data, threads, no_hooks);
    for (auto _ : state) benchmark::DoNotOptimize(evaluation.evaluate(problem.theta, order).value);
    const double rows = static_cast<double>(problem.n);
    const double curves = expert == "gelu" ? 2 : 1;  // GELU needs the density for its distribution function
    count(state, rows * problem.multiply_adds(order), rows * curves * problem.chosen(), rows);
}

// A step of EM for Gaussian experts: responsibilities, scores, and the matrix of the complete data's information.
void em_step(benchmark::State& state, std::size_t d, std::size_t k) {
    const Problem problem(100000, d, k, "linear", "linear", true);
    FamilySpec gaussian;
    const auto family = make_family(gaussian);
    const LikelihoodCriterion criterion(*family, Information::complete);
    const Pass evaluation(problem.model, problem.data, 1, no_hooks, criterion);
    for (auto _ : state) benchmark::DoNotOptimize(evaluation.evaluate(problem.theta, Order::normal).value);
    const double rows = static_cast<double>(problem.n);
    count(state, rows * problem.multiply_adds(Order::normal, true), 2 * rows * static_cast<double>(k), rows);
}

void prediction(benchmark::State& state, std::size_t d, std::size_t k, std::string expert) {
    const Problem problem(100000, d, k, "linear", expert, false);
    const Pass evaluation(problem.model, problem.data, 1, no_hooks);
    std::vector<double> f(problem.n);
    Prediction out;
    out.f = f.data();
    for (auto _ : state) {
        evaluation.predict(problem.theta, out);
        benchmark::DoNotOptimize(f.data());
    }
    const double rows = static_cast<double>(problem.n);
    count(state, rows * problem.multiply_adds(Order::value), rows * static_cast<double>(k) * (expert == "gelu" ? 2 : 1),
          rows);
}

}  // namespace

BENCHMARK(multiply_adds);
BENCHMARK(exponentials);
BENCHMARK_CAPTURE(pass, gradient_d10_k4_linear, Order::gradient, 10, 4, "linear", "linear");
BENCHMARK_CAPTURE(pass, gradient_d10_k4_gelu, Order::gradient, 10, 4, "linear", "gelu");
BENCHMARK_CAPTURE(pass, gradient_d10_k4_cosine, Order::gradient, 10, 4, "perturbed_cosine", "linear");
BENCHMARK_CAPTURE(pass, gradient_d32_k8_cosine, Order::gradient, 32, 8, "perturbed_cosine", "linear");
BENCHMARK_CAPTURE(pass, gradient_d32_k8_linear, Order::gradient, 32, 8, "linear", "linear");
BENCHMARK_CAPTURE(pass, gradient_d32_k8_gelu, Order::gradient, 32, 8, "linear", "gelu");
BENCHMARK_CAPTURE(pass, normal_d10_k4_linear, Order::normal, 10, 4, "linear", "linear");
BENCHMARK_CAPTURE(pass, normal_d10_k4_cosine, Order::normal, 10, 4, "perturbed_cosine", "linear");
BENCHMARK_CAPTURE(pass, normal_d32_k8_cosine, Order::normal, 32, 8, "perturbed_cosine", "linear");
BENCHMARK_CAPTURE(pass, normal_d10_k4_gelu, Order::normal, 10, 4, "linear", "gelu");
BENCHMARK_CAPTURE(pass, normal_d32_k8_linear, Order::normal, 32, 8, "linear", "linear");
BENCHMARK_CAPTURE(pass, normal_d32_k8_gelu, Order::normal, 32, 8, "linear", "gelu");
BENCHMARK_CAPTURE(pass, hessian_d10_k4_linear, Order::hessian, 10, 4, "linear", "linear");
BENCHMARK_CAPTURE(pass, hessian_d32_k8_linear, Order::hessian, 32, 8, "linear", "linear");
BENCHMARK_CAPTURE(em_step, d5_k3, 5, 3);
BENCHMARK_CAPTURE(em_step, d10_k4, 10, 4);
BENCHMARK_CAPTURE(prediction, d10_k4_linear, 10, 4, "linear");
BENCHMARK_CAPTURE(prediction, d10_k4_gelu, 10, 4, "gelu");
BENCHMARK_CAPTURE(pass, threads1_d10_k4, Order::normal, 10, 4, "linear", "gelu", 1)->UseRealTime();
BENCHMARK_CAPTURE(pass, threads2_d10_k4, Order::normal, 10, 4, "linear", "gelu", 2)->UseRealTime();
BENCHMARK_CAPTURE(pass, dense_d32_k32, Order::gradient, 32, 32, "linear", "linear", 1, 0);
BENCHMARK_CAPTURE(pass, top2_d32_k32, Order::gradient, 32, 32, "linear", "linear", 1, 2);
BENCHMARK_CAPTURE(pass, dense_normal_d32_k32, Order::normal, 32, 32, "linear", "linear", 1, 0);
BENCHMARK_CAPTURE(pass, top2_normal_d32_k32, Order::normal, 32, 32, "linear", "linear", 1, 2);

BENCHMARK_MAIN();
