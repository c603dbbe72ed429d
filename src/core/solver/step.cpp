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

// The direction, of length 1, along which a matrix plus a shift curves least, by inverse iteration with its factor.
arma::vec lowest_direction(const arma::mat& upper, const arma::vec& scale) {
    arma::vec v = 1 / arma::sqrt(scale);
    for (arma::uword i = 1; i < v.n_elem; i += 2) v[i] = -v[i];
    for (int i = 0; i < 4; ++i) {
        v = solve_factored(upper, scale % v);
        v /= std::sqrt(arma::dot(v, scale % v));
    }
    return v;
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
        if (excess < 0 && damping - next <= 1e-6 * damping) break;
        damping = next;
    }
    // Hard case: the model curves downwards along a direction (nearly) orthogonal to the gradient. Follow it.
    if (step.ok && too_small > 0 && step.length < (1 - trust_tolerance) * radius && model.factor(step.damping, upper)) {
        const arma::vec v = lowest_direction(upper, model.scale);
        if (arma::dot(v, model.matrix * v) < 0) {
            const double along = arma::dot(step.q, model.scale % v);
            const double root = std::sqrt(along * along + radius * radius - step.length * step.length);
            const arma::vec one = step.q + (root - along) * v, other = step.q - (root + along) * v;
            step.q = model.decrease(one) > model.decrease(other) ? one : other;
        }
    }
    return step;
}

struct BallStep {
    bool ok = false;  // the numbers are finite
    arma::vec q;
    std::vector<bool> pressed;  // balls on whose boundary the solution lies
};

