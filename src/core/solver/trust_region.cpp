#include "solver/trust_region.h"

#include <algorithm>
#include <cmath>

#include "common/errors.h"
#include "solver/geometry.h"
#include "solver/local_model.h"

namespace cosmoe {
namespace {

// The next step may well promise so much less than this one: by then the exact Hessian should be there.
constexpr double soon = 3;

// Squared scales of the steps: the curvatures of the coordinates, falling by no more than half a pass so that one flat
// point does not lengthen all steps. Those of the exact Hessian count where it is there: an expert's kink that lies
// among the data bends the objective far more than the Gauss-Newton matrix knows.
void update_scale(const Evaluation& here, const Constraints& constraints, arma::vec& scale) {
    scale = arma::max(0.5 * scale, common_in_blocks(largest_curvature(here), constraints, 1e-10));
}

// The gradient without what presses against balls, or points off spheres: steps that leave them are put back.
arma::vec tangential(const Evaluation& here, const arma::vec& theta, const Constraints& constraints) {
    arma::vec out = here.gradient;
    for (const BlockConstraint& c : constraints) {
        const double pressure = on_boundary(c, theta) ? multiplier(c, theta, here.gradient) : 0;
        if (pressure > 0 || c.kind == ConstraintKind::sphere) out(block(c)) += pressure * theta(block(c));
    }
    return out;
}

// A step that promises less than this part of what is enough is not worth a pass: what is left is then some 1e-8 of a
// standard error, and what rounding has made of the way here a small part of that.
constexpr double precise = 1e-9;

// The step that promised too little to go on costs one more pass, whose derivatives the certificate needs, and takes a
// converged run from within a thousandth of a standard error of the solution to within its square. Whether it was
// taken: a step that promises less than rounding must not depend on it.
bool take_last(Objective& objective, const arma::vec& trial, double rounding, Evaluation& here, SolverResult& out) {
    Evaluation there;
    try {
        there = objective.evaluate(trial, Order::hessian);
    } catch (const Interrupted&) {
        return false;  // the run has converged before
    }
    ++out.passes;
    if (!(there.value <= out.value + rounding) || !there.normal.is_finite() || !there.hessian.is_finite()) return false;
    out.theta = trial;
    out.value = there.value;
    out.trace.push_back(std::min(out.trace.back(), there.value));
    here = std::move(there);
    return true;
}

}  // namespace

SolverResult minimise_trust_region(Objective& objective, const Constraints& constraints, const arma::vec& start,
                                   const Settings& settings, const Hooks& hooks) {
    SolverResult out;
    out.theta = project(start, constraints);
    arma::vec scale(out.theta.n_elem, arma::fill::zeros);
    double radius = 0, damping = 0;
    bool exact = settings.exact_first;  // which model the next step uses
    // The exact one is not used yet, nor computed.
    bool patient = !exact && std::isfinite(settings.exact_below);
    bool last = false;      // the last step has been taken
    bool cautious = false;  // a step has failed
    const auto evaluate = [&](const arma::vec& theta, bool with_exact) {
        ++out.passes;
        return objective.evaluate(theta, with_exact ? Order::hessian : Order::normal);
    };
    const auto finite = [](const Evaluation& e) {
        return std::isfinite(e.value) && e.normal.is_finite() && e.hessian.is_finite();
    };
    Evaluation here;
    const auto probe = [&](const arma::vec& theta) {
        ++out.probes;
        return objective.evaluate(theta, Order::value);
    };
    const auto finish = [&](Status status, const char* message = "") {
        out.status = status;
        out.message = message;
        if (!here.hessian.is_empty()) out.at = std::move(here);
        return out;
    };
    try {
        here = evaluate(out.theta, !patient);
        out.value = here.value;
        out.trace.push_back(here.value);
        if (!finite(here)) return finish(Status::stalled, "the objective is not finite at the start");
        radius = settings.full_step(here.value);
        for (;;) {
            if (hooks.stop_requested()) throw Interrupted();
            update_scale(here, constraints, scale);
            const arma::mat bend = here.hessian.is_empty()
                                       ? arma::mat()
                                       : objective.bend(out.theta, tangential(here, out.theta, constraints));
            const LocalModel model(here, out.theta, constraints, bend);
            const arma::vec gradient = model.gradient();
            arma::vec local_scale = model.scale(scale);
            const arma::mat normal = model.normal();
            arma::mat hessian = here.hessian.is_empty() ? arma::mat() : model.hessian();
            bool curved = true;  // steps follow the objective's curve
            const std::vector<BallLimit> limits = model.balls();
            const double rounding = settings.rounding(here.value);
            const double enough = settings.enough(here.value);

            // Converged when the exact model promises nothing, even to a move as long as the residuals: then the way to
            // a minimum is flat, however far it is. Scales are judged afresh: what was steep on the way may be flat
            // here.
            const double residual_norm = settings.full_step(here.value);
            arma::vec fresh;
            Step wide;  // that move, once it has been asked for
            const auto target = [&](const arma::vec& q) {
                const arma::vec full = model.expand(q);
                return project(curved ? objective.move(out.theta, full) : arma::vec(out.theta + full), constraints);
            };
            arma::mat straight;  // Hessian
            // What the certificate will ask: steps along straight lines.
            const auto judged = [&](double within) {
                if (straight.is_empty()) straight = LocalModel(here, out.theta, constraints).hessian();
                return solve_step(straight, gradient, model.scale(fresh), within, limits);
            };
            const auto promises_nothing = [&]() {
                if (fresh.is_empty()) fresh = natural_scale(here, constraints);
                if (!wide.ok) wide = solve_step(hessian, gradient, model.scale(fresh), residual_norm, limits);
                if (wide.ok && wide.predicted <= enough && !bend.is_empty()) {
                    const Step other = judged(residual_norm);
                    if (other.ok && other.predicted > wide.predicted) wide = other, hessian = straight, curved = false;
                }
                return wide.ok && wide.predicted <= enough;
            };
            bool tried_wide = false;
            const auto solve = [&](double within) {
                return solve_step(exact ? hessian : normal, gradient, local_scale, within, limits, damping);
            };
            // Steps from this point, without new derivatives, until one is accepted.
            for (;;) {
                Step step = solve(radius);
                if (!step.ok) return finish(Status::stalled, "the step problem has no solution");
                damping = step.damping;
                patient = patient && step.predicted > settings.exact_below && out.passes <= settings.exact_after;
                if (!patient && here.hessian.is_empty() && out.passes < settings.max_passes) {
                    here = evaluate(out.theta, true);
                    out.trace.push_back(out.value);
                    if (!finite(here)) return finish(Status::stalled, "the exact Hessian is not finite");
                    exact = true;
                    break;
                }
                const bool idle = step.predicted <= enough;
                // A longer step than that one promises at most the square of the ratio more.
                const double longer = std::max(1.0, radius / residual_norm);
                if (!here.hessian.is_empty() && step.predicted <= enough * longer * longer && promises_nothing()) {
                    // Where the exact model's step leads is judged as well: along a flat way it may promise more than
                    // enough there.
                    if (!exact) step = solve_step(hessian, gradient, local_scale, radius, limits, damping);
                    last = !last && step.predicted > precise * enough && out.passes < settings.max_passes &&
                           take_last(objective, target(step.q), rounding, here, out);
                    if (last) break;
                    return finish(Status::converged);
                }
                if (idle && tried_wide) {
                    // The far move failed, and near ones promise nothing.
                    const double reach = 0.8 * radius;  // the step problem keeps its radius to a tenth
                    const Step left = judged(reach);
                    if (!(left.ok && left.predicted > enough)) {
                        out.reach = reach;
                        return finish(Status::converged);
                    }
                    step = left, hessian = straight, curved = false;
                } else if (idle && wide.ok) {
                    tried_wide = exact = true;
                    scale = fresh;
                    local_scale = model.scale(scale);
                    radius = residual_norm;
                    step = wide;
                }
                if (step.length <= 1e-13 * std::sqrt(arma::dot(out.theta, scale % out.theta)) || radius < 1e-150) {
                    return step.predicted <= enough
                               ? finish(Status::converged)
                               : finish(Status::stalled, "no further decrease although the gradient is not zero");
                }
                if (out.passes >= settings.max_passes)
                    return finish(Status::max_passes, "the limit of passes was reached");
                arma::vec trial = target(step.q);
                Evaluation there;
                // Where one step has failed others will: derivatives are computed only where F has fallen, and at the
                // longest of the steps that come out as predicted, each twice as long as the one before.
                const bool careful = cautious && settings.cheap_values;
                if (careful) there = probe(trial);
                while (careful && step.limited &&
                       std::abs(here.value - there.value - step.predicted) < 0.1 * step.predicted) {
                    const Step longer = solve(2 * step.length);
                    if (!longer.ok || longer.length < 1.5 * step.length) break;
                    const arma::vec beyond = target(longer.q);
                    const Evaluation far = probe(beyond);
                    if (!(far.value < there.value)) break;
                    step = longer, trial = beyond, there = far;
                }
                const bool full = !careful || there.value < here.value;
                if (full) there = evaluate(trial, !patient || step.predicted <= soon * settings.exact_below);
                const bool sound = finite(there);
                const double actual = sound ? here.value - there.value : -1e300;
                const double ratio = actual / step.predicted;
                const bool tiny = std::abs(actual) <= rounding;
                const bool accepted = actual > 0 && (ratio > 1e-4 || tiny);
                if (full) out.trace.push_back(accepted ? there.value : out.value);
                if (patient) {
                    exact = false;
                } else if (!accepted) {
                    exact = true;  // the model that holds for short steps
                } else {
                    const auto miss = [&](const arma::mat& curvature) {
                        return std::abs(arma::dot(gradient, step.q) + 0.5 * arma::dot(step.q, curvature * step.q) +
                                        actual);
                    };
                    const double miss_normal = miss(normal), miss_hessian = miss(hessian);
                    if (exact ? miss_normal < 0.5 * miss_hessian : miss_hessian < 0.8 * miss_normal) exact = !exact;
                }
                if (!accepted || (ratio < 0.25 && !tiny))
                    radius = std::max(0.1, std::min(0.5, ratio > 0 ? 0.25 + ratio : 0.25)) * step.length;
                else if (ratio > 0.75) radius = std::max(radius, 2 * step.length);
                if (accepted) {
                    out.theta = trial;
                    out.value = there.value;
                    here = std::move(there);
                    break;
                }
                cautious = true;
                if (tiny && step.predicted <= 10 * rounding) return finish(Status::converged);
            }
        }
    } catch (const Interrupted&) {
        out.status = Status::interrupted;
        out.message = "interrupted";
    }
    return out;
}

}  // namespace cosmoe
