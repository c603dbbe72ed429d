// The step problem of the trust-region method, solved without a pass over the data.
#pragma once

#include "solver/objective.h"

namespace cosmoe {

// Block [first, first + center.n_elem) of the step q obeys norm(center + q_block) <= radius.
struct BallLimit {
    arma::uword first;
    arma::vec center;
    double radius;
};

struct Step {
    arma::vec q;
    double predicted = 0;  // decrease of the quadratic model
    double length = 0;     // norm(D q)
    double damping = 0;    // multiplier of the trust region; a warm start for the next step
    bool limited = false;  // the trust region binds
    bool ok = false;
};

// Minimises gradient'q + q'matrix q / 2 subject to norm(D q) <= radius and the balls, D^2 = diag(scale). Without
// balls in the way this is Newton's method on the damping (More and Sorensen, 1983). Otherwise a primal-dual
// interior-point method solves the damped model over the balls. It needs no care for directions the model knows
// nothing of (the softmax's translations): the balls themselves centre the point along them.
Step solve_step(const arma::mat& matrix, const arma::vec& gradient, const arma::vec& scale, double radius,
                const std::vector<BallLimit>& balls, double warm_damping = 0);

}  // namespace cosmoe