// A local minimum of the model over the balls, by a primal-dual barrier method (Waechter and Biegler, 2006, without
// equalities): with s_j = (radius_j^2 - norm(c_j + q_j)^2) / 2 > 0 and multipliers l_j, Newton steps on
//   gradient + matrix q + sum_j l_j (c_j + q_j) = 0,   l_j s_j = tau,
// that lower the barrier function model - tau sum_j log s_j, while tau falls. Stops within `tolerance` of the decrease.
BallStep interior_point(const Model& model, const std::vector<BallLimit>& balls, double tolerance) {
    const arma::uword count = balls.size();
    BallStep out;
    arma::vec& q = out.q;
    arma::vec slack(count), multiplier(count), squared_radius(count);
    q.zeros(model.gradient.n_elem);
    for (const BallLimit& ball : balls) {  // the last one may cover the others
        const arma::vec v = ball.center + q(block(ball));
        q(block(ball)) = v * std::min(1.0, 0.9 * ball.radius / arma::norm(v)) - ball.center;
    }
    for (arma::uword j = 0; j < count; ++j) {
        const BallLimit& ball = balls[j];
        const double norm = arma::norm(ball.center + q(block(ball)));
        slack[j] = 0.5 * (ball.radius - norm) * (ball.radius + norm);
        squared_radius[j] = ball.radius * ball.radius;
        // The multiplier a ball would have if its present centre were the solution, and some for the others.
        const double gradient = arma::norm(model.gradient(block(ball)));
        const double pull = -arma::dot(ball.center, model.gradient(block(ball))) / squared_radius[j];
        multiplier[j] = std::max({pull, 0.1 * gradient / ball.radius, 1e-8 * arma::mean(model.scale(block(ball)))});
    }
    const double largest = 2 * std::sqrt(arma::max(squared_radius) * arma::max(model.scale));
    double tau = 0.1 * arma::dot(multiplier, slack) / static_cast<double>(count), shift = 0;
    for (int iteration = 0; iteration < 150; ++iteration) {
        arma::mat a = model.matrix;
        const arma::vec slope = model.gradient + model.matrix * q;
        arma::vec descent = -slope, residual = slope;
        for (arma::uword j = 0; j < count; ++j) {
            const arma::span span = block(balls[j]);
            const arma::vec v = balls[j].center + q(span);
            a(span, span) += multiplier[j] / slack[j] * (v * v.t());
            for (arma::uword i = span.a; i <= span.b; ++i) a(i, i) += multiplier[j];
            descent(span) -= tau / slack[j] * v;
            residual(span) += multiplier[j] * v;
        }
        arma::mat upper;
        const double last_shift = shift;
        shift = 0;
        for (int tries = 0; !arma::chol(upper, a); ++tries) {
            if (tries == 60) return out;
            const double more = tries == 0 ? std::max(1e-8, 0.3 * last_shift) : 7 * shift;
            a.diag() += more * model.scale;
            shift += more;
        }
        arma::vec move = solve_factored(upper, descent);
        if (!move.is_finite()) return out;

        // What the present point lacks, as a decrease of the model.
        const double size = std::abs(arma::dot(model.gradient, q)) + std::abs(arma::dot(q, model.matrix * q));
        const double gap = arma::dot(multiplier, slack), lack = arma::dot(residual, solve_factored(upper, residual));
        // Closer to the boundary rounding takes over; the caller puts the step onto it.
        const double enough = std::max(tolerance * size, 1e-12 * arma::dot(multiplier, squared_radius));
        if (shift <= 1e-8 && gap <= enough && lack <= enough) break;

        arma::vec along(count), square(count);
        // The longest step up to 1 along which slack(t) = slack - t along - t^2 square / 2 stays above a hundredth of
        // itself.
        const auto longest_step = [&]() {
            double step = 1;
            for (arma::uword j = 0; j < count; ++j) {
                const arma::vec d = move(block(balls[j]));
                along[j] = arma::dot(balls[j].center + q(block(balls[j])), d), square[j] = arma::dot(d, d);
                const double root = std::sqrt(along[j] * along[j] + 2 * square[j] * 0.99 * slack[j]);
                if (root + along[j] > 0) step = std::min(step, 2 * 0.99 * slack[j] / (root + along[j]));
            }
            return step;
        };
        const bool nearly_solved = arma::dot(descent, move) <= 10 * tau * static_cast<double>(count);
        if (nearly_solved && shift > 1e-8) {
            // A saddle. Away along the direction of most negative curvature, on the side that promises more.
            move = lowest_direction(upper, model.scale);
            const double curvature = arma::dot(move, a * move) - shift;
            const double slope_here = arma::dot(descent, move);
            move *= largest;
            const double ahead = longest_step() * largest;
            move *= -1;
            const double back = longest_step() * largest;
            if (ahead * slope_here - 0.5 * ahead * ahead * curvature >
                -back * slope_here - 0.5 * back * back * curvature)
                move *= -1;
        }
        double step = longest_step();
        const arma::vec change = (tau + multiplier % along) / slack - multiplier;
        double dual = 1;
        for (arma::uword j = 0; j < count; ++j)
            if (change[j] < 0) dual = std::min(dual, -0.99 * multiplier[j] / change[j]);
        // Slacks are carried along, not computed afresh: near the boundary only their changes are exact.
        const double slope_along = arma::dot(descent, move), curve = arma::dot(move, model.matrix * move);
        const double model_slope = arma::dot(slope, move);
        for (int tries = 0; tries < 40; ++tries, step *= 0.5) {
            double fall = -step * model_slope - 0.5 * step * step * curve;
            for (arma::uword j = 0; j < count; ++j)
                fall += tau * std::log1p(-step * (along[j] + 0.5 * step * square[j]) / slack[j]);
            if (fall >= 1e-4 * step * slope_along - 1e-14 * size) break;
        }
        slack -= step * (along + 0.5 * step * square);
        q += step * move;
        multiplier += dual * change;
        // Far from the barrier's path the multipliers are no guide.
        for (arma::uword j = 0; j < count; ++j)
            multiplier[j] = std::min(std::max(multiplier[j], 1e-4 * tau / slack[j]), 1e4 * tau / slack[j]);
        // The next barrier when this one is nearly solved; a higher one when the boundary stops every step.
        if (step < 0.03) tau *= 10;
        else if (nearly_solved && shift <= 1e-8 && step > 0.3)
            tau = 0.1 * std::max(std::min(tau, arma::dot(multiplier, slack) / static_cast<double>(count)),
                                 enough / static_cast<double>(count));
    }
    // Feasible at any rate, if not always to full precision. Of slack and multiplier one is small.
    out.ok = true;
    for (arma::uword j = 0; j < count; ++j)
        out.pressed.push_back(multiplier[j] * squared_radius[j] > slack[j] * arma::mean(model.scale(block(balls[j]))));
    return out;
}

// The same with damping and for all coordinates: those in no ball are eliminated first, since there are many and the
// interior-point method solves again and again.
BallStep over_balls(const Model& model, double damping, const std::vector<BallLimit>& balls) {
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
        if (!arma::chol(upper, rest)) return {};
        half = arma::solve(arma::trimatl(upper.t()), model.matrix(outside, inside), arma::solve_opts::fast);
        half_gradient = solve_lower(upper, model.gradient(outside));
        schur -= half.t() * half;
        gradient -= half.t() * half_gradient;
    }
    const double tolerance = damping > least_damping ? 1e-4 : 1e-14;
    BallStep out = interior_point({schur, gradient, scale}, own, tolerance);
    if (!out.ok) return out;
    arma::vec q(model.gradient.n_elem);
    q(inside) = out.q;
    if (!outside.is_empty())
        q(outside) = -arma::solve(arma::trimatu(upper), half_gradient + half * out.q, arma::solve_opts::fast);
    out.q = q;
    return out;
}

