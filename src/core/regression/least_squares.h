// Least squares: from a start to a solution with its certificate.
#pragma once

#include "regression/model_objective.h"

namespace cosmoe {

struct FitSettings {
    std::string optimizer = "newton";  // or slsqp, lbfgs, ccsaq, bobyqa, sgd
    int max_passes = 500;
    bool certify = true;  // also a run that the limit of passes has stopped; others always
    double tolerance = 1e-6;
    std::size_t threads = 1;
    // Stochastic gradient descent, the paper's protocol. `order` holds a permutation of the rows an epoch.
    double learning_rate = 0.1;
    std::size_t batch_size = 32;
    std::vector<std::vector<std::size_t>> order;
    arma::mat beta;  // where it begins, or empty: the start's u does not have the norms that the cosine router ignores
};

// From sums over rows that are somewhere else; not for stochastic gradient descent, which needs the rows.
Fit fit_least_squares(const Model& model, const RowSums& rows, const arma::vec& start, const FitSettings& settings,
                      const Hooks& hooks);

Fit fit_least_squares(const Model& model, const Rows& rows, const arma::vec& start, const FitSettings& settings,
                      const Hooks& hooks);

}  // namespace cosmoe
