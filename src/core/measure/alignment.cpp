// The infimum of a Voronoi loss over the gauge. For given cells the best masses and the best gates are separate problems
// (unless only the largest cells count), and where a set of cells ends the loss may jump. So the search goes over sets
// of cells: those at shifts that carry a fitted gate to a true one, and those on the other side of ties met on the way;
// it minimises over the closure of each that a lower bound does not exclude.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "gate/enclosing_ball.h"
#include "measure/fixed_cells.h"
#include "measure/gauge.h"
#include "measure/voronoi.h"

namespace cosmoe {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr int most_minimisations = 150, most_visits = 500;  // of one search
constexpr arma::uword most_turned_pairs = 5;                // pairs among so many true atoms give starts for turns
constexpr int most_ray_choices = 20000;                     // visited for one set of directions

struct Found {
    arma::vec theta;
    double value = infinity, gamma = 1;
};

// The cells and norms on rays with given directions: every stretch of a ray on which one true atom is nearest is a choice
// of cell, and the choices of all atoms together are searched by branch and bound.
class RayChoice {
  public:
    RayChoice(const CellLoss& loss, const arma::mat& target, const arma::mat& direction) : loss_(loss) {
        const arma::uword k = direction.n_cols;
        distance_.set_size(k, target.n_cols);
        distance_.fill(infinity);
        lambda_.zeros(k, target.n_cols);
        options_.resize(k);
        for (arma::uword i = 0; i < k; ++i) add_options(i, target, direction.col(i));
        rest_.zeros(k + 1);
        for (arma::uword i = k; i-- > 0;) {
            double least = infinity;
            for (const arma::uword j : options_[i]) least = std::min(least, least_cost(i, j));
            rest_[i] = rest_[i + 1] + least;
        }
        cell_.zeros(k);
        visit(0, 0);
    }
    arma::vec norms() const {
        arma::vec out(best_.n_elem);
        for (arma::uword i = 0; i < out.n_elem; ++i) out[i] = lambda_(i, best_[i]);
        return out;
    }

