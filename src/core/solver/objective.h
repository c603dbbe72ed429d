// What a solver sees of a problem.
#pragma once

#include <vector>

#include "common/armadillo.h"
#include "common/constraint.h"

namespace cosmoe {

enum class Order { value, gradient, normal, hessian };  // each includes the ones before

struct Evaluation {
    double value = 0;
    arma::vec gradient;
    arma::mat normal;   // Gauss-Newton part of the Hessian
    arma::mat hessian;  // exact Hessian
};

class Objective {
  public:
    virtual ~Objective() = default;
    virtual Evaluation evaluate(const arma::vec& theta, Order order) = 0;

    // Where a step leads: theta + step, or a point that differs from it in second order where the objective knows a
    // curve along which it is closer to its quadratic model.
    virtual arma::vec move(const arma::vec& theta, const arma::vec& step) { return theta + step; }

    // What that curve adds to the Hessian of F at theta: the second derivative of gradient' move(theta, step) in the
    // step. Nothing along straight lines.
    virtual arma::mat bend(const arma::vec&, const arma::vec&) const { return {}; }
};

// theta[first, first + length) lies in the ball (norm <= radius) or on the sphere (norm == radius).
struct BlockConstraint {
    ConstraintKind kind;
    arma::uword first, length;
    double radius;
};

using Constraints = std::vector<BlockConstraint>;

}  // namespace cosmoe
