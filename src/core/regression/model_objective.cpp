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

namespace {

// exp(b_k) relative to their sum.
arma::vec masses(const Layout& layout, const arma::vec& theta) {
    arma::vec out(layout.k());
    for (std::size_t m = 0; m < layout.k(); ++m) out[m] = theta[layout.bias(m)];
    out = arma::exp(out - out.max());
    return out / arma::accu(out);
}

arma::span gate_of(const Layout& layout, std::size_t m) {
    return arma::span(layout.gate(m), layout.gate(m) + layout.dz() - 1);
}

arma::span expert_of(const Layout& layout, std::size_t m) {
    return arma::span(layout.eta(m), layout.eta(m) + layout.q() - 1);
}

// eta / |eta|^2: what of a step changes eta's length, relative to it.
arma::vec radial(const arma::vec& eta) {
    const double square = arma::dot(eta, eta);
    return square > 0 ? arma::vec(eta / square) : arma::vec(eta.n_elem, arma::fill::zeros);
}

}  // namespace

arma::vec ModelObjective::move(const arma::vec& theta, const arma::vec& step) {
    const Layout& layout = model_.layout;
    const arma::vec mass = masses(layout, theta);
    arma::vec out = theta + step;
    // What all atoms have in common is a gauge; gates that have no gauge, on spheres, keep its straight line.
    double drift = 0;
    arma::vec shift(layout.dz(), arma::fill::zeros);
    for (std::size_t m = 0; m < layout.k(); ++m) {
        drift += mass[m] * step[layout.bias(m)];
        if (layout.dz() > 0) shift += mass[m] * step(gate_of(layout, m));
    }
    // Where logits change by far more than masses do, as when a gate becomes a threshold, biases go with the gates.
    for (std::size_t m = 0; layout.dz() > 0 && m < layout.k(); ++m)
        if (arma::norm(step(gate_of(layout, m)) - shift) > 2) return centered(model_, out);
    for (std::size_t m = 0; m < layout.k(); ++m) {
        const double growth = 1 + step[layout.bias(m)] - drift;
        // Beyond halving or doubling the curve goes on as its tangent, not for ever.
        const double straight = std::min(2.0, std::max(0.5, growth));
        const double gain = std::min(1.5, std::max(-1.5, std::log(straight) + (growth - straight) / straight));
        out[layout.bias(m)] = theta[layout.bias(m)] + gain;  // no drift: far away biases would lose digits
        // Where the mass is straight this is 1 / growth. In any case an expert that grew at first order as its mass
        // shrank keeps their product.
        const double stretch = std::abs(growth - 1) < 1e-8 ? 2 - growth : std::expm1(-gain) / (1 - growth);
        const arma::span expert = expert_of(layout, m);
        out(expert) = theta(expert) + stretch * step(expert);
        if (layout.dz() == 0) continue;
        const double length = 1 + stretch * arma::dot(radial(theta(expert)), step(expert));
        const double weight = std::min(2.0, std::max(0.5, std::exp(gain) * length));
        const arma::span gate = gate_of(layout, m);
        out(gate) = theta(gate) + shift + (step(gate) - shift) / weight;
    }
    return centered(model_, out);
}

// With r_m the growth of a mass less 1 and l_m that of eta_m's length, both linear in the step, the second derivatives
// of the curve are -r_m^2 in b_m, -2 r_m step in eta_m and -2 (r_m + l_m) step in u_m, less what all have in common.
arma::mat ModelObjective::bend(const arma::vec& theta, const arma::vec& gradient) const {
    const Layout& layout = model_.layout;
    const arma::vec mass = masses(layout, theta);
    arma::mat half(theta.n_elem, theta.n_elem, arma::fill::zeros);
    for (std::size_t m = 0; m < layout.k(); ++m) {
        const arma::span expert = expert_of(layout, m);
        arma::vec own = -mass;  // of a step in all atoms, what is this one's
        own[m] += 1;
        arma::vec growth(theta.n_elem, arma::fill::zeros), along = growth;
        for (std::size_t j = 0; j < layout.k(); ++j) growth[layout.bias(j)] = own[j];
        arma::vec gate(theta.n_elem, arma::fill::zeros);
        for (std::size_t j = 0; layout.dz() > 0 && j < layout.k(); ++j)
            gate(gate_of(layout, j)) = own[j] * gradient(gate_of(layout, m));
        along(expert) = gradient(expert);
        half -= growth * (0.5 * gradient[layout.bias(m)] * growth + along + gate).t();
        half.rows(expert) -= radial(theta(expert)) * gate.t();
    }
    return half + half.t();
}

namespace {

// A gate's derivatives are those of its weight times the difference between its expert and all together: where all
// experts agree to nine digits and more, hardly more than rounding errors. Such gates' coordinates.
arma::uvec silent_gates(const Layout& layout, const arma::mat& normal, const Settings& settings) {
    const double whole =
        settings.likelihood ? std::sqrt(settings.weight) : settings.response_norm * std::sqrt(settings.residual_df);
    std::vector<arma::uword> out;
    for (std::size_t m = 0; m < layout.k(); ++m) {
        if (std::sqrt(normal(layout.bias(m), layout.bias(m))) > 2e-10 * whole) continue;
        for (std::size_t j = layout.gate(m); j <= layout.bias(m); ++j) out.push_back(j);
    }
    return arma::conv_to<arma::uvec>::from(out);
}

}  // namespace

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
        fit.certificate = certify(at, fit, model.constraints, gauge_directions(model.layout),
                                  silent_gates(model.layout, at.normal, solver), solver);
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
