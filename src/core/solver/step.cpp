#include "solver/step.h"

#include <cmath>
#include <limits>

namespace cosmoe {
namespace {

// Keeps directions the data say nothing about (the gauge) where they are.
constexpr double least_damping = 1e-11;
constexpr int most_iterations = 60;

class Dual {
  public:
    Dual(const arma::mat& matrix, const arma::vec& gradient, const arma::vec& scale, double radius,
         const std::vector<BallLimit>& balls)
        : matrix_(matrix), gradient_(gradient), scale_(scale), radius_(radius), balls_(balls) {}

    arma::uword size() const { return 1 + balls_.size(); }
    double lower(arma::uword j) const { return j == 0 ? least_damping : 0; }
    double limit(arma::uword j) const { return j == 0 ? radius_ : balls_[j - 1].radius; }

    // Solves for q at the multipliers m; false when the matrix is not positive definite.
    bool solve(const arma::vec& m) {
        arma::mat a = matrix_;
        a.diag() += m[0] * scale_;
        arma::vec rhs = -gradient_;
        double constant = -0.5 * m[0] * radius_ * radius_;
        for (arma::uword j = 0; j < balls_.size(); ++j) {
            if (m[j + 1] == 0) continue;
            const BallLimit& ball = balls_[j];
            for (arma::uword i = 0; i < ball.center.n_elem; ++i) {
                a(ball.first + i, ball.first + i) += m[j + 1];
                rhs[ball.first + i] -= m[j + 1] * ball.center[i];
            }
            constant += 0.5 * m[j + 1] * (arma::dot(ball.center, ball.center) - ball.radius * ball.radius);
        }
        if (!arma::chol(factor_, a)) return false;
        q = back_solve(rhs);
        if (!q.is_finite()) return false;
        value = constant - 0.5 * arma::dot(rhs, q);
        norms.set_size(size());
        norms[0] = std::sqrt(arma::dot(q, scale_ % q));
        for (arma::uword j = 0; j < balls_.size(); ++j) norms[j + 1] = arma::norm(inside(j));
        return true;
    }

    // How far constraint j is from what the optimum asks of it, relative to its limit: positive when violated,
    // negative when slack although its multiplier could still fall.
    double violation(arma::uword j, const arma::vec& m) const {
        const double excess = norms[j] / limit(j) - 1;
        return excess < 0 && m[j] <= lower(j) ? 0 : excess;
    }

    // The Newton change of the multipliers in `free`, in the secular form 1/norm = 1/limit that is nearly linear.
    arma::vec newton(const arma::uvec& free) const {
        arma::mat v(q.n_elem, free.n_elem, arma::fill::zeros);
        arma::vec rhs(free.n_elem);
        for (arma::uword f = 0; f < free.n_elem; ++f) {
            const arma::uword j = free[f];
            if (j == 0) v.col(f) = scale_ % q;
            else v.submat(balls_[j - 1].first, f, balls_[j - 1].first + balls_[j - 1].center.n_elem - 1, f) = inside(j - 1);
            rhs[f] = norms[j] * norms[j] * (norms[j] / limit(j) - 1);
        }
        const arma::mat half = arma::solve(arma::trimatl(factor_.t()), v);
        arma::mat s = half.t() * half;
        s.diag() *= 1 + 1e-12;
        arma::vec change;
        if (!arma::solve(change, s, rhs, arma::solve_opts::no_approx)) change = rhs / s.diag();
        return change;
    }

    arma::vec back_solve(const arma::vec& rhs) const {
        return arma::solve(arma::trimatu(factor_), arma::solve(arma::trimatl(factor_.t()), rhs));
    }

    arma::vec q, norms;
    double value = 0;

  private:
    arma::vec inside(arma::uword j) const {
        return balls_[j].center + q.subvec(balls_[j].first, balls_[j].first + balls_[j].center.n_elem - 1);
    }

