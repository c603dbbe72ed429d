// The rows as a fit sees them, wherever they are kept: sums over all rows as functions of theta, and a few totals.
#pragma once

#include <functional>

#include "regression/rows.h"
#include "solver/objective.h"

namespace cosmoe {

// A criterion and its derivatives summed over all rows. May throw Interrupted.
using Evaluator = std::function<Evaluation(const arma::vec& theta, Order order)>;

// Of parts of the rows, `used` and `weight` can be added; the others are about a common mean.
struct RowTotals {
    double used = 0;       // rows with positive weight
    double weight = 0;     // sum w
    double squares = 0;    // sum w y^2
    double deviation = 0;  // sum w (y - mean)^2 about the weighted mean
};

struct RowSums {
    // What the solver asks; for a likelihood `normal` is the information of the complete data (see Information).
    Evaluator search;
    // The same for the certificate, after an interrupt too.
    Evaluator judge;
    RowTotals totals;
    bool in_memory = true;  // so that a criterion alone costs less than one with its derivatives
};

RowTotals row_totals(const Rows& rows);

}  // namespace cosmoe
