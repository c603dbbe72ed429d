#include "regression/least_squares.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gate/enclosing_ball.h"
#include "regression/parameters.h"
#include "regression/sgd.h"
#include "solver/nlopt_solver.h"
#include "solver/trust_region.h"

namespace cosmoe {
namespace {

// The same function with its gates in the smallest ball, round the origin: a gate that need not lie on its boundary
// does not.
arma::vec centered(const Model& model, arma::vec theta) {
    const Layout& layout = model.layout;
    if (model.router->constraint().kind == ConstraintKind::sphere || layout.dz() == 0) return theta;
    arma::mat u = gates(layout, theta);
    if (!u.is_finite()) return theta;
    u.each_col() -= smallest_enclosing_ball(u).center;
    set_gates(layout, u, theta);
    return theta;
}

class LeastSquares final : public Objective {
  public:
    LeastSquares(const Model& model, const Pass& pass) : model_(model), pass_(pass) {}
    Evaluation evaluate(const arma::vec& theta, Order order) override { return pass_.evaluate(theta, order); }

    // In over-specified models, and where an expert runs off with less and less weight, the objective sees little
    // more of the atoms exp(b_k) delta_omega_k, omega = (u, eta), than masses and first moments. Both bend along a
    // straight line in (b, omega); along this curve each atom's mass, relative to all, and its first moment are
    // straight.
    arma::vec move(const arma::vec& theta, const arma::vec& step) override {
        const Layout& layout = model_.layout;
        const std::size_t k = layout.k();
        arma::vec out = theta + step;
        double top = -std::numeric_limits<double>::infinity(), mass = 0, drift = 0;
        for (std::size_t m = 0; m < k; ++m) top = std::max(top, theta[layout.bias(m)]);
        for (std::size_t m = 0; m < k; ++m) {
            const double own = std::exp(theta[layout.bias(m)] - top);
            mass += own, drift += own * step[layout.bias(m)];
        }
        drift /= mass;  // of the log of all mass: a gauge
        for (std::size_t m = 0; m < k; ++m) {
            const double growth = 1 + step[layout.bias(m)] - drift;
            // Beyond halving or doubling the curve goes on as its tangent.
            const double factor = std::min(2.0, std::max(0.5, growth));
            out[layout.bias(m)] = theta[layout.bias(m)] + drift + std::log(factor) + (growth - factor) / factor;
            const auto along = [&](std::size_t first, std::size_t count) {
                for (std::size_t j = first; j < first + count; ++j) out[j] = theta[j] + step[j] / factor;
            };
            along(layout.gate(m), layout.dz());
            along(layout.eta(m), layout.q());
        }
        return centered(model_, out);
    }

  private:
    const Model& model_;
    const Pass& pass_;
};

// Directions that change no prediction: one vector added to every u_k, one number added to every b_k.
arma::mat gauge_directions(const Layout& layout) {
    const std::size_t k = layout.k(), dz = layout.dz();
    arma::mat gauge(layout.size(), dz + 1, arma::fill::zeros);
    for (std::size_t m = 0; m < k; ++m)
        for (std::size_t j = 0; j <= dz; ++j) gauge(layout.gate(m) + j, j) = 1;
    return gauge;
}

Settings solver_settings(const Model& model, const Rows& rows, const FitSettings& settings) {
    Settings out;
    out.max_passes = settings.max_passes;
    out.tolerance = settings.tolerance;
    double weight = 0, sum = 0, squares = 0, used = 0;
    for (std::size_t i = 0; i < rows.n; ++i) {
        const double w = rows.w ? rows.w[i] : 1;
        if (w <= 0) continue;
        weight += w, sum += w * rows.y[i], squares += w * rows.y[i] * rows.y[i], used += 1;
    }
    double total = 0;
    const double mean = weight > 0 ? sum / weight : 0;
    for (std::size_t i = 0; i < rows.n; ++i) {
        const double w = rows.w ? rows.w[i] : 1;
        if (w > 0) total += 0.5 * w * (rows.y[i] - mean) * (rows.y[i] - mean);
    }
    out.total = total > 0 ? total : 1;
    out.response_norm = used > 0 ? std::sqrt(squares / used) : 0;
    out.residual_df = std::max(1.0, used - identifiable_parameters(model));
    return out;
}

}  // namespace

double identifiable_parameters(const Model& model) {
    const Layout& layout = model.layout;
    const double k = static_cast<double>(layout.k()), d = static_cast<double>(layout.dz());
    const double contrasts = (k - 1) * d;
    const bool spheres = model.router->constraint().kind == ConstraintKind::sphere;
    const double gates = spheres && k > 1 ? std::min(k * (d - 1), contrasts) : contrasts;
    return gates + (k - 1) + k * static_cast<double>(layout.q());
}

Fit fit_least_squares(const Model& model, const Rows& rows, const arma::vec& start, const FitSettings& settings,
                      const Hooks& hooks) {
    const Pass pass(model, rows, settings.threads, hooks);
    LeastSquares objective(model, pass);
    const Settings solver = solver_settings(model, rows, settings);
    Fit fit;
    SolverResult& result = fit;
    if (settings.optimizer == "newton")
        result = minimise_trust_region(objective, model.constraints, start, solver, hooks);
    else if (settings.optimizer == "sgd") result = minimise_sgd(model, pass, start, settings, hooks);
    else result = minimise_nlopt(objective, model.constraints, start, settings.optimizer, solver, hooks);

    fit.theta = centered(model, fit.theta);
    // The evidence is computed without hooks: after an interrupt it is one more pass.
    const Hooks none;
    const Pass quiet(model, rows, settings.threads, none);
    const Evaluation at = quiet.evaluate(fit.theta, Order::hessian);
    fit.value = at.value;
    if (std::isfinite(at.value) && at.hessian.is_finite() && at.normal.is_finite()) {
        fit.certificate = certify(at, result, model.constraints, gauge_directions(model.layout), solver);
        for (const arma::uword j : fit.certificate.active) {
            const std::size_t first = model.constraints[j].first, experts = model.layout.eta(0);
            if (first < experts) fit.active_gates.push_back(first / model.layout.gate(1));
            else fit.active_experts.push_back((first - experts) / model.layout.q());
        }
    }
    // One standard for all optimizers: a fit has converged when the certificate says so.
    const double unit = at.value / solver.residual_df;  // half a residual variance
    const bool certified =
        std::isfinite(at.value) && fit.certificate.predicted_decrease * unit <= solver.enough(at.value);
    if (fit.status == Status::converged && !certified) {
        fit.status = Status::stalled;
        fit.message = "the steps promise more than the tolerance but bring no decrease";
    } else if (certified && settings.optimizer != "sgd" && fit.status != Status::interrupted) {
        fit.status = Status::converged;
        fit.message.clear();
    }
    return fit;
}

}  // namespace cosmoe
