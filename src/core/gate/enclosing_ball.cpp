#include "gate/enclosing_ball.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace cosmoe {
namespace {

// Affine coordinates (summing to 1) over the support of the point of its affine hull nearest to `center`; being as far
// from all of them as from each other, that point is their circumcentre once `center` is equidistant.
arma::vec affine_coordinates(const arma::mat& points, const std::vector<arma::uword>& support,
                             const arma::vec& center) {
    const arma::uword m = support.size();
    arma::vec weight(m, arma::fill::ones);
    if (m == 1) return weight;
    arma::mat edges(points.n_rows, m - 1);
    for (arma::uword j = 1; j < m; ++j) edges.col(j - 1) = points.col(support[j]) - points.col(support[0]);
    weight.tail(m - 1) = arma::pinv(edges) * (center - points.col(support[0]));
    weight[0] = 1 - arma::accu(weight.tail(m - 1));
    return weight;
}

}  // namespace

EnclosingBall smallest_enclosing_ball(const arma::mat& points) {
    EnclosingBall ball;
    ball.center.zeros(points.n_rows);
    if (points.n_cols == 0 || points.n_rows == 0) return ball;
    const arma::vec origin = arma::mean(points, 1);
    const arma::mat p = points.each_col() - origin;
    const double size = std::max(arma::abs(p).max(), 1e-300), tolerance = 1e-13 * size;

    arma::vec center(p.n_rows, arma::fill::zeros);
    const auto distances = [&] { return arma::vec(arma::sqrt(arma::sum(arma::square(p.each_col() - center), 0)).t()); };
    std::vector<arma::uword> support{arma::index_max(distances())};
    for (arma::uword iteration = 0; iteration < 50 * p.n_cols + 50; ++iteration) {
        const arma::vec weight = affine_coordinates(p, support, center);
        arma::vec target(p.n_rows, arma::fill::zeros);
        for (arma::uword j = 0; j < support.size(); ++j) target += weight[j] * p.col(support[j]);
        const arma::vec move = target - center;
        if (arma::norm(move) <= tolerance) {
            const arma::uword worst = arma::index_min(weight);
            if (support.size() == 1 || weight[worst] >= -1e-12) break;
            support.erase(support.begin() + static_cast<std::ptrdiff_t>(worst));
            continue;
        }
        // The first point outside the support to reach the shrinking sphere.
        const arma::vec anchor = p.col(support[0]);
        double step = 1;
        arma::uword stopper = p.n_cols;
        for (arma::uword i = 0; i < p.n_cols; ++i) {
            if (std::find(support.begin(), support.end(), i) != support.end()) continue;
            const double approach = arma::dot(move, anchor - p.col(i));
            if (approach <= tolerance * arma::norm(move)) continue;
            const double gap = std::pow(arma::norm(center - anchor), 2) - std::pow(arma::norm(center - p.col(i)), 2);
            const double t = std::max(0.0, gap / (2 * approach));
            if (t < step) step = t, stopper = i;
        }
        center += step * move;
        if (stopper < p.n_cols) support.push_back(stopper);
    }
    ball.center = center + origin;
    ball.radius = arma::max(distances());
    return ball;
}

}  // namespace cosmoe
