#include "measure/fixed_cells.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace cosmoe {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

FixedCells::FixedCells(const Gauge& gauge, const CellLoss& loss, const arma::mat& target, arma::uvec cell)
    : gauge_(gauge),
      loss_(loss),
      target_(target),
      cell_(std::move(cell)),
      power_(cell_.n_elem),
      joint_(!loss.counts_all()) {
    const arma::mat none(cell_.n_elem, target.n_cols, arma::fill::zeros);
    const CellSums sums = loss.sums(cell_, none);
    cell_mass_ = sums.mass;
    cell_expert_ = sums.expert;
    const arma::mat& expert = loss.expert_distance();
    for (arma::uword i = 0; i < cell_.n_elem; ++i) {
        const arma::uword own = cell_[i];
        power_[i] = loss.power(sums.count[own]);
        for (arma::uword j = 0; j < target.n_cols; ++j) {
            if (j == own || !target.col(j).is_finite()) continue;
            // |gate - target_j|^2 - |gate - target_own|^2 is linear in the gate.
            const arma::vec slope = 2 * (target.col(own) - target.col(j));
            if (!arma::any(slope)) continue;
            const double constant = arma::dot(target.col(j) - target.col(own), target.col(j) + target.col(own)) +
                                    (expert(i, j) - expert(i, own)) * (expert(i, j) + expert(i, own));
            gaps_.push_back({i, slope, constant});
        }
    }
}

// y = theta, or (theta, gamma, threshold): the sum of the K largest losses is the minimum over the threshold of
// K threshold + sum of (loss - threshold)_+.
double FixedCells::evaluate(const arma::vec& y, const Smoothing& smooth, arma::vec* gradient,
                            arma::mat* hessian) const {
    const arma::uword p = gauge_.size(), cells = target_.n_cols, groups = joint_ ? cells : 1;
    const arma::vec theta = y.head(p);
    arma::mat gates;
    for (arma::uword i = gauge_.first_positive(); i < p; ++i)
        if (!(theta[i] > 0)) return infinity;
    if (!gauge_.place(theta, gates)) return infinity;
    const bool slopes = gradient != nullptr;

    // Costs of the gates, by cell if the cells have to be told apart.
    arma::vec cost(groups, arma::fill::zeros);
    arma::mat cost_slope(p, slopes ? groups : 0, arma::fill::zeros);
    arma::cube cost_curvature(p, p, slopes ? groups : 0, arma::fill::zeros);
    arma::vec barrier_slope(slopes ? p : 0, arma::fill::zeros);
    arma::mat barrier_curvature(slopes ? p : 0, slopes ? p : 0, arma::fill::zeros);
    double barrier = 0;
    const arma::uword d = gates.n_rows;
    arma::vec slope(d), own_slope;
    arma::mat curvature(d, d);
    std::size_t at = 0;
    for (arma::uword i = 0; i < cell_.n_elem; ++i) {
        const arma::vec difference = gates.col(i) - target_.col(cell_[i]);
        const double square = arma::dot(difference, difference) + smooth.length * smooth.length, r = power_[i];
        const double weight = loss_.mass()[i] * (r == 2   ? 1
                                                 : r == 1 ? 1 / std::sqrt(square)
                                                          : std::pow(square, r / 2 - 1));
        const arma::uword group = joint_ ? cell_[i] : 0;
        cost[group] += weight * square;
        if (slopes && weight > 0) {
            slope = r * weight * difference;
            curvature = (r * (r - 2) * weight / square) * (difference * difference.t());
            curvature.diag() += r * weight;
            own_slope = cost_slope.col(group);
            gauge_.pull_back(theta, i, slope, curvature, own_slope, cost_curvature.slice(group));
            cost_slope.col(group) = own_slope;
        }
        if (smooth.barrier == 0) continue;
        slope.zeros();
        curvature.zeros();
        for (; at < gaps_.size() && gaps_[at].atom == i; ++at) {
            const double gap = gaps_[at].constant + arma::dot(gaps_[at].slope, gates.col(i));
            if (!(gap > 0)) return infinity;
            barrier -= smooth.barrier * std::log(gap);
            if (!slopes) continue;
            slope -= smooth.barrier / gap * gaps_[at].slope;
            curvature += (smooth.barrier / (gap * gap)) * (gaps_[at].slope * gaps_[at].slope.t());
        }
        if (slopes) gauge_.pull_back(theta, i, slope, curvature, barrier_slope, barrier_curvature);
    }
    for (arma::uword i = gauge_.first_positive(); i < p; ++i) {
        barrier -= smooth.mass * std::log(theta[i]);
        if (!slopes) continue;
        barrier_slope[i] -= smooth.mass / theta[i];
        barrier_curvature(i, i) += smooth.mass / (theta[i] * theta[i]);
    }

    if (!joint_) {
        if (slopes) {
            *gradient = cost_slope.col(0) + barrier_slope;
            *hessian = cost_curvature.slice(0) + barrier_curvature;
        }
        return cost[0] + barrier;
    }
    const double gamma = y[p], threshold = y[p + 1], width = smooth.mass;
    if (!(gamma > 0)) return infinity;
    double value = static_cast<double>(loss_.counted()) * threshold + barrier - smooth.mass * std::log(gamma);
    if (slopes) {
        gradient->zeros(p + 2);
        hessian->zeros(p + 2, p + 2);
        gradient->head(p) = barrier_slope;
        hessian->submat(0, 0, p - 1, p - 1) = barrier_curvature;
        (*gradient)[p] = -smooth.mass / gamma;
        (*hessian)(p, p) = smooth.mass / (gamma * gamma);
        (*gradient)[p + 1] = static_cast<double>(loss_.counted());
    }
    arma::vec loss_slope(p + 2);
    for (arma::uword j = 0; j < cells; ++j) {
        const double miss = gamma * cell_mass_[j] - loss_.true_mass()[j], size = std::hypot(miss, width);
        const double total = cost[j] + cell_expert_[j];
        const double over = size + gamma * total - threshold, root = std::hypot(over, width);
        value += (over + root) / 2;
        if (!slopes) continue;
        const double first = (1 + over / root) / 2, second = width * width / (2 * root * root * root);
        loss_slope.head(p) = gamma * cost_slope.col(j);
        loss_slope[p] = miss / size * cell_mass_[j] + total;
        loss_slope[p + 1] = -1;
        *gradient += first * loss_slope;
        *hessian += second * loss_slope * loss_slope.t();
        hessian->submat(0, 0, p - 1, p - 1) += first * gamma * cost_curvature.slice(j);
        hessian->submat(0, p, p - 1, p) += first * cost_slope.col(j);
        hessian->submat(p, 0, p, p - 1) += first * cost_slope.col(j).t();
        (*hessian)(p, p) += first * cell_mass_[j] * cell_mass_[j] * width * width / (size * size * size);
    }
    return value;
}

