// Voronoi losses: cases worked by hand, derivatives of the gauges, and the infimum on equal and on random measures.
#include <limits>
#include <random>

#include "check.h"
#include "measure/gauge.h"
#include "measure/voronoi.h"

namespace {

using cosmoe::aligned_voronoi_loss;
using cosmoe::Atoms;
using cosmoe::RouterSpec;
using cosmoe::voronoi_loss;
using cosmoe::VoronoiLoss;
using cosmoe::VoronoiSpec;

arma::mat normal_matrix(arma::uword rows, arma::uword cols, std::mt19937& generator) {
    std::normal_distribution<double> draw;
    arma::mat out(rows, cols);
    for (double& v : out) v = draw(generator);
    return out;
}

Atoms make_atoms(const RouterSpec& router, const arma::vec& bias, const arma::mat& beta, const arma::mat& eta) {
    return {bias, cosmoe::make_router(router)->to_gate(beta), beta, eta};
}

Atoms random_atoms(const RouterSpec& router, arma::uword k, arma::uword d, std::mt19937& generator) {
    return make_atoms(router, normal_matrix(k, 1, generator), normal_matrix(d, k, generator),
                      normal_matrix(d + 1, k, generator));
}

RouterSpec named(const char* name, double scale = 1) {
    RouterSpec out;
    out.name = name;
    out.scale = scale;
    out.tau1 = 0.5;
    return out;
}

void check_by_hand() {
    const RouterSpec router = named("linear");
    const Atoms truth = make_atoms(router, {0, std::log(2.0)}, arma::rowvec{0, 10}, arma::rowvec{0, 0});
    const Atoms fit = make_atoms(router, {std::log(0.5), std::log(0.25)}, arma::rowvec{2, -1}, arma::rowvec{3, 0.5});
    VoronoiSpec spec;
    CHECK_NEAR(voronoi_loss(fit, truth, spec).value, 0.25 + 2 + 1.25 + 1.625, 1e-14);
    spec.squares = true;
    CHECK_NEAR(voronoi_loss(fit, truth, spec).value, 0.25 + 2 + 0.5 * 13 + 0.25 * 1.25, 1e-14);
    spec.counted = 1;
    CHECK_NEAR(voronoi_loss(fit, truth, spec).value, 0.25 + 0.5 * 13 + 0.25 * 1.25, 1e-14);
    // One atom against one: the gates meet, the masses agree, the experts do not.
    const Atoms one = make_atoms(router, {0}, arma::rowvec{5}, arma::rowvec{3.5});
    const Atoms other = make_atoms(router, {std::log(2.0)}, arma::rowvec{1}, arma::rowvec{3});
    const VoronoiLoss loss = aligned_voronoi_loss(one, other, VoronoiSpec(), router);
    CHECK_NEAR(loss.value, 1, 1e-12);
    CHECK_NEAR(loss.shift[0], -4, 1e-12);
    CHECK_NEAR(loss.log_factor, std::log(2.0), 1e-12);
}

// Derivatives of v'gate_i + |gate_i|^2 / 2 along the gauge, against differences.
void check_derivatives(const cosmoe::Gauge& gauge, const arma::vec& theta, std::mt19937& generator) {
    arma::mat gates;
    CHECK(gauge.place(theta, gates));
    const arma::vec v = normal_matrix(gates.n_rows, 1, generator);
    const arma::uword i = gates.n_cols - 1;
    const auto value = [&](const arma::vec& step) {
        arma::mat at;
        CHECK(gauge.place(gauge.move(theta, step), at));
        return arma::dot(v, at.col(i)) + arma::dot(at.col(i), at.col(i)) / 2;
    };
    arma::vec gradient(theta.n_elem, arma::fill::zeros);
    arma::mat hessian(theta.n_elem, theta.n_elem, arma::fill::zeros);
    gauge.pull_back(theta, i, v + gates.col(i), arma::eye(gates.n_rows, gates.n_rows), gradient, hessian);
    const double h = 1e-4;
    for (int trial = 0; trial < 5; ++trial) {
        const arma::vec step = h * arma::normalise(normal_matrix(theta.n_elem, 1, generator));
        const double up = value(step), down = value(-step), middle = value(arma::vec(theta.n_elem, arma::fill::zeros));
        CHECK_NEAR((up - down) / (2 * h), arma::dot(gradient, step) / h, 1e-5);
        CHECK_NEAR((up - 2 * middle + down) / (h * h), arma::dot(step, hessian * step) / (h * h), 1e-4);
    }
}

void check_gauges() {
    std::mt19937 generator(1);
    const arma::mat u = 0.3 * normal_matrix(3, 4, generator);
    check_derivatives(cosmoe::Translations(u), normal_matrix(3, 1, generator), generator);
    check_derivatives(cosmoe::BallShifts(u, 2, 0.5), 0.1 * normal_matrix(3, 1, generator), generator);
    const arma::mat fixed{{0.6, -0.6}, {0, 0}, {0, 0}}, basis{{0, 0}, {1, 0}, {0, 1}};
    arma::vec theta{0.6, 0.8, 0.7, 1.3};
    check_derivatives(cosmoe::Rays(fixed, basis, 0.8), theta, generator);
}

void check_equal_and_random() {
    for (unsigned seed = 1; seed <= 30; ++seed)
        for (const char* name : {"linear", "cosine", "perturbed_cosine"}) {
            std::mt19937 generator(seed);
            const RouterSpec router = named(name, seed % 2 ? 1 : 3);
            const auto chart = cosmoe::make_router(router);
            const arma::uword d = 1 + seed % 4, k = 1 + seed % 5;
            const Atoms truth = random_atoms(router, k, d, generator);
            Atoms same = truth;
            same.bias = arma::reverse(truth.bias) + 0.7;
            same.u = arma::fliplr(truth.u);
            same.eta = arma::fliplr(truth.eta);
            if (router.name == "linear") same.u += 3;
            same.beta = chart->to_beta(same.u);
            const Atoms other = random_atoms(router, 1 + seed % 3, d, generator);
            for (int variant = 0; variant < 8; ++variant) {
                VoronoiSpec spec;
                spec.squares = variant & 1;
                spec.bounded = variant & 2;
                spec.counted = variant & 4 ? (k + 1) / 2 : 0;
                CHECK_NEAR(aligned_voronoi_loss(same, truth, spec, router).value, 0, 1e-10);
                const VoronoiLoss loss = aligned_voronoi_loss(other, truth, spec, router);
                CHECK(loss.value >= 0 && loss.value <= voronoi_loss(other, truth, spec).value * (1 + 1e-12));
                // Literally the loss at the shift returned.
                Atoms moved = other;
                moved.bias += loss.log_factor;
                moved.u.each_col() += loss.shift;
                moved.beta = chart->to_beta(moved.u);
                if (!loss.norms.is_empty()) moved.beta.each_row() %= loss.norms.t();
                CHECK_NEAR(voronoi_loss(moved, truth, spec).value, loss.value, 1e-9 * loss.value);
            }
        }
}

// Two gates at opposite ends of the boundary cannot be shifted inside.
void check_boundary() {
    const RouterSpec router = named("perturbed_cosine");
    const auto chart = cosmoe::make_router(router);
    const arma::mat u{{0.6, -0.6}, {0.8, -0.8}};
    const Atoms fit{{0, 0}, u, chart->to_beta(u), arma::rowvec{1, 2}};
    const Atoms truth = make_atoms(router, {0, 0}, arma::mat{{1, 2}, {3, 4}}, arma::rowvec{1, 2});
    CHECK(aligned_voronoi_loss(fit, truth, VoronoiSpec(), router).value == std::numeric_limits<double>::infinity());
    CHECK_NEAR(aligned_voronoi_loss(fit, fit, VoronoiSpec(), router).value, 0, 1e-15);
    CHECK(aligned_voronoi_loss(truth, fit, VoronoiSpec(), router).value == std::numeric_limits<double>::infinity());
    VoronoiSpec bounded;
    bounded.bounded = true;
    CHECK(std::isfinite(aligned_voronoi_loss(truth, fit, bounded, router).value));
}

}  // namespace

int main() {
    check_by_hand();
    check_gauges();
    check_equal_and_random();
    check_boundary();
    return check::report();
}
