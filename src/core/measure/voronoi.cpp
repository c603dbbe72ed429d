#include "measure/voronoi.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace cosmoe {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

double distance(const double* a, const double* b, arma::uword n) {
    double sum = 0;
    bool finite = true, equal = true;
    for (arma::uword i = 0; i < n; ++i) {
        finite = finite && std::isfinite(a[i]) && std::isfinite(b[i]);
        equal = equal && a[i] == b[i];
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    }
    if (equal) return 0;
    if (!finite) return infinity;
    return sum > 1e-280 && sum < 1e280 ? std::sqrt(sum) : arma::norm(arma::vec(a, n) - arma::vec(b, n));
}

}  // namespace

arma::mat column_distances(const arma::mat& a, const arma::mat& b) {
    arma::mat out(a.n_cols, b.n_cols);
    for (arma::uword j = 0; j < b.n_cols; ++j)
        for (arma::uword i = 0; i < a.n_cols; ++i) out(i, j) = distance(a.colptr(i), b.colptr(j), a.n_rows);
    return out;
}

// On the boundary u tells which gates are equal; beta has only signs there.
arma::mat gate_distances(const Atoms& fit, const Atoms& truth, bool bounded) {
    if (bounded) return column_distances(fit.u, truth.u);
    arma::mat out = column_distances(fit.beta, truth.beta);
    if (fit.beta.is_finite() || truth.beta.is_finite()) return out;
    for (arma::uword j = 0; j < out.n_cols; ++j)
        for (arma::uword i = 0; i < out.n_rows; ++i)
            if (!fit.beta.col(i).is_finite() && !truth.beta.col(j).is_finite())
                out(i, j) =
                    arma::norm(fit.u.col(i) - truth.u.col(j)) <= 1e-12 * arma::norm(truth.u.col(j)) ? 0 : infinity;
    return out;
}

CellLoss::CellLoss(const VoronoiSpec& spec, arma::vec mass, arma::vec true_mass, arma::mat expert_distance)
    : power_(spec.power),
      squares_(spec.squares),
      counted_(spec.counted == 0 ? true_mass.n_elem : spec.counted),
      mass_(std::move(mass)),
      true_mass_(std::move(true_mass)),
      expert_(std::move(expert_distance)) {}

arma::uvec CellLoss::nearest(const arma::mat& gate) const {
    arma::uvec cell(gate.n_rows, arma::fill::zeros);
    for (arma::uword i = 0; i < gate.n_rows; ++i) {
        double best = infinity;
        for (arma::uword j = 0; j < gate.n_cols; ++j) {
            const double square = gate(i, j) * gate(i, j) + expert_(i, j) * expert_(i, j);
            if (square < best) best = square, cell[i] = j;
        }
    }
    return cell;
}

CellSums CellLoss::sums(const arma::uvec& cell, const arma::mat& gate) const {
    const arma::uword cells = true_mass_.n_elem;
    CellSums out{cell, arma::uvec(cells, arma::fill::zeros), arma::vec(cells, arma::fill::zeros),
                 arma::vec(cells, arma::fill::zeros), arma::vec(cells, arma::fill::zeros)};
    for (const arma::uword j : cell) ++out.count[j];
    for (arma::uword i = 0; i < cell.n_elem; ++i) {
        const arma::uword j = cell[i];
        const double r = power(out.count[j]);
        const auto cost = [&](double x) {  // never 0 * infinity
            return x == 0 ? 0 : std::max(mass_[i], 1e-300) * (r == 1 ? x : r == 2 ? x * x : std::pow(x, r));
        };
        out.mass[j] += mass_[i];
        out.gate[j] += cost(gate(i, j));
        out.expert[j] += cost(expert_(i, j));
    }
    return out;
}

