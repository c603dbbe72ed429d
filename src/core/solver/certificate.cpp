#include "solver/certificate.h"

#include <cmath>

#include "solver/geometry.h"
#include "solver/local_model.h"

namespace cosmoe {
namespace {

constexpr double no_curvature = 1e-8;

// The gauge directions that stay on all active surfaces.
arma::mat feasible_gauge(const arma::mat& gauge, const arma::mat& tangent, const Constraints& surfaces) {
    if (surfaces.empty() || gauge.n_cols == 0) return gauge;
    const arma::mat leaves = gauge - tangent * (tangent.t() * gauge);
    arma::mat left, right;
    arma::vec values;
    arma::svd(left, values, right, leaves);
    arma::uword rank = 0;
    for (const double v : values) rank += v > 1e-10;
    return rank == right.n_cols ? arma::mat(gauge.n_rows, 0) : arma::mat(gauge * right.cols(rank, right.n_cols - 1));
}

}  // namespace

Certificate certify(const Evaluation& at, const SolverResult& result, const Constraints& constraints,
                    const arma::mat& gauge, const arma::uvec& silent, const Settings& settings) {
    Certificate out;
    const arma::vec& theta = result.theta;
    const double residual_norm = settings.full_step(at.value);
    const arma::vec scale = natural_scale(at, constraints);

    Constraints surfaces;
    arma::mat hessian = at.hessian;
    arma::vec gradient = at.gradient;
    bool pressed = false;  // some constraint is active with a positive multiplier
    for (arma::uword j = 0; j < constraints.size(); ++j) {
        const BlockConstraint& c = constraints[j];
        const bool sphere = c.kind == ConstraintKind::sphere;
        const double lambda = multiplier(c, theta, at.gradient);
        if (!on_boundary(c, theta) || (!sphere && lambda < 0)) continue;
        surfaces.push_back(c);
        gradient(block(c)) += lambda * theta(block(c));
        for (arma::uword i = 0; i < c.length; ++i) hessian(c.first + i, c.first + i) += lambda;
        if (sphere) continue;
        out.active.push_back(j);
        pressed = pressed || lambda > no_curvature * scale[c.first];
    }
    if (residual_norm > 0) out.projected_gradient = arma::max(arma::abs(gradient) / arma::sqrt(scale)) / residual_norm;

    // Curvature in scaled tangent coordinates, without the gauge. Under pressure a translation of the gates is no
    // gauge any more: the constraints' own curvature holds it, and only directions that leave every constrained block
    // alone remain.
    const arma::mat tangent = surfaces.empty() ? arma::eye(theta.n_elem, theta.n_elem) : tangent_basis(theta, surfaces);
    arma::mat free = feasible_gauge(gauge, tangent, surfaces);
    if (pressed) {
        arma::mat kept(free.n_rows, 0);
        for (arma::uword j = 0; j < gauge.n_cols; ++j) {
            double moved = 0;
            for (const BlockConstraint& c : surfaces) moved += arma::norm(gauge(block(c), arma::span(j, j)));
            if (moved == 0) kept = arma::join_rows(kept, gauge.col(j));
        }
        free = kept;
    }
    out.gauge = free.n_cols;
    const arma::mat scaled_tangent =
        arma::diagmat(arma::sqrt(scale)) * tangent;  // orthogonal up to common block scales
    const arma::vec lengths = arma::sqrt(arma::sum(arma::square(scaled_tangent), 0)).t();
    arma::mat curvature = tangent.t() * hessian * tangent;
    curvature = arma::diagmat(1 / lengths) * curvature * arma::diagmat(1 / lengths);
    if (free.n_cols > 0) {
        arma::mat directions = arma::diagmat(lengths) * (tangent.t() * free), q, r;
        arma::qr(q, r, directions);
        if (free.n_cols < q.n_cols) {
            const arma::mat rest = q.cols(free.n_cols, q.n_cols - 1);
            curvature = rest.t() * curvature * rest;
        } else {
            curvature.reset();
        }
    }
    if (curvature.n_rows > 0) {
        const arma::vec values = arma::eig_sym(arma::symmatu(0.5 * (curvature + curvature.t())));
        out.smallest_curvature = values.min();
        for (const double v : values) out.null_directions += std::abs(v) < no_curvature;
    }

    const LocalModel model(at, theta, constraints);
    arma::mat normal = at.normal;
    normal.rows(silent).zeros();
    normal.cols(silent).zeros();
    normal = model.reduce(normal);
    const arma::vec unit = arma::sqrt(normal.diag());
    const arma::vec inverse = 1 / arma::clamp(unit, 1e-14 * arma::max(unit) + 1e-300, arma::datum::inf);
    arma::vec values;
    if (arma::eig_sym(values, normal % (inverse * inverse.t()))) out.rank = arma::accu(values > 1e-14);
    const double radius = std::max(std::min(residual_norm, result.reach), 1e-150);
    const Step step = solve_step(model.hessian(), model.gradient(), model.scale(scale), radius, model.balls());
    const double variance = 2 * settings.unit(at.value);
    if (step.ok) out.predicted_decrease = variance > 0 ? 2 * step.predicted / variance : 0;
    return out;
}

}  // namespace cosmoe
