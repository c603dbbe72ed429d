// Fits from sums over parts of the rows: the same as from all rows; what such fits refuse; interrupts of the host.
#include <cmath>
#include <random>

#include "check.h"
#include "common/errors.h"
#include "regression/em.h"

namespace {

using namespace cosmoe;

const Hooks no_hooks;

struct Part {
    arma::mat x;
    arma::vec y, w;
    Rows rows;

    Part(const arma::mat& all_x, const arma::vec& all_y, const arma::vec& all_w, arma::uword first, arma::uword last)
        : x(all_x.rows(first, last)),
          y(all_y.subvec(first, last)),
          w(all_w.subvec(first, last)) {
        rows.n = x.n_rows;
        rows.x = rows.z = x.memptr(), rows.dx = rows.dz = x.n_cols;
        rows.y = y.memptr(), rows.w = w.memptr();
    }
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;
};

constexpr arma::uword n = 3000;

struct Problem {
    arma::mat x;
    arma::vec y, w;

    Problem() : x(n, 2), y(n), w(n) {
        std::mt19937 generator(1);
        std::normal_distribution<double> draw;
        std::uniform_real_distribution<double> share;
        for (double& v : x) v = draw(generator);
        for (arma::uword i = 0; i < n; ++i) {
            const bool first = share(generator) < 1 / (1 + std::exp(-3 * x(i, 0)));
            y[i] = (first ? 1 + x(i, 1) : -2 * x(i, 1)) + 0.3 * draw(generator);
            w[i] = i % 7 == 0 ? 0 : 0.5 + share(generator);
        }
    }
};

ModelSpec spec(std::size_t dispersions) {
    ModelSpec out;
    out.dispersions = dispersions;
    out.expert.name = "linear";
    out.router.name = "linear";
    return out;
}

arma::vec start(const Model& model) {
    arma::vec theta(model.layout.size(), arma::fill::zeros);
    for (std::size_t m = 0; m < 2; ++m) {
        const double sign = m == 0 ? 1 : -1;
        theta[model.layout.gate(m)] = sign;
        theta[model.layout.eta(m) + 1] = sign;
    }
    return theta;
}

Evaluation add(Evaluation a, const Evaluation& b, Order order) {
    a.value += b.value;
    if (order >= Order::gradient) a.gradient += b.gradient;
    if (order >= Order::normal) a.normal += b.normal;
    if (order >= Order::hessian) a.hessian += b.hessian;
    return a;
}

Evaluator sum_of(const Evaluator& a, const Evaluator& b) {
    return [a, b](const arma::vec& theta, Order order) { return add(a(theta, order), b(theta, order), order); };
}

void check_totals() {
    const Problem data;
    const Part all(data.x, data.y, data.w, 0, n - 1);
    const RowTotals totals = row_totals(all.rows);
    const double weight = arma::accu(data.w), mean = arma::dot(data.w, data.y) / weight;
    CHECK(totals.used == arma::accu(data.w > 0));
    CHECK_NEAR(totals.weight, weight, 1e-9);
    CHECK_NEAR(totals.squares, arma::dot(data.w, arma::square(data.y)), 1e-8);
    CHECK_NEAR(totals.deviation, arma::dot(data.w, arma::square(data.y - mean)), 1e-8);
}

void check_least_squares() {
    const Problem data;
    const Part all(data.x, data.y, data.w, 0, n - 1), one(data.x, data.y, data.w, 0, 999),
        two(data.x, data.y, data.w, 1000, n - 1);
    const Model model(spec(0), 2, 2);
    const Pass first(model, one.rows, 1, no_hooks), second(model, two.rows, 1, no_hooks);
    const Evaluator both = sum_of(evaluator_of(first), evaluator_of(second));
    const RowSums sums{both, both, row_totals(all.rows)};
    for (const char* optimizer : {"newton", "slsqp"}) {
        FitSettings settings;
        settings.optimizer = optimizer;
        const Fit whole = fit_least_squares(model, all.rows, start(model), settings, no_hooks);
        const Fit parts = fit_least_squares(model, sums, start(model), settings, no_hooks);
        CHECK(whole.status == parts.status);
        CHECK_NEAR(whole.value, parts.value, 1e-9 * whole.value);
    }
    FitSettings settings;
    settings.optimizer = "sgd";
    CHECK_THROWS(fit_least_squares(model, sums, start(model), settings, no_hooks), InvalidArgument);
}

void check_likelihood() {
    const Problem data;
    const Part all(data.x, data.y, data.w, 0, n - 1), one(data.x, data.y, data.w, 0, 999),
        two(data.x, data.y, data.w, 1000, n - 1);
    const Model model(spec(2), 2, 2);
    const auto family = make_family({"gaussian", "identity"});
    const LikelihoodCriterion complete(*family, Information::complete), scores(*family);
    const Pass a(model, one.rows, 1, no_hooks, complete), b(model, two.rows, 1, no_hooks, complete);
    const Pass c(model, one.rows, 1, no_hooks, scores), d(model, two.rows, 1, no_hooks, scores);
    const RowSums sums{sum_of(evaluator_of(a), evaluator_of(b)), sum_of(evaluator_of(c), evaluator_of(d)),
                       row_totals(all.rows)};
    EmSettings settings;
    const Fit whole = fit_likelihood(model, *family, all.rows, start(model), settings, no_hooks);
    const Fit parts = fit_likelihood(model, sums, start(model), settings, no_hooks);
    CHECK(whole.status == Status::converged && parts.status == Status::converged);
    CHECK_NEAR(whole.value, parts.value, 1e-9 * std::abs(whole.value));
    settings.hybrid = false;
    CHECK_THROWS(fit_likelihood(model, sums, start(model), settings, no_hooks), InvalidArgument);
}

// The host's interrupt ends a fit with the best point so far, and its certificate unless that is interrupted as well.
void check_interrupts() {
    const Problem data;
    const Part all(data.x, data.y, data.w, 0, n - 1);
    const Model model(spec(0), 2, 2);
    const Pass pass(model, all.rows, 1, no_hooks);
    const Evaluator rows = evaluator_of(pass);
    for (const int allowed : {0, 3})
        for (const bool judged : {true, false}) {
            int left = allowed;
            const Evaluator search = [&](const arma::vec& theta, Order order) {
                if (left-- <= 0) throw Interrupted();
                return rows(theta, order);
            };
            const Evaluator judge = [&](const arma::vec& theta, Order order) {
                if (!judged) throw Interrupted();
                return rows(theta, order);
            };
            const RowSums sums{search, judge, row_totals(all.rows)};
            const Fit fit = fit_least_squares(model, sums, start(model), FitSettings(), no_hooks);
            CHECK(fit.status == Status::interrupted);
            CHECK(fit.certified == judged);
            CHECK(std::isfinite(fit.value) == (judged || allowed > 0));
            if (allowed > 0) CHECK(fit.value < rows(start(model), Order::value).value);
        }
}

}  // namespace

int main() {
    check_totals();
    check_least_squares();
    check_likelihood();
    check_interrupts();
    return check::report();
}
