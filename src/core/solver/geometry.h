// Coordinates for constrained steps: tangent coordinates on spheres, all others as they are.
#pragma once

#include "solver/objective.h"

namespace cosmoe {

// Moves theta into the constraint set: radially into balls and onto spheres (a zero vector goes to the first axis).
arma::vec project(arma::vec theta, const Constraints& constraints);

// An orthonormal basis of the tangent space at theta to the given constraint surfaces, theta.n_elem rows.
arma::mat tangent_basis(const arma::vec& theta, const Constraints& surfaces);

// The Lagrange multiplier of a ball or sphere at theta: gradient + multiplier * theta vanishes along the radius.
double multiplier(const BlockConstraint& c, const arma::vec& theta, const arma::vec& gradient);

// On the boundary to rounding.
bool on_boundary(const BlockConstraint& c, const arma::vec& theta);

arma::span block(const BlockConstraint& c);

}  // namespace cosmoe
