#include "regression/model_objective.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/errors.h"
#include "gate/enclosing_ball.h"
#include "regression/parameters.h"

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

// Directions that change no prediction: one vector added to every u_k, one number added to every b_k.
arma::mat gauge_directions(const Layout& layout) {
    const std::size_t k = layout.k(), dz = layout.dz();
    arma::mat gauge(layout.size(), dz + 1, arma::fill::zeros);
    for (std::size_t m = 0; m < k; ++m)
        for (std::size_t j = 0; j <= dz; ++j) gauge(layout.gate(m) + j, j) = 1;
    return gauge;
}

}  // namespace

arma::vec ModelObjective::move(const arma::vec& theta, const arma::vec& step) {
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

Evaluator evaluator_of(const Pass& pass) {
    return [&pass](const arma::vec& theta, Order order) { return pass.evaluate(theta, order); };
}

double identifiable_parameters(const Model& model) {
    const Layout& layout = model.layout;
    const double k = static_cast<double>(layout.k()), d = static_cast<double>(layout.dz());
    const double contrasts = (k - 1) * d;
    const bool spheres = model.router->constraint().kind == ConstraintKind::sphere;
    const double gates = spheres && k > 1 ? std::min(k * (d - 1), contrasts) : contrasts;
    return gates + (k - 1) + k * static_cast<double>(layout.q()) + static_cast<double>(layout.dispersions());
}

void certify_fit(const Model& model, const Evaluator& judge, const Settings& solver, bool may_converge, Fit& fit) {
    fit.theta = centered(model, fit.theta);
    Evaluation at;
    try {
        // Centring changes nothing that the solver has seen.
        at = fit.at.hessian.is_empty() ? judge(fit.theta, Order::hessian) : std::move(fit.at);
    } catch (const Interrupted&) {
        fit.status = Status::interrupted;
        fit.message = "interrupted";
        if (fit.trace.empty()) fit.value = std::numeric_limits<double>::infinity();
        return;
    }
    fit.value = at.value;
    fit.certified = true;
    if (std::isfinite(at.value) && at.hessian.is_finite() && at.normal.is_finite()) {
        fit.certificate = certify(at, fit, model.constraints, gauge_directions(model.layout), solver);
        for (const arma::uword j : fit.certificate.active) {
            const std::size_t first = model.constraints[j].first, experts = model.layout.eta(0);
            const std::size_t dispersions = model.layout.eta(model.layout.k());
            if (first >= dispersions) fit.active_dispersions.push_back(first - dispersions);
            else if (first < experts) fit.active_gates.push_back(first / model.layout.gate(1));
            else fit.active_experts.push_back((first - experts) / model.layout.q());
        }
    }
    const bool certified = std::isfinite(at.value) &&
                           fit.certificate.predicted_decrease * solver.unit(at.value) <= solver.enough(at.value);
    if (fit.status == Status::converged && !certified) {
        fit.status = Status::stalled;
        fit.message = "the steps promise more than the tolerance but bring no decrease";
    } else if (certified && may_converge && fit.status != Status::interrupted) {
        fit.status = Status::converged;
        fit.message.clear();
    }
}

}  // namespace cosmoe
