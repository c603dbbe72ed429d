// The step problem of the trust-region method, solved without a pass over the data.
#pragma once

#include "solver/objective.h"

namespace cosmoe {

// Block [first, first + length) of the step q obeys norm(center + q_block) <= radius.
struct BallLimit {
    arma::uword first;
    arma::vec center;
    double radius;
};

struct Step {
    arma::vec q;
    double predicted = 0;    // decrease of the quadratic model
    double length = 0;       // norm(D q)
    bool limited = false;    // the trust region binds
    arma::vec multipliers;   // trust region, then balls; a warm start for the next step
    bool ok = false;
};

// Minimises gradient'q + q'matrix q / 2 subject to norm(D q) <= radius and the balls, D^2 = diag(scale). The multipliers
// of all constraints are found together by Newton's method on the concave dual,
//   (matrix + mu D^2 + sum_j lambda_j E_j) q = -(gradient + sum_j lambda_j E_j center_j),
// kept inside the region where the left-hand side is positive definite (More and Sorensen, 1983, for one constraint).
Step solve_step(const arma::mat& matrix, const arma::vec& gradient, const arma::vec& scale, double radius,
                const std::vector<BallLimit>& balls, const arma::vec& warm);

}  // namespace cosmoe
