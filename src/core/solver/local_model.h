// The quadratic models of an objective at a point, in tangent coordinates of the spheres (all other coordinates stay).
#pragma once

#include "solver/step.h"

namespace cosmoe {

// Squared scales of a step: one common value, the largest, in every constrained block so that balls stay balls; none
// below `least` times the largest.
arma::vec common_in_blocks(arma::vec scale, const Constraints& constraints, double least);

// The diagonal of the Gauss-Newton matrix or, where it is there and larger, of the exact one: also where an expert has
// lost its weight and the former vanishes.
arma::vec largest_curvature(const Evaluation& at);

// The scales that this gives.
arma::vec natural_scale(const Evaluation& at, const Constraints& constraints);

class LocalModel {
  public:
    // `bend`: what the objective's curves add to its Hessian (Objective::bend).
    LocalModel(const Evaluation& e, const arma::vec& theta, const Constraints& constraints, arma::mat bend = {});
    arma::vec gradient() const { return reduce(e_.gradient); }
    arma::mat normal() const { return reduce(e_.normal); }
    // Along the objective's curves; on a sphere with the sphere's multiplier on its block.
    arma::mat hessian() const;
    // Squared step scales, which are constant within every constrained block.
    arma::vec scale(const arma::vec& full) const;
    std::vector<BallLimit> balls() const;
    arma::vec reduce(const arma::vec& v) const { return flat() ? v : arma::vec(basis_.t() * v); }
    arma::mat reduce(const arma::mat& m) const { return flat() ? m : arma::mat(basis_.t() * m * basis_); }
    arma::vec expand(const arma::vec& q) const { return flat() ? q : arma::vec(basis_ * q); }

  private:
    bool flat() const { return spheres_.empty(); }

    const Evaluation& e_;
    const arma::vec& theta_;
    Constraints spheres_, balls_;
    arma::mat basis_, bend_;
};

}  // namespace cosmoe
