// What every solver returns, and what it was told.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "common/hooks.h"
#include "solver/objective.h"

namespace cosmoe {

enum class Status { converged, max_passes, stalled, interrupted };

struct Settings {
    int max_passes = 500;
    double tolerance = 1e-6;   // converged when the predicted decrease of 2 F falls below tolerance * residual variance
    double residual_df = 1;    // 2 F / residual_df estimates the residual variance
    double response_norm = 0;  // root mean square of the response, for the size of rounding errors
    double total = 1;          // F of the best constant; NLopt's fixed tolerances need an objective near 1

    // Changes of F below this are rounding: errors of eps |y| in each residual, independent of each other.
    double rounding(double value) const {
        const double eps = std::numeric_limits<double>::epsilon();
        return 4 * eps *
               (std::sqrt(2 * value) * response_norm + value + eps * response_norm * response_norm * residual_df);
    }

    // A solution has been reached when no step promises more than this.
    double enough(double value) const { return std::max(tolerance * value / residual_df, rounding(value)); }
};

struct SolverResult {
    arma::vec theta;
    double value = 0;
    int passes = 0;
    Status status = Status::stalled;
    std::string message;
    std::vector<double> trace;  // F at the best point after each pass
    // Longest step, in the metric of natural_scale, that the last quadratic model may be asked about: longer ones were
    // tried and failed.
    double reach = std::numeric_limits<double>::infinity();
};

}  // namespace cosmoe
