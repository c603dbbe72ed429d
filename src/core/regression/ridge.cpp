#include "regression/ridge.h"

#include <algorithm>

namespace cosmoe {
namespace {

double sum_of(const arma::vec& values, std::size_t parts = 1) {
    long double sum = 0;
    for (const double v : values) sum += v;
    return static_cast<double>(sum / static_cast<long double>(parts));
}

}  // namespace

arma::vec ridge(const arma::mat& x, const arma::vec& y, const arma::vec& w, double shrink) {
    const arma::uword last = x.n_cols - 1;
    arma::mat gram = x.t() * (x.each_col() % w);
    arma::vec more(x.n_cols);
    more.fill(shrink * sum_of(gram.diag(), x.n_cols));
    more[last] *= 1e-6;
    gram.diag() += more;
    const double center = sum_of(w % y) / std::max(sum_of(w), 1e-300);
    const arma::vec right = x.t() * (w % (y - center));
    const arma::vec unit = 1 / arma::sqrt(arma::clamp(arma::vec(gram.diag()), 1e-300, arma::datum::inf));
    arma::vec coef;
    const auto plain = arma::solve_opts::fast + arma::solve_opts::no_sympd + arma::solve_opts::no_band;
    if (arma::solve(coef, gram % (unit * unit.t()), unit % right, plain)) coef %= unit;
    else coef.zeros(x.n_cols);
    coef[last] += center;
    return coef;
}

}  // namespace cosmoe
