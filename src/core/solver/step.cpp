#include "solver/step.h"

#include <algorithm>
#include <cmath>

namespace cosmoe {
namespace {

// Keeps directions the data say nothing about (the gauge) where they are.
constexpr double least_damping = 1e-11;
constexpr double trust_tolerance = 0.1;

struct Model {
    const arma::mat& matrix;
    const arma::vec &gradient, &scale;

    double decrease(const arma::vec& q) const { return -(arma::dot(gradient, q) + 0.5 * arma::dot(q, matrix * q)); }
    double length(const arma::vec& q) const { return std::sqrt(arma::dot(q, scale % q)); }
    bool factor(double damping, arma::mat& upper) const {
        arma::mat a = matrix;
        a.diag() += damping * scale;
        return arma::chol(upper, a);
    }
};

// upper' x = rhs
arma::vec solve_lower(const arma::mat& upper, const arma::vec& rhs) {
    return arma::solve(arma::trimatl(upper.t()), rhs, arma::solve_opts::fast);
}

arma::vec solve_factored(const arma::mat& upper, const arma::vec& rhs) {
    const arma::vec half = solve_lower(upper, rhs);
    return arma::solve(arma::trimatu(upper), half, arma::solve_opts::fast);
}

// The span of a ball's coordinates.
arma::span block(const BallLimit& ball) { return arma::span(ball.first, ball.first + ball.center.n_elem - 1); }

bool inside(const std::vector<BallLimit>& balls, const arma::vec& q) {
    return std::all_of(balls.begin(), balls.end(),
                       [&](const BallLimit& ball) { return arma::norm(ball.center + q(block(ball))) <= ball.radius; });
}

// Damping and step with norm(D q) within a tenth of the radius, or the least damping when the step is shorter.
Step within_trust_region(const Model& model, double radius, double warm) {
    Step step;
    arma::mat upper;
    double damping = std::max(warm, least_damping), too_small = 0;
    for (int iteration = 0; iteration < 100; ++iteration) {
        if (!model.factor(damping, upper)) {
            too_small = std::max(too_small, damping);
            damping = std::max(1e-8, step.ok ? std::sqrt(too_small * step.damping) : 8 * damping);
            if (step.ok && damping > 0.99 * step.damping) break;
            continue;
        }
        step.q = solve_factored(upper, -model.gradient);
        step.ok = step.q.is_finite();
        if (!step.ok) return step;
        step.damping = damping;
        step.length = model.length(step.q);
        const double excess = step.length / radius - 1;
        if (std::abs(excess) <= trust_tolerance || (excess < 0 && damping <= least_damping)) break;
        // Newton on 1 / length(damping) = 1 / radius, kept above what is known to be too small.
        const arma::vec half = solve_lower(upper, model.scale % step.q);
        double next = damping + step.length * step.length * excess / arma::dot(half, half);
        next = std::max(next, least_damping);
        if (next <= too_small) next = std::sqrt(std::max(too_small, least_damping) * damping);
        if (std::abs(next - damping) <= 1e-6 * damping) break;
        damping = next;
    }
    // Hard case: the model curves downwards along a direction (nearly) orthogonal to the gradient. Follow it.
    if (step.ok && too_small > 0 && step.length < (1 - trust_tolerance) * radius && model.factor(step.damping, upper)) {
        arma::vec v = 1 / arma::sqrt(model.scale);
        for (arma::uword i = 1; i < v.n_elem; i += 2) v[i] = -v[i];
        for (int i = 0; i < 3; ++i) v = solve_factored(upper, model.scale % v), v /= model.length(v);
        if (arma::dot(v, model.matrix * v) < 0) {
            const double along = arma::dot(step.q, model.scale % v);
            const double root = std::sqrt(along * along + radius * radius - step.length * step.length);
            const arma::vec one = step.q + (root - along) * v, other = step.q - (root + along) * v;
            step.q = model.decrease(one) > model.decrease(other) ? one : other;
        }
    }
    return step;
}

// Minimises the model over the balls; false when it is not convex enough there. With s_j = (radius_j^2 - norm(c_j +
// q_j)^2) / 2 > 0 and multipliers l_j, a Newton step on
//   gradient + matrix q + sum_j l_j (c_j + q_j) = 0,   l_j s_j = tau.
bool interior_point(const Model& model, const std::vector<BallLimit>& balls, arma::vec& q) {
    const arma::uword count = balls.size();
    arma::vec slack(count), multiplier(count);
    q.zeros(model.gradient.n_elem);
    for (const BallLimit& ball : balls)
        if (arma::norm(ball.center) > 0.9 * ball.radius) q(block(ball)) = -0.1 * ball.center;
    const auto point = [&](const BallLimit& ball, const arma::vec& at) {
        return arma::vec(ball.center + at(block(ball)));
    };
    for (arma::uword j = 0; j < count; ++j) {
        const BallLimit& ball = balls[j];
        const double norm = arma::norm(point(ball, q));
        slack[j] = 0.5 * (ball.radius - norm) * (ball.radius + norm);
        // The multiplier a ball would have if its present centre were the solution, and some for the others.
        const double gradient = arma::norm(model.gradient(block(ball)));
        const double pull = -arma::dot(ball.center, model.gradient(block(ball))) / (ball.radius * ball.radius);
        multiplier[j] = std::max({pull, 0.01 * gradient / ball.radius, 1e-8 * arma::mean(model.scale(block(ball)))});
    }
    double shift = 0;
    bool convex = true;  // at the last point
    for (int iteration = 0; iteration < 80; ++iteration) {
        const double gap = arma::dot(multiplier, slack);
        const double tau = 0.1 * gap / static_cast<double>(count);
        arma::mat a = model.matrix;
        arma::vec rhs = -(model.gradient + model.matrix * q), residual = rhs;
        for (arma::uword j = 0; j < count; ++j) {
            const arma::span span = block(balls[j]);
            const arma::vec v = point(balls[j], q);
            a(span, span) += multiplier[j] / slack[j] * (v * v.t());
            for (arma::uword i = span.a; i <= span.b; ++i) a(i, i) += multiplier[j];
            rhs(span) -= tau / slack[j] * v;
            residual(span) -= multiplier[j] * v;
        }
        const double size = std::abs(arma::dot(model.gradient, q)) + std::abs(arma::dot(q, model.matrix * q));
        const double error = std::sqrt(arma::accu(arma::square(residual) / model.scale));
        if (gap <= 1e-11 * size && error * error <= 1e-12 * size) return convex;
        const double last_shift = shift;
        shift = 0;
        arma::mat upper;
        bool definite = arma::chol(upper, a);
        // On the way to multipliers that make it so, the matrix may be indefinite: shift it for this iteration.
        for (int tries = 0; !definite && tries < 40; ++tries) {
            shift = std::max({1e-8, 8 * shift, 0.3 * last_shift});
            arma::mat shifted = a;
            shifted.diag() += shift * model.scale;
            definite = arma::chol(upper, shifted);
        }
        if (!definite) return false;
        convex = shift == 0;
        const arma::vec move = solve_factored(upper, rhs);
        if (!move.is_finite()) return false;
        arma::vec change(count);
        for (arma::uword j = 0; j < count; ++j) {
            const double along = arma::dot(point(balls[j], q), move(block(balls[j])));
            change[j] = (tau + multiplier[j] * along) / slack[j] - multiplier[j];
        }
        double t = 1;
        for (arma::uword j = 0; j < count; ++j) {
            if (change[j] < 0) t = std::min(t, -0.99 * multiplier[j] / change[j]);
            const arma::vec v = point(balls[j], q), d = move(block(balls[j]));
            // slack(t) = slack - t v'd - t^2 d'd / 2 stays above a hundredth of itself.
            const double b = arma::dot(v, d), dd = arma::dot(d, d);
            if (dd > 0) t = std::min(t, (std::sqrt(b * b + 2 * dd * 0.99 * slack[j]) - b) / dd);
        }
        // Slacks are carried along, not computed afresh: near the boundary only their changes are exact.
        for (arma::uword j = 0; j < count; ++j) {
            const arma::vec d = move(block(balls[j]));
            slack[j] -= t * arma::dot(point(balls[j], q), d) + 0.5 * t * t * arma::dot(d, d);
        }
        q += t * move;
        multiplier += t * change;
    }
    return convex;  // feasible, if not to full precision
}

// The same with damping and for all coordinates: those in no ball are eliminated first, since there are many and the
// interior-point method solves again and again.
bool over_balls(const Model& model, double damping, const std::vector<BallLimit>& balls, arma::vec& q) {
    std::vector<BallLimit> own;
    arma::uvec inside, outside;
    {
        std::vector<arma::uword> in, out;
        std::vector<bool> covered(model.gradient.n_elem, false);
        for (const BallLimit& ball : balls) {
            own.push_back({static_cast<arma::uword>(in.size()), ball.center, ball.radius});
            for (arma::uword i = 0; i < ball.center.n_elem; ++i)
                covered[ball.first + i] = true, in.push_back(ball.first + i);
        }
        for (arma::uword i = 0; i < covered.size(); ++i)
            if (!covered[i]) out.push_back(i);
        inside = arma::conv_to<arma::uvec>::from(in), outside = arma::conv_to<arma::uvec>::from(out);
    }
    arma::mat schur = model.matrix(inside, inside);
    schur.diag() += damping * model.scale(inside);
    arma::vec gradient = model.gradient(inside);
    const arma::vec scale = model.scale(inside);
    arma::mat upper, half;
    arma::vec half_gradient;
    if (!outside.is_empty()) {
        arma::mat rest = model.matrix(outside, outside);
        rest.diag() += damping * model.scale(outside);
        if (!arma::chol(upper, rest)) return false;
        half = arma::solve(arma::trimatl(upper.t()), model.matrix(outside, inside), arma::solve_opts::fast);
        half_gradient = solve_lower(upper, model.gradient(outside));
        schur -= half.t() * half;
        gradient -= half.t() * half_gradient;
    }
    arma::vec part;
    if (!interior_point({schur, gradient, scale}, own, part)) return false;
    q.set_size(model.gradient.n_elem);
    q(inside) = part;
    if (!outside.is_empty())
        q(outside) = -arma::solve(arma::trimatu(upper), half_gradient + half * part, arma::solve_opts::fast);
    return true;
}

// Points closer to the boundary than can be told from it are put onto it.
void snap(const std::vector<BallLimit>& balls, arma::vec& q) {
    for (const BallLimit& ball : balls) {
        const arma::vec v = ball.center + q(block(ball));
        const double norm = arma::norm(v);
        if (norm > ball.radius * (1 - 1e-8)) q(block(ball)) = v * (ball.radius / norm) - ball.center;
    }
}

// Hard case with balls: damping made the model convex and cut the step short of the trust region. Go on along it,
// pulled back into the balls, for as long as the model itself falls.
void extend(const Model& model, const std::vector<BallLimit>& balls, double radius, arma::vec& q) {
    const arma::vec direction = q;
    double best = model.decrease(q);
    for (double t = 2; t * model.length(direction) <= radius * (1 + trust_tolerance); t *= 2) {
        arma::vec candidate = t * direction;
        for (const BallLimit& ball : balls) {
            const arma::vec v = ball.center + candidate(block(ball));
            const double norm = arma::norm(v);
            if (norm > ball.radius) candidate(block(ball)) = v * (ball.radius / norm) - ball.center;
        }
        const double decrease = model.decrease(candidate);
        if (decrease <= best) break;
        best = decrease, q = candidate;
    }
}

// When all else fails: along the scaled gradient, pulled back into the balls, as far as the model falls. Scales are equal
// within a ball, so that a short enough step lowers the model unless the point is stationary.
arma::vec projected_gradient_step(const Model& model, const std::vector<BallLimit>& balls, double radius) {
    arma::vec direction = -model.gradient / model.scale;
    const double length = model.length(direction);
    if (length > 0) direction *= radius / length;
    for (double t = 1; t > 1e-16; t *= 0.3) {
        arma::vec q = t * direction;
        for (const BallLimit& ball : balls) {
            const arma::vec v = ball.center + q(block(ball));
            const double norm = arma::norm(v);
            if (norm > ball.radius) q(block(ball)) = v * (ball.radius / norm) - ball.center;
        }
        if (model.decrease(q) > 0) return q;
    }
    return arma::zeros<arma::vec>(model.gradient.n_elem);
}

}  // namespace

Step solve_step(const arma::mat& matrix, const arma::vec& gradient, const arma::vec& scale, double radius,
                const std::vector<BallLimit>& balls, double warm_damping) {
    const Model model{matrix, gradient, scale};
    Step step = within_trust_region(model, radius, warm_damping);
    if (!step.ok) return step;
    if (!inside(balls, step.q)) {
        // The least damping, within a factor, that keeps the step in the trust region. It can lie below the one
        // without balls: they shorten steps, and their multipliers make a model convex that is not.
        double too_small = 0, enough = 0,
               damping = step.damping > 2 * least_damping ? 0.1 * step.damping : least_damping;
        arma::vec q, candidate;
        for (int tries = 0; tries < 30; ++tries) {
            const bool fits = over_balls(model, damping, balls, candidate) && model.decrease(candidate) >= 0 &&
                              model.length(candidate) <= (1 + trust_tolerance) * radius;
            if (fits) {
                q = candidate, enough = damping;
                if (damping <= 2 * least_damping || model.length(q) > 0.6 * radius || enough < 3 * too_small) break;
            } else {
                too_small = damping;
            }
            damping = enough == 0
                          ? std::max(1e-9, 8 * damping)
                          : std::max(least_damping, too_small > 0 ? std::sqrt(too_small * enough) : 0.03 * enough);
        }
        damping = enough;
        if (q.is_empty()) q = projected_gradient_step(model, balls, radius);
        step.q = q;
        step.damping = damping;
        extend(model, balls, radius, step.q);
        snap(balls, step.q);
    }
    step.length = model.length(step.q);
    step.limited = step.damping > 1e3 * least_damping || step.length > (1 - trust_tolerance) * radius;
    step.predicted = model.decrease(step.q);
    return step;
}

}  // namespace cosmoe