double CellLoss::value_and_slope(const CellSums& s, double gamma, double* slope) const {
    const arma::uword cells = true_mass_.n_elem;
    const auto loss = [&](arma::uword j) {
        return std::abs(gamma * s.mass[j] - true_mass_[j]) + gamma * (s.gate[j] + s.expert[j]);
    };
    const auto slope_of = [&](arma::uword j) {
        return (gamma * s.mass[j] >= true_mass_[j] ? s.mass[j] : -s.mass[j]) + s.gate[j] + s.expert[j];
    };
    double value = 0;
    *slope = 0;
    if (counts_all()) {
        for (arma::uword j = 0; j < cells; ++j) value += loss(j), *slope += slope_of(j);
        return value;
    }
    std::vector<std::pair<double, double>> all(cells);
    for (arma::uword j = 0; j < cells; ++j) all[j] = {loss(j), slope_of(j)};
    std::partial_sort(all.begin(), all.begin() + counted_, all.end(), std::greater<>());
    for (arma::uword j = 0; j < counted_; ++j) value += all[j].first, *slope += all[j].second;
    return value;
}

double CellLoss::value(const CellSums& sums, double gamma) const {
    double slope;
    return value_and_slope(sums, gamma, &slope);
}

// Tangents from the left and from the right of the minimum meet below it; the next point is where they meet.
double CellLoss::best_factor(const CellSums& s) const {
    double left = 0, right = 0, left_slope, right_slope;
    for (arma::uword j = 0; j < s.mass.n_elem; ++j)
        if (s.mass[j] > 0) right = std::max(right, true_mass_[j] / s.mass[j]);
    double left_value = value_and_slope(s, left, &left_slope);
    if (left_slope >= 0) return left;
    double right_value = value_and_slope(s, right, &right_slope);
    if (right_slope <= 0) return right;
    for (int iteration = 0; iteration < 200; ++iteration) {
        const double middle =
            (left_value - right_value + right_slope * right - left_slope * left) / (right_slope - left_slope);
        if (!(middle > left && middle < right)) break;
        const double below = left_value + left_slope * (middle - left);
        double slope;
        const double value = value_and_slope(s, middle, &slope);
        if (value <= below + 1e-15 * std::abs(below)) return middle;
        if (slope < 0) {
            left = middle, left_value = value, left_slope = slope;
        } else {
            right = middle, right_value = value, right_slope = slope;
        }
    }
    return left_value < right_value ? left : right;
}

VoronoiLoss CellLoss::describe(const CellSums& s, double gamma) const {
    const arma::uword cells = true_mass_.n_elem;
    VoronoiLoss out;
    out.cell = s.cell;
    out.terms.set_size(cells, 3);
    for (arma::uword j = 0; j < cells; ++j) {
        out.terms(j, 0) = std::abs(gamma * s.mass[j] - true_mass_[j]);
        out.terms(j, 1) = gamma * s.gate[j];
        out.terms(j, 2) = gamma * s.expert[j];
    }
    const arma::vec total = arma::sum(out.terms, 1);
    std::vector<arma::uword> order(cells);
    std::iota(order.begin(), order.end(), arma::uword(0));
    std::stable_sort(order.begin(), order.end(), [&](arma::uword a, arma::uword b) { return total[a] > total[b]; });
    out.counted.zeros(cells);
    for (arma::uword j = 0; j < counted_; ++j) out.counted[order[j]] = 1;
    for (arma::uword j = 0; j < cells; ++j)
        if (out.counted[j]) out.value += total[j];
    return out;
}

VoronoiLoss voronoi_loss(const Atoms& fit, const Atoms& truth, const VoronoiSpec& spec) {
    // Masses that would overflow are made smaller first: a difference of infinities is no number.
    const double excess = std::max(0.0, std::max(fit.bias.max(), truth.bias.max()) - 600);
    const CellLoss loss(spec, arma::exp(fit.bias - excess), arma::exp(truth.bias - excess),
                        column_distances(fit.eta, truth.eta));
    const arma::mat gate = gate_distances(fit, truth, spec.bounded);
    VoronoiLoss out = loss.describe(loss.sums(loss.nearest(gate), gate), 1);
    out.shift.zeros(fit.u.n_rows);
    if (excess > 0) {
        const auto restore = [excess](double& x) { x = x > 0 ? std::exp(std::log(x) + excess) : x; };
        out.terms.for_each(restore);
        restore(out.value);
    }
    return out;
}

}  // namespace cosmoe
