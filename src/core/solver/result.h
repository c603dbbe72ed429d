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
    double tolerance = 1e-6;  // converged when the predicted decrease falls below this fraction of twice the unit
    // F is a sum of squares over two, or minus a log likelihood.
    bool likelihood = false;
    double residual_df = 1;    // squares: 2 F / residual_df estimates the residual variance
    double response_norm = 0;  // squares: root mean square of the response, for the size of rounding errors
    double weight = 1;         // likelihood: sum of the weights
    double total = 1;          // F of a trivial model; NLopt's fixed tolerances need an objective near 1
    // The exact Hessian is used once a step promises no more than this, or so many passes have gone.
    double exact_below = std::numeric_limits<double>::infinity();
    int exact_after = 0;
    bool exact_first = false;  // whether the first step takes the exact Hessian
    bool cheap_values = true;  // F alone costs a part of what it costs with derivatives

    // The decrease of F that the data can just tell: half a residual variance, or half a unit of log likelihood.
    double unit(double value) const { return likelihood ? 0.5 : value / residual_df; }

    // The length of a step that changes everything, in the metric of the normal matrix: the residuals' norm, or a
    // change of each row's log likelihood by one.
    double full_step(double value) const { return std::sqrt(likelihood ? weight : 2 * value); }

    // Changes of F below this are rounding: errors of eps |y| in each residual, or of eps in each row's log
    // likelihood, independent of each other.
    double rounding(double value) const {
        const double eps = std::numeric_limits<double>::epsilon();
        if (likelihood) return 4 * eps * (std::abs(value) + weight);
        return 4 * eps *
               (std::sqrt(2 * value) * response_norm + value + eps * response_norm * response_norm * residual_df);
    }

    // A solution has been reached when no step promises more than this.
    double enough(double value) const { return std::max(tolerance * unit(value), rounding(value)); }
};

struct SolverResult {
    arma::vec theta;
    double value = 0;
    int passes = 0;  // evaluations of F with derivatives; NLopt's and EM's own count where they take none
    int probes = 0;  // evaluations of F alone by which steps were judged
    Status status = Status::stalled;
    std::string message;
    std::vector<double> trace;  // F at the best point after each pass
    // Longest step, in the metric of natural_scale, that the last quadratic model may be asked about: longer ones were
    // tried and failed.
    double reach = std::numeric_limits<double>::infinity();
    Evaluation at;  // the derivatives at theta with the exact Hessian, where they are known
    // Stochastic gradient descent: the last iterate before its gates are centred, with the norms that it has reached.
    arma::vec last;
    arma::mat last_beta;
};

}  // namespace cosmoe