  private:
    void add_options(arma::uword i, const arma::mat& target, const arma::vec& e) {
        const arma::mat& expert = loss_.expert_distance();
        const arma::uword cells = target.n_cols;
        arma::vec along(cells), square(cells);
        for (arma::uword j = 0; j < cells; ++j) {
            along[j] = arma::dot(e, target.unsafe_col(j));
            square[j] = arma::dot(target.unsafe_col(j), target.unsafe_col(j)) + expert(i, j) * expert(i, j);
        }
        for (arma::uword j = 0; j < cells; ++j) {
            double low = 0, high = infinity;
            bool possible = true;
            for (arma::uword other = 0; other < cells && possible; ++other) {
                if (other == j) continue;
                // j is nearer where slope lambda + constant > 0.
                const double slope = 2 * (along[j] - along[other]), constant = square[other] - square[j];
                if (slope == 0) {
                    possible = constant > 0 || (constant == 0 && j < other);
                } else if (slope > 0) {
                    low = std::max(low, -constant / slope);
                } else {
                    high = std::min(high, -constant / slope);
                }
            }
            const double size = 1e-9 * std::max(low, arma::norm(target.col(j)));
            if (!possible || !(high - low > 3 * size)) continue;
            const double nearest = along[j];
            // Just inside, where a tie would go to another cell.
            const double inside = nearest < low ? low + (low > 0 ? size : 0) : nearest > high ? high - size : nearest;
            lambda_(i, j) = inside;
            distance_(i, j) = arma::norm(inside * e - target.col(j));
            options_[i].push_back(j);
        }
        if (options_[i].empty()) {  // only stretches of no length: the nearest atom at the norm 0 will do
            const arma::uword own = square.index_min();
            distance_(i, own) = arma::norm(target.col(own));
            options_[i].push_back(own);
        }
        std::sort(options_[i].begin(), options_[i].end(),
                  [&](arma::uword a, arma::uword b) { return least_cost(i, a) < least_cost(i, b); });
    }
    // Whatever the number of atoms in the cell.
    double least_cost(arma::uword i, arma::uword j) const {
        const auto cost = [&](double x) { return std::min(std::pow(x, loss_.power(1)), std::pow(x, loss_.power(2))); };
        return loss_.mass()[i] * (cost(distance_(i, j)) + cost(loss_.expert_distance()(i, j)));
    }
    // |gamma M - M*| + gamma C is least at gamma = M*/M or 0.
    double bound(double cost) const {
        const double share = static_cast<double>(loss_.counted()) / static_cast<double>(loss_.true_mass().n_elem);
        return share * arma::accu(loss_.true_mass()) * std::min(1.0, cost / arma::accu(loss_.mass()));
    }
    void visit(arma::uword i, double cost) {
        if (++visited_ > most_ray_choices && !best_.is_empty()) return;
        if (!best_.is_empty() && bound(cost + rest_[i]) >= value_) return;
        if (i == cell_.n_elem) {
            const CellSums sums = loss_.sums(cell_, distance_);
            const double value = loss_.value(sums, loss_.best_factor(sums));
            if (best_.is_empty() || value < value_) value_ = value, best_ = cell_;
            return;
        }
        for (const arma::uword j : options_[i]) {
            cell_[i] = j;
            visit(i + 1, cost + least_cost(i, j));
        }
    }
    const CellLoss& loss_;
    arma::mat distance_, lambda_;
    std::vector<std::vector<arma::uword>> options_;
    arma::vec rest_;  // least costs of the atoms from i on
    arma::uvec cell_, best_;
    double value_ = infinity;
    int visited_ = 0;
};

class Search {
  public:
    // `carrying`: column j * k + i is the shift that carries gate i to target j; empty where there is no such bound.
    Search(const Gauge& gauge, const CellLoss& loss, const arma::mat& target, arma::mat carrying)
        : gauge_(gauge),
          loss_(loss),
          target_(target),
          carrying_(std::move(carrying)) {}

    void offer(const arma::vec& theta) {
        arma::mat gates;
        if (!gauge_.place(theta, gates)) return;
        const arma::mat distance = column_distances(gates, target_);
        const arma::uvec cell = loss_.nearest(distance);
        const CellSums sums = loss_.sums(cell, distance);
        if (!sums.gate.is_finite()) return;
        const double gamma = loss_.best_factor(sums), value = loss_.value(sums, gamma);
        if (value < best_.value) best_ = {theta, value, gamma};
        Entry& entry = pool_[std::vector<arma::uword>(cell.begin(), cell.end())];
        if (value < entry.found.value) entry.found = {theta, value, gamma};
    }

    // Best first. Cells that a bound excludes may still have better ones behind them.
    const Found& run() {
        for (int minimised = 0, visited = 0; minimised < most_minimisations && visited < most_visits; ++visited) {
            auto next = pool_.end();
            for (auto it = pool_.begin(); it != pool_.end(); ++it)
                if (!it->second.solved && (next == pool_.end() || it->second.found.value < next->second.found.value))
                    next = it;
            if (next == pool_.end()) break;
            next->second.solved = true;
            const arma::uvec cell(next->first);
            const Found start = next->second.found;
            const FixedCells problem(gauge_, loss_, target_, cell);
            const bool hopeless = start.value > best_.value && excluded(lower_bound(cell));
            minimised += hopeless ? 0 : 1;
            offer_neighbours(cell, hopeless ? start.theta : minimise(cell, problem, start));
        }
        return best_;
    }

    const Found& best() const { return best_; }

  private:
    struct Entry {
        Found found;
        bool solved = false;
    };

    bool excluded(double bound) const { return bound >= best_.value * (1 - 1e-10); }

    // The value when the gates cost no less than `gate`.
    double value_at(const arma::uvec& cell, const arma::vec& gate) const {
        CellSums sums = loss_.sums(cell, arma::mat(cell.n_elem, target_.n_cols, arma::fill::zeros));
        sums.gate = gate;
        return loss_.value(sums, loss_.best_factor(sums));
    }

