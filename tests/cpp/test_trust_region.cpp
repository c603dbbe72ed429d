// The trust-region method on small functions whose minima are known: what it evaluates, where it ends.
#include <cmath>
#include <vector>

#include "check.h"
#include "solver/trust_region.h"

namespace {

using namespace cosmoe;

// Rosenbrock's function, half the sum of squares of 10 (y - x^2) and 1 - x, plus a constant that takes its digits.
struct Valley final : Objective {
    double offset = 0;
    int values = 0, derivatives = 0;

    Evaluation evaluate(const arma::vec& theta, Order order) override {
        ++(order == Order::value ? values : derivatives);
        const double x = theta[0], y = theta[1], first = 10 * (y - x * x), second = 1 - x;
        Evaluation out;
        out.value = offset + 0.5 * (first * first + second * second);
        if (order == Order::value) return out;
        const arma::mat jacobian = {{-20 * x, 10}, {-1, 0}};
        out.gradient = jacobian.t() * arma::vec{first, second};
        out.normal = jacobian.t() * jacobian;
        if (order == Order::hessian) out.hessian = out.normal + arma::mat{{-20 * first, 0}, {0, 0}};
        return out;
    }
};

Settings settings_for(bool cheap_values) {
    Settings out;
    out.tolerance = 1e-12;
    out.likelihood = true;  // F has no noise variance of its own
    out.cheap_values = cheap_values;
    return out;
}

void check_counts(const Valley& valley, const SolverResult& found) {
    CHECK(found.passes == valley.derivatives);
    CHECK(found.probes == valley.values);
    for (std::size_t i = 1; i < found.trace.size(); ++i) CHECK(found.trace[i] <= found.trace[i - 1]);
}

}  // namespace

int main() {
    const std::vector<arma::vec> starts = {{-1.2, 1}, {3, -4}, {-2, 5}, {0.5, 0.3}, {10, 10}, {-5, -5}};
    int probes = 0, passes_with = 0, passes_without = 0;
    for (const arma::vec& start : starts) {
        for (const bool cheap : {true, false}) {
            Valley valley;
            const SolverResult found = minimise_trust_region(valley, {}, start, settings_for(cheap), Hooks());
            CHECK(found.status == Status::converged);
            CHECK_NEAR(found.theta[0], 1, 1e-5);
            CHECK_NEAR(found.theta[1], 1, 1e-5);
            check_counts(valley, found);
            CHECK(cheap || found.probes == 0);
            probes += found.probes;
            (cheap ? passes_with : passes_without) += found.passes;
        }

        // In the ball of radius 1 the minimum is on its boundary: on a fine grid of angles nothing is lower.
        Valley valley;
        const Constraints ball = {{ConstraintKind::ball, 0, 2, 1}};
        const SolverResult found = minimise_trust_region(valley, ball, start, settings_for(true), Hooks());
        CHECK(found.status == Status::converged);
        CHECK_NEAR(arma::norm(found.theta), 1, 1e-9);
        check_counts(valley, found);
        double lowest = found.value;
        for (int i = 0; i < 20000; ++i) {
            const double angle = 2 * arma::datum::pi * i / 20000;
            lowest = std::min(lowest, Valley().evaluate({std::cos(angle), std::sin(angle)}, Order::value).value);
        }
        CHECK_NEAR(found.value, lowest, 1e-6);

        // Where F has lost its digits only rounding decides: the method ends all the same, with few evaluations.
        Valley blurred;
        blurred.offset = 1e13;
        const SolverResult rough = minimise_trust_region(blurred, {}, start, settings_for(true), Hooks());
        CHECK(rough.value <= 1e13 + Valley().evaluate(start, Order::value).value);
        CHECK(blurred.values + blurred.derivatives < 200);
        check_counts(blurred, rough);
    }
    CHECK(probes > 0);
    CHECK(passes_with < passes_without);
    return check::report();
}
