// Mini-batch stochastic gradient descent in the paper's parameters (beta_0, beta_1, eta).
#pragma once

#include "regression/least_squares.h"

namespace cosmoe {

// Each step moves along minus the gradient of the batch's mean squared residual times the learning rate.
SolverResult minimise_sgd(const Model& model, const Pass& pass, const arma::vec& start, const FitSettings& settings,
                          const Hooks& hooks);

}  // namespace cosmoe