    // The sum of m_i |t - p_i|^r is at least 2^-r times its least value at one of the p_i.
    double lower_bound(const arma::uvec& cell) const {
        arma::vec gate(target_.n_cols, arma::fill::zeros);
        double bound = value_at(cell, gate);
        if (excluded(bound) || carrying_.is_empty() || !loss_.counts_all()) return bound;
        const arma::uword k = cell.n_elem;
        arma::uvec count(target_.n_cols, arma::fill::zeros);
        for (const arma::uword j : cell) ++count[j];
        std::map<double, double> least;  // by the power
        arma::mat p(carrying_.n_rows, k);
        for (arma::uword i = 0; i < k; ++i) p.col(i) = carrying_.col(cell[i] * k + i);
        const arma::mat distance = gauge_.contrast_bound() * column_distances(p, p);
        for (arma::uword vertex = 0; vertex < k; ++vertex) {
            std::map<double, double> cost;
            for (arma::uword i = 0; i < k; ++i) {
                const double r = loss_.power(count[cell[i]]);
                cost[r] += loss_.mass()[i] * std::pow(distance(i, vertex), r);
            }
            const double own = loss_.power(count[cell[vertex]]);
            const auto known = least.find(own);
            if (known == least.end() || cost[own] < known->second) least[own] = cost[own];
        }
        for (const auto& [r, cost] : least) gate[cell[0]] += cost * std::pow(0.5, r);
        return value_at(cell, gate);
    }

    // The best theta for which the atoms are in these cells, or any if it does not matter.
    arma::vec minimise(const arma::uvec& cell, const FixedCells& problem, const Found& start) {
        const arma::vec free = problem.minimise(start.theta, start.gamma, false);
        offer(free);
        arma::mat gates;
        if (!gauge_.place(free, gates)) return start.theta;
        const arma::mat distance = column_distances(gates, target_);
        if (arma::all(loss_.nearest(distance) == cell)) return free;
        const CellSums sums = loss_.sums(cell, distance);
        const bool convex = dynamic_cast<const Translations*>(&gauge_) != nullptr && loss_.counts_all();
        if (convex && excluded(loss_.value(sums, loss_.best_factor(sums)))) return start.theta;
        arma::vec stay = problem.minimise(start.theta, start.gamma, true);
        offer(stay);
        // A start in a corner can be too bad for one run where the problem is not convex.
        for (int again = 0; again < 2 && !convex; ++again) {
            stay = problem.minimise(stay, start.gamma, true);
            offer(stay);
        }
        return stay;
    }

    // Where one atom is in another cell, if that can be.
    void offer_neighbours(arma::uvec cell, const arma::vec& theta) {
        for (arma::uword atom = 0; atom < cell.n_elem; ++atom) {
            const arma::uword own = cell[atom];
            for (arma::uword other = 0; other < target_.n_cols; ++other) {
                if (other == own || !target_.col(other).is_finite()) continue;
                cell[atom] = other;
                const std::vector<arma::uword> key(cell.begin(), cell.end());
                if (pool_.count(key) || !tried_.insert(key).second || excluded(lower_bound(cell))) continue;
                arma::vec moved = theta;
                FixedCells(gauge_, loss_, target_, cell).enter(moved);
                offer(moved);
            }
            cell[atom] = own;
        }
    }

