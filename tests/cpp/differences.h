// Derivatives by differences, and matrices compared.
#pragma once

#include <algorithm>
#include <functional>

#include "check.h"
#include "common/armadillo.h"

inline void check_near(const arma::mat& a, const arma::mat& b, double tolerance) {
    CHECK(arma::size(a) == arma::size(b));
    CHECK_NEAR(arma::abs(a - b).max() / std::max(1.0, arma::abs(b).max()), 0, tolerance);
}

// Columns: the derivative of f in each parameter, by differences of fourth order.
inline arma::mat differences(const arma::vec& theta, const std::function<arma::vec(const arma::vec&)>& f) {
    const double h = 1e-4;
    arma::mat out;
    for (arma::uword j = 0; j < theta.n_elem; ++j) {
        const auto at = [&](double step) {
            arma::vec moved = theta;
            moved[j] += step;
            return f(moved);
        };
        const arma::vec slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
        out.insert_cols(j, slope);
    }
    return out;
}