arma::vec FixedCells::move(const arma::vec& y, const arma::vec& step) const {
    const arma::uword p = gauge_.size();
    const arma::vec theta = gauge_.move(y.head(p), step.head(p));
    return joint_ ? arma::join_cols(theta, arma::vec(y.tail(2) + step.tail(2))) : theta;
}

// False when it has not moved at all.
bool FixedCells::newton(arma::vec& y, const Smoothing& smoothing, double tolerance) const {
    arma::vec gradient, step;
    arma::mat hessian, factor;
    bool moved = false;
    for (int iteration = 0; iteration < 40; ++iteration) {
        const double value = evaluate(y, smoothing, &gradient, &hessian);
        if (!std::isfinite(value) || !gradient.is_finite() || !hessian.is_finite()) return moved;
        const double size = std::max(arma::abs(hessian.diag()).max(), 1e-300);
        double damping = 1e-13 * size;
        for (;; damping *= 30) {
            arma::mat damped = hessian;
            damped.diag() += damping;
            if (arma::chol(factor, damped)) break;
            if (!(damping < 1e6 * size)) return moved;
        }
        step = -arma::solve(arma::trimatu(factor), arma::solve(arma::trimatl(factor.t()), gradient));
        const double promise = -arma::dot(gradient, step);
        if (!(promise > std::max(tolerance, 1e-15 * std::abs(value)))) return moved;
        double length = 1;
        arma::vec next;
        for (; length > 1e-10; length *= 0.5) {
            next = move(y, length * step);
            if (evaluate(next, smoothing, nullptr, nullptr) <= value - 1e-4 * length * promise) break;
        }
        if (!(length > 1e-10)) return moved;
        y = next;
        moved = true;
    }
    return moved;
}

// Weighted means again and again (Weiszfeld), which cost next to nothing and come near a minimum over translations. False
// for powers above 2, where they need not.
bool FixedCells::approach(arma::vec& theta, double smooth) const {
    if (power_.max() > 2) return false;
    arma::mat gates;
    arma::vec weight(cell_.n_elem);
    for (int iteration = 0; iteration < 40; ++iteration) {
        gauge_.place(theta, gates);
        arma::vec step(theta.n_elem, arma::fill::zeros);
        double total = 0;
        for (arma::uword i = 0; i < cell_.n_elem; ++i) {
            double square = smooth * smooth;
            const double *gate = gates.colptr(i), *target = target_.colptr(cell_[i]);
            for (arma::uword j = 0; j < gates.n_rows; ++j) square += (gate[j] - target[j]) * (gate[j] - target[j]);
            const double r = power_[i], factor = r == 2   ? 1
                                                 : r == 1 ? 1 / std::sqrt(square)
                                                          : std::pow(square, r / 2 - 1);
            weight[i] = r * loss_.mass()[i] * factor;
            total += weight[i];
            for (arma::uword j = 0; j < gates.n_rows; ++j) step[j] += weight[i] * (target[j] - gate[j]);
        }
        if (!(total > 0)) return false;
        step /= total;
        theta += step;
        if (arma::dot(step, step) <= 1e-4 * smooth * smooth) break;
    }
    return true;
}