    const Gauge& gauge_;
    const CellLoss& loss_;
    const arma::mat& target_;
    arma::mat carrying_;
    Found best_;
    std::map<std::vector<arma::uword>, Entry> pool_;
    std::set<std::vector<arma::uword>> tried_;  // from the cells of a neighbour
};

// Columns j * k + i: to_j - from_i.
arma::mat all_contrasts(const arma::mat& from, const arma::mat& to) {
    arma::mat out(from.n_rows, from.n_cols * to.n_cols);
    for (arma::uword j = 0; j < to.n_cols; ++j)
        for (arma::uword i = 0; i < from.n_cols; ++i) out.col(j * from.n_cols + i) = to.col(j) - from.col(i);
    return out;
}

class Alignment {
  public:
    Alignment(const Atoms& fit, const Atoms& truth, const VoronoiSpec& spec, const RouterSpec& router)
        : fit_(fit),
          truth_(truth),
          spec_(spec),
          router_(router),
          chart_(make_router(router)),
          top_(fit.bias.max()),
          true_top_(std::max(0.0, truth.bias.max() - 600)),
          loss_(spec, arma::exp(fit.bias - top_), arma::exp(truth.bias - true_top_),
                column_distances(fit.eta, truth.eta)),
          shift_(fit.u.n_rows, arma::fill::zeros),
          norms_(fit.bias.n_elem, arma::fill::zeros) {
        reduce();
        if (spec.bounded || router.name == "linear") {
            translate(spec.bounded ? 1 : router.scale);
        } else if (router.name == "cosine") {
            turn();
        } else {
            shift_in_ball();
        }
    }

    // The loss literally at the shift found.
    VoronoiLoss result() const {
        const arma::mat distance = distances(shift_, norms_);
        const CellSums sums = loss_.sums(loss_.nearest(distance), distance);
        const bool finite = sums.gate.is_finite();
        const double gamma = finite ? loss_.best_factor(sums) : 1;
        VoronoiLoss out = loss_.describe(sums, gamma);
        out.shift = shift_;
        out.log_factor = finite ? std::log(gamma) - top_ + true_top_ : 0;
        if (router_.name == "cosine" && !spec_.bounded) out.norms = norms_;
        if (true_top_ > 0) {
            const auto restore = [this](double& x) { x = x > 0 ? std::exp(std::log(x) + true_top_) : x; };
            out.terms.for_each(restore);
            restore(out.value);
        }
        return out;
    }

  private:
    arma::mat distances(const arma::vec& shift, const arma::vec& norms) const {
        Atoms moved{fit_.bias, fit_.u.each_col() + shift, {}, {}};
        if (!spec_.bounded) {
            moved.beta = chart_->to_beta(moved.u);
            if (router_.name == "cosine") moved.beta.each_row() %= norms.t();
        }
        return gate_distances(moved, truth_, spec_.bounded);
    }

    double value_at(const arma::vec& shift, const arma::vec& norms) const {
        const arma::mat distance = distances(shift, norms);
        const CellSums sums = loss_.sums(loss_.nearest(distance), distance);
        return sums.gate.is_finite() ? loss_.value(sums, loss_.best_factor(sums)) : infinity;
    }

    void keep(const arma::vec& shift, const arma::vec& norms) {
        const double value = value_at(shift, norms);
        if (value < value_) value_ = value, shift_ = shift, norms_ = norms;
    }

    // Coordinates in the span of all gates; one more dimension stands for all others.
    void reduce() {
        const arma::uword d = fit_.u.n_rows, wanted = fit_.u.n_cols + truth_.u.n_cols + 1;
        basis_.eye(d, d);
        if (d > wanted) {
            arma::mat upper, all = arma::join_rows(fit_.u, truth_.u);
            all.insert_cols(all.n_cols, arma::vec(d, arma::fill::ones));
            arma::qr_econ(basis_, upper, all);
        }
        u_ = basis_.t() * fit_.u;
        true_u_ = basis_.t() * truth_.u;
        if (spec_.bounded) return;
        target_.set_size(true_u_.n_rows, true_u_.n_cols);
        for (arma::uword j = 0; j < true_u_.n_cols; ++j) {
            if (truth_.beta.col(j).is_finite()) {
                target_.col(j) = basis_.t() * truth_.beta.col(j);
            } else {
                target_.col(j).fill(infinity);
            }
        }
    }

