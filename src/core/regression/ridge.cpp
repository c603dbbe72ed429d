#include "regression/ridge.h"

#include <algorithm>

#include "common/buffer.h"
#include "common/chunks.h"
#include "common/kernels.h"

namespace cosmoe {

arma::vec ridge(const double* x, std::size_t n, std::size_t d, const double* y, const double* w, double shrink) {
    double weight = 0, sum = 0;
    for (std::size_t i = 0; i < n; ++i) weight += w[i], sum += w[i] * y[i];
    const double center = sum / std::max(weight, 1e-300);
    // Columns of x and y, and those of x with weights, padded with zeros.
    const std::size_t rows = round_up(n, lane_multiple);
    Buffer columns(rows, d + 1), weighted(rows, d);
    for (std::size_t j = 0; j < d; ++j) {
        std::copy_n(x + j * n, n, columns.col(j));
        for (std::size_t i = 0; i < n; ++i) weighted.col(j)[i] = w[i] * x[j * n + i];
    }
    for (std::size_t i = 0; i < n; ++i) columns.col(d)[i] = y[i] - center;
    arma::mat products(d, d + 1, arma::fill::zeros);
    kernel::cross_product(weighted.col(0), rows, d, columns.col(0), rows, d + 1, rows, products.memptr(), d);

    arma::mat gram = products.head_cols(d);
    arma::vec more(d);
    more.fill(shrink * arma::mean(gram.diag()));
    more[d - 1] *= 1e-6;
    gram.diag() += more;
    const arma::vec unit = 1 / arma::sqrt(arma::clamp(arma::vec(gram.diag()), 1e-300, arma::datum::inf));
    arma::vec coef(d, arma::fill::zeros);
    arma::mat upper;
    if (arma::chol(upper, arma::symmatu(gram % (unit * unit.t()))))
        coef = unit % arma::solve(arma::trimatu(upper),
                                  arma::solve(arma::trimatl(upper.t()), unit % products.col(d), arma::solve_opts::fast),
                                  arma::solve_opts::fast);
    coef[d - 1] += center;
    return coef;
}

}  // namespace cosmoe
