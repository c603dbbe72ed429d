// The step problem: minimise gradient'q + q'matrix q / 2 over norm(D q) <= radius and balls. Compared with accelerated
// projected gradient descent, which is slow, simple and knows the exact projection onto the feasible set.
#include <algorithm>
#include <random>
#include <vector>

#include "check.h"
#include "solver/step.h"

namespace {

using namespace cosmoe;

using Generator = std::mt19937;

double uniform(Generator& generator, double from, double to) {
    return std::uniform_real_distribution<double>(from, to)(generator);
}

arma::vec normal_vector(arma::uword size, Generator& generator) {
    std::normal_distribution<double> draw;
    arma::vec out(size);
    for (double& v : out) v = draw(generator);
    return out;
}

arma::mat normal_matrix(arma::uword rows, arma::uword cols, Generator& generator) {
    return arma::reshape(normal_vector(rows * cols, generator), rows, cols);
}

struct Problem {
    arma::mat matrix;
    arma::vec gradient, scale;
    double radius = 1;
    std::vector<BallLimit> balls;

    Step solve(double warm = 0) const { return solve_step(matrix, gradient, scale, radius, balls, warm); }
    double decrease(const arma::vec& q) const { return -(arma::dot(gradient, q) + 0.5 * arma::dot(q, matrix * q)); }
    double length(const arma::vec& q) const { return std::sqrt(arma::dot(q, scale % q)); }
    arma::vec into_balls(arma::vec q) const {
        for (const BallLimit& ball : balls) {
            const arma::span span(ball.first, ball.first + ball.center.n_elem - 1);
            const arma::vec v = ball.center + q(span);
            const double norm = arma::norm(v);
            if (norm > ball.radius) q(span) = v * (ball.radius / norm) - ball.center;
        }
        return q;
    }
    // The nearest feasible point in the norm of D: that of q / (1 + multiplier of the trust region).
    arma::vec project(const arma::vec& q) const {
        arma::vec out = into_balls(q);
        if (length(out) <= radius) return out;
        double low = 0, high = 1;
        while (length(into_balls(q / (1 + high))) > radius) high *= 4;
        for (int i = 0; i < 60; ++i) {
            const double middle = 0.5 * (low + high);
            (length(into_balls(q / (1 + middle))) > radius ? low : high) = middle;
        }
        return into_balls(q / (1 + high));
    }
    double steepness() const {
        const arma::vec root = 1 / arma::sqrt(scale);
        const arma::mat h = matrix % (root * root.t());
        return arma::norm(h, "fro") + 1e-12 * arma::norm(gradient % root) / radius + 1e-300;
    }
    arma::vec descend(const arma::vec& start, int iterations = 800) const {
        const double steep = steepness();
        arma::vec q = project(start), ahead = q;
        double momentum = 1, best = decrease(q);
        for (int i = 0; i < iterations; ++i) {
            const arma::vec next = project(ahead - (gradient + matrix * ahead) / scale / steep);
            const double value = decrease(next);
            if (value < best) {
                if (momentum == 1) break;
                momentum = 1, ahead = q;
                continue;
            }
            const double more = 0.5 * (1 + std::sqrt(1 + 4 * momentum * momentum));
            const arma::vec move = next - q;
            ahead = next + (momentum - 1) / more * move;
            q = next, momentum = more, best = value;
            if (length(move) <= 1e-13 * radius) break;
        }
        return q;
    }
    // Distance a projected gradient step moves q, relative to its length: zero where the conditions of first order
    // (Karush, Kuhn, Tucker) hold.
    double stationarity(const arma::vec& q) const {
        const arma::vec down = (gradient + matrix * q) / scale;
        return length(project(q - down) - q) / (length(gradient / scale) + length(down));
    }
    double rounding() const { return 1e-12 * (length(gradient / scale) + steepness() * radius) * radius; }
};

enum class Shape { definite, singular, gauge, indefinite, concave };
enum class Center { inside, boundary, near_boundary, middle, mixed };

const Shape convex_shapes[] = {Shape::definite, Shape::singular, Shape::gauge};
const Center centers[] = {Center::inside, Center::boundary, Center::near_boundary, Center::middle, Center::mixed};

// One to three balls of one to three coordinates each, up to two coordinates in none, sizes over many orders.
Problem random_problem(Shape shape, Center place, unsigned seed) {
    Generator generator(seed);
    Problem out;
    const bool gauge = shape == Shape::gauge;
    const arma::uword count = 1 + generator() % 3, dim = 1 + generator() % 3, free = generator() % 3;
    std::vector<arma::uword> dims;
    arma::uword n = free;
    for (arma::uword j = 0; j < count; ++j) dims.push_back(gauge ? dim : 1 + generator() % 3), n += dims.back();
    const double size = std::pow(10, uniform(generator, -3, 3));

    const arma::mat a = normal_matrix(n + 2, n, generator);
    switch (shape) {
        case Shape::definite: out.matrix = a.t() * a; break;
        case Shape::singular: out.matrix = a.head_rows((n + 1) / 2).t() * a.head_rows((n + 1) / 2); break;
        case Shape::gauge: {  // flat along translations of all balls
            arma::mat t(n, dim, arma::fill::zeros);
            for (arma::uword j = 0; j < count; ++j)
                for (arma::uword i = 0; i < dim; ++i) t(j * dim + i, i) = 1;
            const arma::mat rest = a - a * t * t.t() / static_cast<double>(count);
            out.matrix = rest.t() * rest;
            break;
        }
        case Shape::indefinite: out.matrix = a.head_rows(n) + a.head_rows(n).t(); break;
        case Shape::concave: out.matrix = -a.t() * a; break;
    }
    out.matrix = size * arma::symmatu(out.matrix);
    out.gradient = size * normal_vector(n, generator);
    out.radius = std::sqrt(size) * std::pow(10, uniform(generator, -1.5, 1.5));
    out.scale.set_size(n);
    for (double& s : out.scale) s = size * std::pow(10, uniform(generator, -2, 2));
    arma::uword first = 0;
    for (arma::uword j = 0; j < count; ++j) {
        const double radius = std::pow(10, uniform(generator, -1, 1)), deep = uniform(generator, 0, 1);
        const double at = place == Center::inside          ? deep
                          : place == Center::boundary      ? 1
                          : place == Center::near_boundary ? 1 - std::pow(10, -2 - 10 * deep)
                          : place == Center::middle        ? 0
                          : generator() % 2 == 0           ? 1
                                                           : deep;
        const arma::vec center = radius * at * arma::normalise(normal_vector(dims[j], generator));
        out.scale.subvec(first, first + dims[j] - 1).fill(out.scale[first]);
        out.balls.push_back({first, center, radius});
        first += dims[j];
    }
    return out;
}

// What every step has to keep.
void check_step(const Problem& p, const Step& step) {
    if (!CHECK(step.ok)) return;
    bool inside = true;
    for (const BallLimit& ball : p.balls) {
        const arma::span span(ball.first, ball.first + ball.center.n_elem - 1);
        inside = inside && arma::norm(ball.center + step.q(span)) <= ball.radius * (1 + 1e-14);
    }
    CHECK(inside);
    CHECK(step.length <= 1.1001 * p.radius);
    CHECK_NEAR(step.length, p.length(step.q), 1e-12 * p.radius);
    CHECK_NEAR(step.predicted, p.decrease(step.q), 1e-12 * std::abs(step.predicted));
    CHECK(step.predicted >= 0);
    CHECK(step.damping >= 0);
}

// --- by hand ------------------------------------------------------------------------------------------------------

void check_by_hand() {
    Problem p;
    p.matrix = arma::eye(2, 2), p.gradient = {-3, -4}, p.scale = {1, 1}, p.radius = 100;
    Step step = p.solve();
    CHECK_NEAR(arma::norm(step.q - arma::vec{3, 4}), 0, 1e-9);
    CHECK_NEAR(step.predicted, 12.5, 1e-9);
    CHECK(!step.limited);

    p.radius = 1;
    step = p.solve();
    check_step(p, step);
    CHECK(step.limited && step.length > 0.9);
    CHECK_NEAR(arma::norm(arma::normalise(step.q) - arma::vec{0.6, 0.8}), 0, 1e-9);

    // One ball: the nearest point of the ball of radius 2 round the origin, from its centre and from its boundary.
    p.radius = 100;
    p.balls = {{0, {0, 0}, 2}};
    CHECK_NEAR(arma::norm(p.solve().q - arma::vec{1.2, 1.6}), 0, 1e-7);
    p.balls = {{0, {-2, 0}, 2}};
    p.gradient = {-5, -4};  // minimum of the model at (3, 4) again, from (-2, 0)
    CHECK_NEAR(arma::norm(p.solve().q - arma::vec{3.2, 1.6}), 0, 1e-7);

    // A free coordinate beside a ball; their coupling moves both.
    p.matrix = {{2, 1}, {1, 2}}, p.gradient = {-4, -5}, p.balls = {{0, {0.5}, 1}};
    CHECK_NEAR(arma::norm(p.solve().q - arma::vec{0.5, 2.25}), 0, 1e-7);
}

// A solution is where no step helps: gradients press outwards on active balls and vanish elsewhere.
void check_at_solution() {
    for (const Shape shape : convex_shapes)
        for (unsigned seed = 1; seed <= 60; ++seed) {
            Problem p = random_problem(shape, seed % 2 == 0 ? Center::boundary : Center::mixed, seed);
            Generator generator(seed);
            const double size = arma::abs(p.matrix).max(), noise = seed % 3 == 0 ? 1e-9 : 0;
            p.gradient = noise * size * normal_vector(p.gradient.n_elem, generator);
            for (const BallLimit& ball : p.balls) {
                if (arma::norm(ball.center) < ball.radius * (1 - 1e-14)) continue;
                const double press = size * uniform(generator, 0.1, 1);
                p.gradient.subvec(ball.first, ball.first + ball.center.n_elem - 1) -= press * ball.center;
            }
            const Step step = p.solve();
            check_step(p, step);
            if (!step.ok) continue;
            const double most = p.decrease(p.descend(arma::vec(p.gradient.n_elem, arma::fill::zeros)));
            CHECK(step.predicted >= 0.5 * most - p.rounding());
        }
}

// --- convex models ------------------------------------------------------------------------------------------------

void check_convex() {
    for (const Shape shape : convex_shapes)
        for (const Center place : centers)
            for (unsigned seed = 1; seed <= 40; ++seed) {
                Problem p = random_problem(shape, place, seed);
                // Gradients in the matrix's range have a minimum to go to, others run to the trust region.
                Generator generator(seed);
                if (seed % 2 == 0) p.gradient = -p.matrix * normal_vector(p.gradient.n_elem, generator);
                const arma::vec zero(p.gradient.n_elem, arma::fill::zeros);
                const double warm = seed % 3 == 0 ? std::pow(10, uniform(generator, -3, 1)) : 0;
                const Step step = p.solve(warm);
                check_step(p, step);
                if (!step.ok) continue;
                // A length within a tenth of the trust region's costs little of the decrease.
                const double most = p.decrease(p.descend(zero));
                CHECK(step.predicted > 0 || most <= p.rounding());
                CHECK(step.predicted >= 0.5 * most - p.rounding());

                // Without the trust region the solution is exact.
                p.radius = 1e3 * p.radius;
                if (shape != Shape::definite) continue;
                const Step exact = p.solve(warm);
                check_step(p, exact);
                if (!exact.ok || exact.limited) continue;
                CHECK_NEAR(p.stationarity(exact.q), 0, 1e-7);
                const arma::vec reference = p.descend(exact.q);
                CHECK(p.decrease(reference) <= exact.predicted * (1 + 1e-9) + p.rounding());
            }
}

// --- models that curve downwards ----------------------------------------------------------------------------------

// The global minimum cannot be promised. Descent is, far from the first point where the gradient vanishes.
void check_indefinite() {
    int poor = 0, all = 0;
    for (const Shape shape : {Shape::indefinite, Shape::concave})
        for (const Center place : centers)
            for (unsigned seed = 1; seed <= 40; ++seed) {
                const Problem p = random_problem(shape, place, 100 + seed);
                const Step step = p.solve();
                check_step(p, step);
                if (!step.ok) continue;
                const double reached = p.decrease(p.descend(arma::vec(p.gradient.n_elem, arma::fill::zeros)));
                poor += step.predicted < 0.5 * reached - p.rounding(), ++all;
            }
    CHECK(poor <= all / 20);
    std::cout << poor << " of " << all << " indefinite problems reach less than half of a local descent\n";
}

// No gradient, or one that is orthogonal to the direction in which the model falls: only curvature leads away.
void check_saddles() {
    Problem p;
    p.matrix = arma::diagmat(arma::vec{2, -1, 1}), p.scale = {1, 1, 1}, p.radius = 3;
    for (const double slope : {0.0, 1e-12, 1e-9, 1e-7, 1e-5, 1.0}) {
        p.gradient = {slope, 0, slope};
        p.balls.clear();
        Step step = p.solve();  // the hard case without balls
        check_step(p, step);
        CHECK(step.predicted >= 0.8 * 4.5);
        p.gradient = {0, slope, 0};  // and all but
        step = p.solve();
        check_step(p, step);
        CHECK(step.predicted >= 0.8 * 4.5);
        p.balls = {{0, {0, 0}, 1.5}};
        for (const arma::vec& gradient : {arma::vec{slope, 0, slope}, arma::vec{0, slope, 0}}) {
            p.gradient = gradient;
            step = p.solve();
            check_step(p, step);
            CHECK(step.predicted >= 0.8 * 0.5 * 2.25);
        }
    }
    // Random saddles and maxima, with gradients that are zero or all but.
    for (const double slope : {0.0, 1e-9})
        for (const Shape shape : {Shape::indefinite, Shape::concave})
            for (unsigned seed = 1; seed <= 40; ++seed) {
                Problem q = random_problem(shape, Center::middle, 200 + seed);
                q.gradient *= slope;
                const arma::vec values = arma::eig_sym(q.matrix);
                if (values.min() > -1e-3 * arma::abs(values).max()) continue;
                const Step step = q.solve();
                check_step(q, step);
                if (step.ok) CHECK(step.predicted > q.rounding());
            }
}

void check_degenerate() {
    // Nothing to do, in no coordinates that matter.
    Problem p;
    p.matrix.zeros(3, 3), p.gradient.zeros(3), p.scale.ones(3);
    p.balls = {{0, {0.6, 0.8}, 1}};
    const Step step = p.solve();
    check_step(p, step);
    CHECK(step.predicted == 0 && step.length == 0);
    // A centre that rounding has put outside its ball.
    p.balls = {{0, arma::vec{0.6, 0.8} * (1 + 4e-16), 1}};
    check_step(p, p.solve());
    p.matrix.eye(3, 3), p.gradient = {-1, 2, -3};
    check_step(p, p.solve());
    // What is not finite has no solution, and says so.
    p.gradient[1] = std::nan("");
    CHECK(!p.solve().ok);
    p.gradient[1] = 0, p.matrix(1, 1) = std::nan("");
    CHECK(!p.solve().ok);
}

}  // namespace

int main() {
    check_by_hand();
    check_at_solution();
    check_convex();
    check_indefinite();
    check_saddles();
    check_degenerate();
    return check::report();
}
