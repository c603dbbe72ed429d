// The smallest enclosing ball: cases worked by hand, all supports tried out, and properties of larger ones.
#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "gate/enclosing_ball.h"

namespace {

using cosmoe::EnclosingBall;
using cosmoe::smallest_enclosing_ball;

arma::mat normal_matrix(arma::uword rows, arma::uword cols, std::mt19937& generator) {
    std::normal_distribution<double> draw;
    arma::mat out(rows, cols);
    for (double& v : out) v = draw(generator);
    return out;
}

double farthest(const arma::mat& points, const arma::vec& center) {
    double out = 0;
    for (arma::uword i = 0; i < points.n_cols; ++i) out = std::max(out, arma::norm(points.col(i) - center));
    return out;
}

void check_ball(const arma::mat& points, const arma::vec& center, double radius, double tolerance = 1e-12) {
    const EnclosingBall ball = smallest_enclosing_ball(points);
    CHECK_NEAR(ball.radius, radius, tolerance);
    CHECK(ball.center.n_elem == center.n_elem && arma::norm(ball.center - center) <= tolerance);
    CHECK(ball.radius >= farthest(points, ball.center) - tolerance);
}

void check_by_hand() {
    check_ball(arma::mat{{1.0, 5.0}, {2.0, 2.0}}, {3, 2}, 2);
    check_ball(arma::mat{{0.0, 2.0, 1.0}, {0.0, 0.0, 0.5}}, {1, 0}, 1);  // obtuse triangle
    check_ball(arma::mat{{-1.0, 1.0, 0.0}, {0.0, 0.0, std::sqrt(3.0)}}, {0, 1 / std::sqrt(3.0)}, 2 / std::sqrt(3.0));
    check_ball(arma::mat{{0.0, 1.0, 0.0, 1.0}, {0.0, 0.0, 1.0, 1.0}}, {0.5, 0.5},
               std::sqrt(0.5));  // four on the circle
    check_ball(arma::mat{{0.0, 1.0, 2.0, 7.0}, {0.0, 1.0, 2.0, 7.0}}, {3.5, 3.5}, 3.5 * std::sqrt(2.0));  // on a line
    // One point, one dimension, both; no point at all.
    check_ball(arma::vec{3, -4, 5}, {3, -4, 5}, 0);
    check_ball(arma::rowvec{4, -2, 1, 3}, {1}, 3);
    check_ball(arma::rowvec{7}, {7}, 0);
    check_ball(arma::mat(3, 0), arma::vec(3, arma::fill::zeros), 0);
    CHECK(smallest_enclosing_ball(arma::mat(0, 4)).radius == 0);
    // The same point again and again.
    check_ball(arma::mat(4, 6, arma::fill::ones), arma::vec(4, arma::fill::ones), 0);
    check_ball(arma::mat{{0.0, 2.0, 0.0, 2.0, 0.0}, {1.0, 1.0, 1.0, 1.0, 1.0}}, {1, 1}, 1);
}

// Many points on the sphere: every choice of a support is degenerate.
void check_cospherical() {
    for (const arma::uword d : {2, 3, 5}) {
        const arma::vec origin(d, arma::fill::zeros);
        arma::mat cross(d, 2 * d, arma::fill::zeros), cube(d, arma::uword(1) << d);
        for (arma::uword j = 0; j < d; ++j) cross(j, j) = 1, cross(j, d + j) = -1;
        for (arma::uword i = 0; i < cube.n_cols; ++i)
            for (arma::uword j = 0; j < d; ++j) cube(j, i) = i >> j & 1 ? 1 : -1;
        check_ball(cross, origin, 1);
        check_ball(cube, origin, std::sqrt(static_cast<double>(d)));
        arma::mat simplex(d, d + 1, arma::fill::zeros);  // the axes' ends and the point that completes them
        simplex.head_cols(d).eye();
        simplex.col(d).fill((1 - std::sqrt(1.0 + d)) / d);
        const arma::vec center = arma::mean(simplex, 1);
        check_ball(simplex, center, arma::norm(simplex.col(0) - center));
        std::mt19937 generator(d);
        const arma::mat sphere = arma::normalise(normal_matrix(d, 200, generator));
        check_ball(arma::join_rows(sphere, -sphere), origin, 1, 1e-10);
    }
    arma::mat grid(2, 49);
    for (arma::uword i = 0; i < 49; ++i) grid(0, i) = i % 7, grid(1, i) = i / 7;
    check_ball(grid, {3, 3}, std::sqrt(18.0));
}

// The smallest of the circumscribed balls of all affinely independent subsets that hold all points.
double brute_force(const arma::mat& points) {
    const arma::uword n = points.n_cols, d = points.n_rows;
    double best = std::numeric_limits<double>::infinity();
    for (unsigned set = 1; set < 1U << n; ++set) {
        std::vector<arma::uword> chosen;
        for (arma::uword i = 0; i < n; ++i)
            if (set >> i & 1) chosen.push_back(i);
        if (chosen.size() > d + 1) continue;
        const auto m = static_cast<arma::uword>(chosen.size());
        arma::vec center = points.col(chosen[0]);
        if (m > 1) {
            arma::mat edges(d, m - 1);
            for (arma::uword j = 1; j < m; ++j) edges.col(j - 1) = points.col(chosen[j]) - points.col(chosen[0]);
            if (arma::rank(edges, 1e-9) < m - 1) continue;
            // center = p_0 + edges c with 2 edges' edges c = squared lengths of the edges.
            const arma::vec lengths = arma::sum(arma::square(edges), 0).t();
            center += edges * arma::solve(2 * edges.t() * edges, lengths);
        }
        const double radius = arma::norm(points.col(chosen[0]) - center);
        if (farthest(points, center) <= radius * (1 + 1e-10)) best = std::min(best, radius);
    }
    return best;
}

void check_brute_force() {
    for (unsigned seed = 1; seed <= 40; ++seed)
        for (arma::uword d = 1; d <= 4; ++d)
            for (const arma::uword n : {2, 4, 7}) {
                std::mt19937 generator(1000 * seed + 10 * d + n);
                arma::mat points = normal_matrix(d, n, generator);
                if (seed % 4 == 0) points = arma::round(2 * points);       // ties and duplicates
                if (seed % 4 == 1 && d > 1) points.row(d - 1).fill(0.25);  // flat
                if (seed % 4 == 2) points.col(n - 1) = points.col(0);
                const EnclosingBall ball = smallest_enclosing_ball(points);
                CHECK_NEAR(ball.radius, brute_force(points), 1e-9);
                CHECK(farthest(points, ball.center) <= ball.radius * (1 + 1e-12));
            }
}

// The farthest distance is a convex function of the centre: minimal in all directions close by, it is minimal.
void check_large() {
    for (unsigned seed = 1; seed <= 20; ++seed) {
        std::mt19937 generator(seed);
        const arma::uword d = 2 + seed % 6, n = 10 + 15 * (seed % 5);
        const arma::mat points = normal_matrix(d, n, generator);
        const EnclosingBall ball = smallest_enclosing_ball(points);
        CHECK_NEAR(farthest(points, ball.center), ball.radius, 1e-12);
        bool minimal = true;
        for (int i = 0; i < 500; ++i) {
            const arma::vec moved = ball.center + 1e-4 * arma::normalise(normal_matrix(d, 1, generator));
            minimal = minimal && farthest(points, moved) >= ball.radius - 1e-12;
        }
        CHECK(minimal);

        // Turned, stretched and moved with the points; far from the origin digits are lost, not the ball.
        arma::mat turn, upper;
        arma::qr(turn, upper, normal_matrix(d, d, generator));
        for (const double size : {1e-6, 1.0, 1e6}) {
            const arma::vec offset = 100 * size * arma::normalise(normal_matrix(d, 1, generator));
            const arma::mat moved = (size * turn * points).eval().each_col() + offset;
            const EnclosingBall other = smallest_enclosing_ball(moved);
            CHECK_NEAR(other.radius, size * ball.radius, 1e-11 * size);
            CHECK_NEAR(arma::norm(other.center - (size * turn * ball.center + offset)), 0, 1e-10 * size);
        }
    }
}

}  // namespace

int main() {
    check_by_hand();
    check_cospherical();
    check_brute_force();
    check_large();
    return check::report();
}
