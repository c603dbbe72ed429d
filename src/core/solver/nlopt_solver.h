// NLopt's algorithms on the same objective and constraints, for cross-checks and hard cases.
#pragma once

#include "solver/result.h"

namespace cosmoe {

// algorithm: "slsqp" takes balls as inequality constraints; "lbfgs", "ccsaq" and "bobyqa" work in a chart of the whole
// closed ball, u = radius v / norm(v, t), whose equator t = 0 is the boundary. Spheres are charted by v / norm(v).
SolverResult minimise_nlopt(Objective& objective, const Constraints& constraints, const arma::vec& start,
                            const std::string& algorithm, const Settings& settings, const Hooks& hooks);

}  // namespace cosmoe