    // Shifts of u that are worth a try: carrying a gate to another, or a centre to another.
    arma::mat candidates(const arma::mat& carrying) const {
        arma::mat out = carrying;
        const auto add = [&](const arma::vec& t) { out.insert_cols(out.n_cols, t); };
        add(arma::vec(u_.n_rows, arma::fill::zeros));
        add(smallest_enclosing_ball(true_u_).center - smallest_enclosing_ball(u_).center);
        add(true_u_ * loss_.true_mass() / arma::accu(loss_.true_mass()) - u_ * loss_.mass() / arma::accu(loss_.mass()));
        return out;
    }

    void translate(double unit) {
        if (spec_.bounded) target_ = true_u_;
        const Translations gauge(u_ / unit);
        const arma::mat carrying = all_contrasts(u_, true_u_) / unit;
        Search search(gauge, loss_, target_, carrying);
        const arma::mat all = candidates(carrying * unit) / unit;
        for (arma::uword c = 0; c < all.n_cols; ++c) search.offer(all.col(c));
        keep(basis_ * search.run().theta * unit, norms_);
    }

    // Gates on the boundary fit true ones there only if a shift carries one to the other: these shifts are tried, and the
    // search is for shifts that leave all gates inside.
    void shift_in_ball() {
        const double scale = router_.scale;
        const arma::mat carrying = all_contrasts(u_, true_u_);
        const EnclosingBall ball = smallest_enclosing_ball(u_);
        shift_ = basis_ * -ball.center;
        const auto largest = [&](const arma::vec& t) {
            return std::sqrt(arma::sum(arma::square(u_.each_col() + t), 0).max());
        };
        if (!truth_.beta.is_finite())
            for (arma::uword c = 0; c < carrying.n_cols; ++c)
                if (largest(carrying.col(c)) <= scale * (1 + 1e-9)) {
                    const arma::uword i = c % u_.n_cols, j = c / u_.n_cols;
                    keep(truth_.u.col(j) - fit_.u.col(i), norms_);
                }
        if (!(ball.radius < scale * (1 - 3e-8))) return;
        const BallShifts gauge(u_, scale, router_.tau1);
        Search search(gauge, loss_, target_, carrying);
        const double limit = std::max(0.999 * scale, (ball.radius + scale) / 2);
        const arma::mat all = candidates(carrying);
        for (arma::uword c = 0; c < all.n_cols; ++c) {
            const arma::vec t = all.col(c);
            if (largest(t) < scale * (1 - 3e-8)) {
                search.offer(t);
                continue;
            }
            // From the centre as far towards t as the limit allows.
            const arma::vec way = t + ball.center;
            double part = 1;
            for (arma::uword i = 0; i < u_.n_cols; ++i) {
                const arma::vec from = u_.col(i) - ball.center;
                const double a = arma::dot(way, way), b = arma::dot(way, from),
                             c0 = arma::dot(from, from) - limit * limit;
                if (a > 0) part = std::min(part, (-b + std::sqrt(std::max(0.0, b * b - a * c0))) / a);
            }
            search.offer(part * way - ball.center);
        }
        const Found found = search.run();
        if (std::isfinite(found.value)) keep(basis_ * found.theta, norms_);
    }

