#include "solver/geometry.h"

namespace cosmoe {

arma::span block(const BlockConstraint& c) { return arma::span(c.first, c.first + c.length - 1); }

arma::vec project(arma::vec theta, const Constraints& constraints) {
    for (const BlockConstraint& c : constraints) {
        const double norm = arma::norm(theta(block(c)));
        if (c.kind == ConstraintKind::sphere && norm == 0) theta[c.first] = c.radius;
        else if (norm > c.radius || (c.kind == ConstraintKind::sphere && norm > 0)) theta(block(c)) *= c.radius / norm;
    }
    return theta;
}

bool on_boundary(const BlockConstraint& c, const arma::vec& theta) {
    return c.kind == ConstraintKind::sphere || arma::norm(theta(block(c))) >= c.radius * (1 - 1e-6);
}

double multiplier(const BlockConstraint& c, const arma::vec& theta, const arma::vec& gradient) {
    return -arma::dot(theta(block(c)), gradient(block(c))) / (c.radius * c.radius);
}

arma::mat tangent_basis(const arma::vec& theta, const Constraints& surfaces) {
    const arma::uword size = theta.n_elem;
    arma::mat basis(size, size - surfaces.size(), arma::fill::zeros);
    std::vector<bool> covered(size, false);
    arma::uword column = 0;
    for (const BlockConstraint& c : surfaces) {
        for (arma::uword i = 0; i < c.length; ++i) covered[c.first + i] = true;
        // The Householder reflection that sends the normal to an axis sends the other axes to a basis of its
        // complement.
        arma::vec v = arma::normalise(theta(block(c)));
        const arma::uword axis = arma::index_max(arma::abs(v));
        v[axis] += v[axis] >= 0 ? 1 : -1;
        const double factor = 2 / arma::dot(v, v);
        for (arma::uword j = 0; j < c.length; ++j) {
            if (j == axis) continue;
            arma::vec e(c.length, arma::fill::zeros);
            e[j] = 1;
            basis(block(c), arma::span(column, column)) = e - factor * v[j] * v;
            ++column;
        }
    }
    for (arma::uword i = 0; i < size; ++i)
        if (!covered[i]) basis(i, column++) = 1;
    return basis;
}

}  // namespace cosmoe