    const arma::mat& matrix_;
    const arma::vec& gradient_;
    const arma::vec& scale_;
    double radius_;
    const std::vector<BallLimit>& balls_;
    arma::mat factor_;
};

void into_balls(const std::vector<BallLimit>& balls, arma::vec& q) {
    for (const BallLimit& ball : balls) {
        const arma::span span(ball.first, ball.first + ball.center.n_elem - 1);
        const arma::vec point = ball.center + q(span);
        const double norm = arma::norm(point);
        if (norm > ball.radius) q(span) = point * (ball.radius / norm) - ball.center;
    }
}

double decrease(const arma::mat& matrix, const arma::vec& gradient, const arma::vec& q) {
    return -(arma::dot(gradient, q) + 0.5 * arma::dot(q, matrix * q));
}

}  // namespace

Step solve_step(const arma::mat& matrix, const arma::vec& gradient, const arma::vec& scale, double radius,
                const std::vector<BallLimit>& balls, const arma::vec& warm) {
    Dual dual(matrix, gradient, scale, radius, balls);
    Step step;
    arma::vec m(dual.size(), arma::fill::zeros);
    if (warm.n_elem == m.n_elem) m = warm;
    m[0] = std::max(m[0], least_damping);
    double not_definite = 0;  // the largest damping seen that was too small
    for (int tries = 0; !dual.solve(m); ++tries) {
        if (tries > 80) return step;
        not_definite = std::max(not_definite, m[0]);
        m[0] = std::max(1e-8, 8 * m[0]);
    }

    constexpr double ball_tolerance = 1e-10, trust_tolerance = 0.1;
    bool settled = false;
    for (int iteration = 0; iteration < most_iterations && !settled; ++iteration) {
        settled = true;
        std::vector<arma::uword> free;
        for (arma::uword j = 0; j < dual.size(); ++j) {
            const double off = dual.violation(j, m);
            if (std::abs(off) > (j == 0 ? trust_tolerance : ball_tolerance)) settled = false;
            if (off > 0 || m[j] > dual.lower(j)) free.push_back(j);
        }
        if (settled || free.empty()) break;
        const arma::uvec set = arma::conv_to<arma::uvec>::from(free);
        const arma::vec change = dual.newton(set);
        const arma::vec old = m;
        const double old_value = dual.value;
        const arma::vec old_q = dual.q, old_norms = dual.norms;
        bool moved = false;
        for (double t = 1; t > 1e-6; t *= 0.35) {
            for (arma::uword f = 0; f < set.n_elem; ++f)
                m[set[f]] = std::max(dual.lower(set[f]), old[set[f]] + t * change[f]);
            if (m[0] < old[0] && m[0] <= not_definite) m[0] = std::sqrt(std::max(not_definite, least_damping) * old[0]);
            if (!dual.solve(m)) {
                if (m[0] < old[0]) not_definite = std::max(not_definite, m[0]);
                continue;
            }
            if (dual.value >= old_value - 1e-10 * std::abs(old_value)) {
                moved = true;
                break;
            }
        }
        if (!moved) {
            m = old;
            dual.q = old_q, dual.norms = old_norms, dual.value = old_value;
            dual.solve(m);
            break;
        }
        if (arma::approx_equal(m, old, "reldiff", 1e-14)) break;
    }

    step.q = dual.q;
    into_balls(balls, step.q);
    // Hard case: the matrix is indefinite and its negative direction is (nearly) orthogonal to the gradient.
    if (m[0] > 10 * least_damping && dual.norms[0] < (1 - trust_tolerance) * radius) {
        arma::vec v = arma::sqrt(1 / scale);
        for (arma::uword i = 1; i < v.n_elem; i += 2) v[i] = -v[i];
        for (int i = 0; i < 3; ++i) v = dual.back_solve(scale % v), v /= std::sqrt(arma::dot(v, scale % v));
        if (arma::dot(v, matrix * v) < 0) {
            const double along = arma::dot(step.q, scale % v), rest = radius * radius - std::pow(dual.norms[0], 2);
            const double root = std::sqrt(along * along + std::max(0.0, rest));
            for (const double t : {-along - root, -along + root}) {
                arma::vec candidate = step.q + t * v;
                into_balls(balls, candidate);
                if (decrease(matrix, gradient, candidate) > decrease(matrix, gradient, step.q)) step.q = candidate;
            }
        }
    }
    // Approximate multipliers may leave the step longer than the region; the ray back to the current point is feasible.
    step.length = std::sqrt(arma::dot(step.q, scale % step.q));
    if (step.length > 1.5 * radius) {
        step.q *= radius / step.length;
        step.length = radius;
    }
    step.limited = m[0] > 1e3 * least_damping || step.length > (1 - trust_tolerance) * radius;
    step.predicted = decrease(matrix, gradient, step.q);
    step.multipliers = m;
    step.ok = step.q.is_finite();
    return step;
}

}  // namespace cosmoe
