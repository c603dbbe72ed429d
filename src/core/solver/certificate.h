// Judges a solution after the fact, independently of the optimiser that found it.
#pragma once

#include "solver/result.h"

namespace cosmoe {

struct Certificate {
    double projected_gradient = 0;  // largest |g_j| / (square root of natural_scale()_j * norm of the residuals)
    // Of 2 F by the exact quadratic model within a step as long as the residuals, or within the solver's reach if that
    // is shorter; relative to the residual variance.
    // NaN when there is no such model.
    double predicted_decrease = std::numeric_limits<double>::quiet_NaN();
    std::vector<arma::uword> active;  // numbers of the balls that bind, among all constraints
    double smallest_curvature = 0;    // of the Lagrangian on the identifiable space, relative to natural_scale()
    arma::uword rank = 0;             // of the Jacobian on the constraint set's tangent space
    arma::uword gauge = 0;            // directions that change no prediction, by construction of the model
    arma::uword null_directions = 0;  // further directions without curvature: the solution is not unique
};

// `gauge`: columns that span the directions along which the objective is constant by construction. `silent`: coordinates
// whose derivatives are rounding errors, which count for no rank.
Certificate certify(const Evaluation& at, const SolverResult& result, const Constraints& constraints,
                    const arma::mat& gauge, const arma::uvec& silent, const Settings& settings);

}  // namespace cosmoe