// The step with its pressed balls' points put onto the boundary, and those that cannot be told from it.
arma::vec onto_boundary(const BallStep& step, const std::vector<BallLimit>& balls) {
    arma::vec q = step.q;
    for (std::size_t j = 0; j < balls.size(); ++j) {
        const BallLimit& ball = balls[j];
        const arma::vec v = ball.center + q(block(ball));
        const double norm = arma::norm(v);
        if (norm > 0 && (step.pressed[j] || norm > ball.radius * (1 - 1e-8)))
            q(block(ball)) = v * (ball.radius / norm) - ball.center;
    }
    return q;
}

// A convex model over balls and trust region: the least damping, within a factor, that keeps the step in the trust
// region. Returns the damping, 0 when none was found.
double damped_over_balls(const Model& model, double radius, const std::vector<BallLimit>& balls, double warm,
                         BallStep& step) {
    double too_small = 0, enough = 0, damping = warm > 2 * least_damping ? 0.1 * warm : least_damping;
    for (int tries = 0; tries < 30; ++tries) {
        const BallStep candidate = over_balls(model, damping, balls);
        const double length = candidate.ok ? model.length(candidate.q) : 0;
        if (candidate.ok && length <= (1 + trust_tolerance) * radius) {
            step = candidate, enough = damping;
            if (damping <= 2 * least_damping || length > 0.6 * radius || enough < 2 * too_small) break;
        } else {
            too_small = damping;
        }
        damping = enough == 0 ? std::max(1e-9, 8 * damping)
                              : std::max(least_damping, too_small > 0 ? std::sqrt(too_small * enough) : 0.03 * enough);
    }
    return enough;
}

// A local minimum over balls and trust region of a model that is not convex. In scaled coordinates the trust region is
// one more ball.
BallStep curved_over_balls(const Model& model, double radius, std::vector<BallLimit> balls) {
    const arma::vec root = arma::sqrt(model.scale);
    for (BallLimit& ball : balls) ball.center *= root[ball.first], ball.radius *= root[ball.first];
    balls.push_back({0, arma::zeros<arma::vec>(root.n_elem), radius});
    const arma::mat matrix = model.matrix / (root * root.t());
    const arma::vec gradient = model.gradient / root, ones(root.n_elem, arma::fill::ones);
    BallStep out = interior_point({matrix, gradient, ones}, balls, 1e-3);
    out.q /= root;
    return out;
}

}  // namespace

Step solve_step(const arma::mat& matrix, const arma::vec& gradient, const arma::vec& scale, double radius,
                const std::vector<BallLimit>& balls, double warm_damping) {
    const Model model{matrix, gradient, scale};
    Step step = within_trust_region(model, radius, warm_damping);
    if (!step.ok) return step;
    if (!inside(balls, step.q)) {
        arma::mat upper;
        BallStep within;
        if (model.factor(least_damping, upper))
            step.damping = damped_over_balls(model, radius, balls, step.damping, within);
        else within = curved_over_balls(model, radius, balls);
        // A local minimum may lie above the present point. The convex one of enough damping does not.
        if (!within.ok || model.decrease(within.q) <= 0) {
            BallStep convex;
            const double damping = damped_over_balls(model, radius, balls, step.damping, convex);
            if (convex.ok && (!within.ok || model.decrease(convex.q) > model.decrease(within.q)))
                within = convex, step.damping = damping;
        }
        step.ok = within.ok;
        if (!step.ok) return step;
        step.q = onto_boundary(within, balls);
        if (model.decrease(step.q) < model.decrease(within.q) || model.length(step.q) > (1 + trust_tolerance) * radius)
            step.q = within.q;
        // At a solution rounding decides; staying is no worse.
        if (model.decrease(step.q) < 0) step.q.zeros();
    }
    step.length = model.length(step.q);
    step.limited = step.damping > 1e3 * least_damping || step.length > (1 - trust_tolerance) * radius;
    step.predicted = model.decrease(step.q);
    step.ok = std::isfinite(step.predicted);
    return step;
}

}  // namespace cosmoe
