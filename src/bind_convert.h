// Conversions between R lists and the core's types.
#pragma once

#include <RcppArmadillo/Lighter>

#include "measure/atoms.h"
#include "regression/family.h"
#include "regression/least_squares.h"
#include "regression/parameters.h"

namespace bind {

cosmoe::ModelSpec as_model(const Rcpp::List& model);
// Points into the R matrices; they must outlive the result.
cosmoe::Rows as_rows(const Rcpp::List& rows);
cosmoe::Parameters as_parameters(const Rcpp::List& par);
// A mixing measure, or atoms without u.
cosmoe::Atoms as_atoms(const Rcpp::List& measure);
cosmoe::RouterSpec as_router(const Rcpp::List& router);
cosmoe::FamilySpec as_family(const Rcpp::List& family);
// Asks R whether the user pressed Ctrl-C, without letting R jump out of C++ frames.
cosmoe::Hooks interrupt_hooks();

}  // namespace bind
