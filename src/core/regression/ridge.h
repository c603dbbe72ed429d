// Weighted least squares with a little shrinkage of slopes, so that few rows have a fit too: where starts come from.
#pragma once

#include "common/armadillo.h"

namespace cosmoe {

// The coefficients of y on the d > 0 columns of x (n x d), the last of which is the intercept's, with weights w. Slopes
// are shrunk by `shrink` times the mean square of the columns; where that has no solution they are zero.
arma::vec ridge(const double* x, std::size_t n, std::size_t d, const double* y, const double* w, double shrink);

}  // namespace cosmoe