    // Shifts that keep unit vectors on the sphere turn what they have in common: the part orthogonal to all differences.
    void turn() {
        const double scale = router_.scale;
        const arma::mat unit = u_ / scale;
        const arma::rowvec sizes = arma::sqrt(arma::sum(arma::square(unit), 0));
        value_ = infinity;
        if (sizes.min() > 0.5) {
            arma::mat left, right;
            arma::vec singular;
            arma::mat contrast = unit.each_col() - unit.col(0);
            contrast.insert_cols(contrast.n_cols, arma::mat(unit.n_rows, unit.n_rows, arma::fill::zeros));
            arma::svd(left, singular, right, contrast);
            const arma::uword rank = arma::accu(singular > 1e-10);
            arma::mat free(unit.n_rows, 0);
            if (rank < left.n_cols) free = left.tail_cols(left.n_cols - rank);
            const arma::vec common = free * (free.t() * unit.col(0));
            double radius = arma::norm(common);
            if (radius < 1e-10) free.set_size(unit.n_rows, 0), radius = 0;
            arma::mat fixed = unit;
            if (radius > 0) fixed.each_col() -= common;
            search_rays(Rays(fixed, free, radius), common);
        }
        // A gate that is 0 may be carried to the sphere, and another one to 0.
        if (sizes.min() > 0.5 && arma::all(arma::sum(arma::abs(true_u_), 0) > 0)) return;
        arma::mat shifts = all_contrasts(u_, true_u_);
        shifts.insert_cols(0, arma::mat(-u_));
        shifts.insert_cols(0, arma::vec(u_.n_rows, arma::fill::zeros));
        for (arma::uword c = 0; c < shifts.n_cols; ++c) {
            arma::mat moved = unit.each_col() + shifts.col(c) / scale;
            bool allowed = true;
            for (arma::uword i = 0; i < moved.n_cols; ++i) {
                const double size = arma::norm(moved.col(i));
                if (size < 1e-9) moved.col(i).zeros();
                allowed = allowed && (size < 1e-9 || std::abs(size - 1) < 1e-9);
            }
            if (!allowed) continue;
            keep(basis_ * shifts.col(c), RayChoice(loss_, target_, moved).norms());
        }
    }

    void search_rays(const Rays& gauge, const arma::vec& common) {
        const arma::uword q = gauge.turns(), k = u_.n_cols;
        arma::mat starts(q, 0);
        const auto add = [&](const arma::vec& x) {
            const double size = arma::norm(x);
            if (size > 1e-12) starts.insert_cols(starts.n_cols, x / size);
        };
        if (q > 0) {
            const arma::mat seen = gauge.basis().t() * arma::normalise(true_u_);
            add(gauge.basis().t() * common);
            for (arma::uword j = 0; j < seen.n_cols; ++j) add(seen.col(j));
            add(seen * loss_.true_mass());
            for (arma::uword j = 0; j < std::min(seen.n_cols, most_turned_pairs); ++j)
                for (arma::uword l = 0; l < j; ++l) add(seen.col(j) + seen.col(l)), add(seen.col(j) - seen.col(l));
            starts = arma::join_rows(starts, -starts);
        }
        Search search(gauge, loss_, target_, {});
        const auto offer = [&](const arma::vec& x) {
            const arma::vec theta = arma::join_cols(x, arma::vec(k, arma::fill::zeros));
            search.offer(arma::join_cols(x, RayChoice(loss_, target_, gauge.directions(theta)).norms()));
        };
        if (q == 0) offer({});
        for (arma::uword c = 0; c < starts.n_cols; ++c) offer(starts.col(c));
        if (q > 1) {
            for (int round = 0; round < 5; ++round) {
                const double before = search.best().value;
                search.run();
                offer(search.best().theta.head(q));
                if (!(search.best().value < before * (1 - 1e-12))) break;
            }
        }
        const Found& best = search.best();
        arma::vec turned(u_.n_rows, arma::fill::zeros);
        if (q > 0) turned = router_.scale * (gauge.radius() * (gauge.basis() * best.theta.head(q)) - common);
        keep(basis_ * turned, best.theta.tail(k));
    }

    const Atoms &fit_, &truth_;
    const VoronoiSpec& spec_;
    const RouterSpec& router_;
    std::unique_ptr<const Router> chart_;
    double top_, true_top_;
    CellLoss loss_;
    arma::mat basis_, u_, true_u_, target_;
    arma::vec shift_, norms_;
    double value_ = infinity;
};

}  // namespace

VoronoiLoss aligned_voronoi_loss(const Atoms& fit, const Atoms& truth, const VoronoiSpec& spec,
                                 const RouterSpec& router) {
    return Alignment(fit, truth, spec, router).result();
}

}  // namespace cosmoe
