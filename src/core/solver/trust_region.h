// Constrained trust-region Newton method; the default solver.
#pragma once

#include "solver/result.h"

namespace cosmoe {

// Minimises an objective that offers its Gauss-Newton matrix and exact Hessian, over balls and spheres. The model of
// each step is the one of the two that predicted the last step better: Gauss-Newton far from a solution, exact
// curvature near singular points, where plain damping crawls. A pass is one evaluation with derivatives.
SolverResult minimise_trust_region(Objective& objective, const Constraints& constraints, const arma::vec& start,
                                   const Settings& settings, const Hooks& hooks);

}  // namespace cosmoe