arma::vec FixedCells::minimise(const arma::vec& theta, double gamma, bool stay) const {
    arma::mat gates;
    if (theta.is_empty() || !gauge_.place(theta, gates)) return theta;
    const double mass = arma::accu(loss_.mass());
    arma::vec distance(cell_.n_elem);
    double cost = 0;
    for (arma::uword i = 0; i < cell_.n_elem; ++i) {
        distance[i] = arma::norm(gates.col(i) - target_.col(cell_[i]));
        cost += loss_.mass()[i] * std::pow(distance[i], power_[i]);
    }
    const double length = arma::dot(loss_.mass(), distance) / mass;
    const double size = joint_ ? arma::accu(loss_.true_mass()) : cost;
    if (!(length > 0) || !(size > 0) || !std::isfinite(cost)) return theta;

    arma::vec y = theta;
    if (joint_) {
        const CellSums sums = loss_.sums(cell_, arma::mat(cell_.n_elem, target_.n_cols, arma::fill::zeros));
        arma::vec all(target_.n_cols);
        for (arma::uword j = 0; j < all.n_elem; ++j)
            all[j] = std::abs(gamma * sums.mass[j] - loss_.true_mass()[j]) + gamma * sums.expert[j];
        for (arma::uword i = 0; i < cell_.n_elem; ++i)
            all[cell_[i]] += gamma * loss_.mass()[i] * std::pow(distance[i], power_[i]);
        const double threshold = arma::vec(arma::sort(all, "descend"))[loss_.counted() - 1];
        y = arma::join_cols(theta, arma::vec{std::max(gamma, 1e-6), threshold});
    }
    const bool approached = !stay && !joint_ && gauge_.translates() && approach(y, 1e-3 * length);
    for (double sharp = approached ? 1e-4 : 0.1; sharp > 1e-11; sharp *= 0.05) {
        const Smoothing smoothing{sharp * length, sharp * size, stay ? 0.01 * sharp * size : 0};
        newton(y, smoothing, 1e-4 * sharp * size);
        if (stay || joint_ || gauge_.first_positive() < gauge_.size()) continue;
        gauge_.place(y, gates);
        double nearest = infinity;
        for (arma::uword i = 0; i < cell_.n_elem; ++i)
            if (power_[i] != 2) nearest = std::min(nearest, arma::norm(gates.col(i) - target_.col(cell_[i])));
        if (smoothing.length < 1e-6 * nearest) {  // the norms are exact by now
            newton(y, smoothing, 1e-15 * size);
            break;
        }
    }
    return y.head(theta.n_elem);
}

bool FixedCells::enter(arma::vec& theta) const {
    arma::mat gates;
    if (theta.is_empty() || !gauge_.place(theta, gates)) return false;
    const arma::mat flat(gates.n_rows, gates.n_rows, arma::fill::zeros);
    arma::mat unused(theta.n_elem, theta.n_elem);
    for (int iteration = 0; iteration < 60; ++iteration) {
        const Gap* worst = nullptr;
        double worst_share = 1e-8, worst_value = 0;
        for (const Gap& gap : gaps_) {
            const double value = gap.constant + arma::dot(gap.slope, gates.unsafe_col(gap.atom));
            const double share = value / arma::dot(gap.slope, gap.slope);
            if (share < worst_share) worst = &gap, worst_share = share, worst_value = value;
        }
        if (!worst) return true;
        const double size = arma::dot(worst->slope, worst->slope);
        arma::vec slope(theta.n_elem, arma::fill::zeros);
        gauge_.pull_back(theta, worst->atom, worst->slope, flat, slope, unused);
        const double square = arma::dot(slope, slope);
        if (!(square > 1e-20 * size)) return false;
        arma::vec step = (1e-6 * size - 1.3 * worst_value) / square * slope, next = gauge_.move(theta, step);
        while (!gauge_.place(next, gates)) {
            step *= 0.5;
            if (arma::norm(step) <= 1e-12 * arma::norm(theta)) return false;
            next = gauge_.move(theta, step);
        }
        theta = next;
    }
    return false;
}

}  // namespace cosmoe
