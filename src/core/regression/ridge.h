// Weighted least squares with a little shrinkage of slopes, so that few rows have a fit too: where starts come from.
#pragma once

#include "common/armadillo.h"

namespace cosmoe {

// The coefficients of y on the columns of x, the last of which is the intercept's, with weights w. Slopes are shrunk by
// `shrink` times the mean square of the columns; all are zero where there is no solution.
arma::vec ridge(const arma::mat& x, const arma::vec& y, const arma::vec& w, double shrink);

}  // namespace cosmoe
