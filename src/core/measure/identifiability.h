// The functions of x whose linear independence decides what of a mixing measure can be identified: derivatives of
// F(x; beta_1, eta) = exp(score(x; beta_1)) h(x, eta), one set for each atom, and of the regression function f_G.
#pragma once

#include "common/armadillo.h"
#include "common/hooks.h"
#include "regression/pass.h"

namespace cosmoe {

// A mixing measure in the paper's coordinates.
struct Atoms {
    arma::vec beta0;  // k
    arma::mat beta1;  // dz x k
    arma::mat eta;    // q x k
};

// Let A be the matrix with a column for each function and a row for each row of data. Only the triangular factor R of A
// = QR is kept: it has the singular values and null vectors of A, and none of the accuracy is lost that the Gram matrix
// A'A = R'R loses.
struct DerivativeFactors {
    // Atom by atom: dF/dp_a, p = (beta_1, eta), then, for order 2, d2F/dp_a dp_b for a <= b, b fastest. The functions of
    // one atom have a common positive factor, which keeps them in range.
    arma::mat functions;
    // Atom by atom: df_G/dbeta_0, df_G/dbeta_1, df_G/deta.
    arma::mat regression;
};

// Second derivatives of custom experts are differences of their gradients.
DerivativeFactors derivative_factors(const Model& model, const Rows& rows, const Atoms& atoms, int order,
                                     const Hooks& hooks);

// du_i / dbeta_1i at (c, a, i): u_c by beta_a.
arma::cube chart_jacobians(const Router& router, const arma::mat& beta1);

}  // namespace cosmoe
