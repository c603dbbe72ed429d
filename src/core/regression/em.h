// Maximum likelihood for mixtures of experts: EM, or a trust-region method on the observed likelihood that begins with
// EM's steps.
#pragma once

#include "regression/least_squares.h"
#include "regression/likelihood.h"

namespace cosmoe {

struct EmSettings : FitSettings {
    bool hybrid = true;  // on the observed likelihood, with the exact Hessian once EM's steps gain little
};

// From a start to a solution with its certificate; Fit::value is minus the log likelihood, and never increases along
// Fit::trace. Passes count evaluations with derivatives, of EM's function and of the likelihood alike.
// From sums over rows that are somewhere else; not for pure EM, whose steps have sums of their own.
Fit fit_likelihood(const Model& model, const RowSums& rows, const arma::vec& start, const EmSettings& settings,
                   const Hooks& hooks);

Fit fit_likelihood(const Model& model, const Family& family, const Rows& rows, const arma::vec& start,
                   const EmSettings& settings, const Hooks& hooks);

}  // namespace cosmoe
