#include "regression/sgd.h"

#include <algorithm>
#include <cmath>

#include "common/errors.h"
#include "regression/parameters.h"
#include "solver/geometry.h"

namespace cosmoe {
SolverResult minimise_sgd(const Model& model, const Pass& pass, const arma::vec& start, const FitSettings& settings,
                          const Hooks& hooks) {
    const Layout& layout = model.layout;
    SolverResult out;
    out.theta = project(start, model.constraints);
    // A start on the boundary has no finite beta: begin a hair inside.
    arma::mat u = gates(layout, out.theta);
    if (!model.router->to_beta(u).is_finite()) u *= 1 - 1e-6;
    arma::mat beta = model.router->to_beta(u);
    // The norms of the start, unless a bound has moved it.
    if (!settings.beta.is_empty() && arma::approx_equal(model.router->to_gate(settings.beta), u, "both", 1e-9, 1e-9))
        beta = settings.beta;
    const auto keep = [&] {
        out.last = out.theta;
        out.last_beta = beta;
    };
    try {
        for (const std::vector<std::size_t>& order : settings.order) {
            for (std::size_t first = 0; first < order.size(); first += settings.batch_size) {
                if (hooks.stop_requested()) throw Interrupted();
                const std::size_t count = std::min(settings.batch_size, order.size() - first);
                const Evaluation e = pass.evaluate(out.theta, Order::gradient, order.data() + first, count);
                const double rate = settings.learning_rate * 2 / static_cast<double>(count);
                const arma::vec before = out.theta;
                const arma::mat beta_before = beta;
                out.theta -= rate * e.gradient;
                if (layout.dz() > 0) {
                    beta -= rate * model.router->pull_back(beta, gates(layout, e.gradient));
                    set_gates(layout, model.router->to_gate(beta), out.theta);
                }
                if (!out.theta.is_finite()) {
                    out.theta = before;
                    beta = beta_before;
                    keep();
                    out.message = "a step of stochastic gradient descent overflowed: try a smaller learning rate";
                    return out;
                }
                const arma::vec inside = project(out.theta, model.constraints);
                // A bound moves beta as well; rounding, on the cosine router's sphere, must not: it would reset the norm.
                const bool bounded = arma::any(arma::abs(inside - out.theta) > 1e-12);
                out.theta = inside;
                if (bounded) {
                    if (layout.dz() > 0) beta = model.router->to_beta(gates(layout, inside) * (1 - 1e-12));
                }
            }
            ++out.passes;
        }
        out.status = Status::max_passes;
        out.message = "all epochs of stochastic gradient descent are done, which is not convergence";
    } catch (const Interrupted&) {
        out.status = Status::interrupted;
        out.message = "interrupted";
    }
    keep();
    return out;
}

}  // namespace cosmoe
