#include "solver/local_model.h"

#include <algorithm>
#include <utility>

#include "solver/geometry.h"

namespace cosmoe {

arma::vec common_in_blocks(arma::vec scale, const Constraints& constraints, double least) {
    for (const BlockConstraint& c : constraints) scale(block(c)).fill(arma::max(scale(block(c))));
    return arma::clamp(scale, least * std::max(arma::max(scale), 1e-280), arma::datum::inf);
}

arma::vec largest_curvature(const Evaluation& at) {
    if (at.hessian.is_empty()) return at.normal.diag();
    return arma::max(at.normal.diag(), arma::abs(at.hessian.diag()));
}

arma::vec natural_scale(const Evaluation& at, const Constraints& constraints) {
    return common_in_blocks(largest_curvature(at), constraints, 1e-20);
}

LocalModel::LocalModel(const Evaluation& e, const arma::vec& theta, const Constraints& constraints, arma::mat bend)
    : e_(e),
      theta_(theta),
      bend_(std::move(bend)) {
    for (const BlockConstraint& c : constraints) (c.kind == ConstraintKind::sphere ? spheres_ : balls_).push_back(c);
    if (!flat()) basis_ = tangent_basis(theta, spheres_);
}

arma::mat LocalModel::hessian() const {
    arma::mat h = e_.hessian;
    if (!bend_.is_empty()) h += bend_;
    if (flat()) return h;
    for (const BlockConstraint& c : spheres_) {
        const double lambda = multiplier(c, theta_, e_.gradient);
        for (arma::uword i = 0; i < c.length; ++i) h(c.first + i, c.first + i) += lambda;
    }
    return reduce(h);
}

arma::vec LocalModel::scale(const arma::vec& full) const {
    return flat() ? full : arma::vec(arma::square(basis_).t() * full);
}

std::vector<BallLimit> LocalModel::balls() const {
    std::vector<BallLimit> out;
    for (const BlockConstraint& c : balls_) {
        const arma::uword first = flat() ? c.first : arma::index_max(arma::abs(basis_.row(c.first)));
        out.push_back({first, arma::vec(theta_(block(c))), c.radius});
    }
    return out;
}

}  // namespace cosmoe
