// Routers (feature map, chart, constraint), top-K and the gate's softmax.
#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "common/errors.h"
#include "common/kernels.h"
#include "gate/gate.h"
#include "gate/router.h"
#include "regression/rows.h"

namespace {

using namespace cosmoe;

constexpr double infinity = std::numeric_limits<double>::infinity();

RouterSpec spec(const std::string& name, double scale = 1, double bound = infinity) {
    RouterSpec out;
    out.name = name, out.scale = scale, out.bound_gate = bound;
    out.tau1 = 0.3, out.tau2 = 0.2;
    return out;
}

arma::mat normal_matrix(arma::uword rows, arma::uword cols, std::mt19937& generator) {
    std::normal_distribution<double> draw;
    arma::mat out(rows, cols);
    for (double& v : out) v = draw(generator);
    return out;
}

double largest(const arma::mat& m) { return arma::abs(m).max(); }

// --- charts -------------------------------------------------------------------------------------------------------

void check_charts() {
    std::mt19937 generator(1);
    for (const arma::uword d : {1, 2, 5}) {
        const arma::mat beta = normal_matrix(d, 4, generator);
        for (const double scale : {0.1, 1.0, 20.0}) {
            const auto linear = make_router(spec("linear", scale));
            CHECK(largest(linear->to_gate(beta) - scale * beta) <= 1e-14 * scale);
            CHECK(largest(linear->to_beta(linear->to_gate(beta)) - beta) <= 1e-14);
            CHECK(linear->constraint().kind == ConstraintKind::free);

            const auto cosine = make_router(spec("cosine", scale));
            const arma::mat directions = cosine->to_gate(beta);
            for (arma::uword k = 0; k < 4; ++k) {
                CHECK_NEAR(arma::norm(directions.col(k)), scale, 1e-14 * scale);
                CHECK(largest(directions.col(k) / scale - beta.col(k) / arma::norm(beta.col(k))) <= 1e-14);
            }
            CHECK(largest(cosine->to_gate(cosine->to_beta(directions)) - directions) <= 1e-14 * scale);
            CHECK(cosine->constraint().kind == ConstraintKind::sphere);
            CHECK(cosine->constraint().radius == scale);

            const auto perturbed = make_router(spec("perturbed_cosine", scale));
            const arma::mat u = perturbed->to_gate(beta);
            for (arma::uword k = 0; k < 4; ++k) {
                const double norm = arma::norm(beta.col(k));
                CHECK_NEAR(arma::norm(u.col(k)), scale * norm / (norm + 0.3), 1e-14 * scale);
            }
            CHECK(largest(perturbed->to_beta(u) - beta) <= 1e-13 * largest(beta) * largest(beta));
            CHECK(perturbed->constraint().kind == ConstraintKind::ball);
            CHECK(perturbed->constraint().radius == scale);
        }
    }
}

void check_bounds() {
    const auto linear = make_router(spec("linear", 2, 5));
    CHECK(linear->constraint().kind == ConstraintKind::ball);
    CHECK(linear->constraint().radius == 10);
    const auto perturbed = make_router(spec("perturbed_cosine", 2, 5));
    CHECK_NEAR(perturbed->constraint().radius, 2 * 5 / 5.3, 1e-15);
    // A gate on the bound has a beta of that norm, not an infinite one.
    const arma::mat on_bound = perturbed->constraint().radius * arma::vec{0.6, -0.8};
    CHECK_NEAR(arma::norm(perturbed->to_beta(on_bound).eval()), 5, 1e-12);
    CHECK_THROWS(make_router(spec("nearest")), InvalidArgument);
}

void check_zero_and_boundary() {
    const arma::mat zero(3, 2, arma::fill::zeros);
    for (const char* name : {"linear", "cosine", "perturbed_cosine"}) {
        const auto router = make_router(spec(name, 2));
        CHECK(largest(router->to_gate(zero)) == 0);
        CHECK(largest(router->to_beta(zero)) == 0);
        CHECK(router->pull_back(zero, arma::mat(3, 2, arma::fill::ones)).is_finite());
    }
    const auto perturbed = make_router(spec("perturbed_cosine", 2));
    // On the boundary beta is infinite, in the direction of u; rounding there is no reason for a finite value.
    for (const double norm : {2.0, 2 * (1 - 1e-12), 2 * (1 + 1e-15), 3.0}) {
        const arma::mat beta = perturbed->to_beta(norm * arma::mat{{0.6, 0}, {-0.8, 0}, {0, 1}});
        CHECK(beta(0, 0) == infinity && beta(1, 0) == -infinity && beta(2, 0) == 0);
        CHECK(beta(0, 1) == 0 && beta(1, 1) == 0 && beta(2, 1) == infinity);
    }
    const arma::mat near = perturbed->to_beta(2 * (1 - 1e-6) * arma::vec{0.6, -0.8, 0});
    CHECK_NEAR(arma::norm(near.eval()), 0.3e6, 1);
}

// Norms whose squares over- or underflow, wholly or into the subnormal numbers.
void check_extreme_charts() {
    const arma::vec e = {0.6, 0, -0.8};
    for (const double size : {1e-300, 1e-200, 1e-160, 1e-155, 1e155, 1e200, 1e300}) {
        const arma::mat beta = size * e;
        const arma::mat direction = make_router(spec("cosine", 2))->to_gate(beta);
        CHECK(largest(direction - 2 * e) <= 1e-14);
        const auto perturbed = make_router(spec("perturbed_cosine", 2));
        const arma::mat u = perturbed->to_gate(beta);
        CHECK(largest(u - 2 * e * (size < 1 ? size / 0.3 : 1)) <= 1e-14 * std::min(size, 1.0));
        if (size < 1) CHECK(largest(perturbed->to_beta(u) - beta) <= 1e-14 * size);

        const arma::vec g = {1, 2, 3};
        const arma::vec across = g - arma::dot(g, e) * e;
        // The derivative across beta is s / norm(beta), along it 0 (cosine).
        const arma::mat pulled = make_router(spec("cosine", 2))->pull_back(beta, g);
        CHECK(largest(size * pulled - 2 * across) <= 1e-13);
        // s / (norm + tau1) across, s tau1 / (norm + tau1)^2 along beta.
        const double length = size + 0.3;
        const arma::mat back = perturbed->pull_back(beta, g);
        CHECK(largest(length * (back - 2 / length * across) - 2 * (0.3 / length) * arma::dot(g, e) * e) <= 1e-13);
    }
}

void check_pull_back() {
    std::mt19937 generator(2);
    for (const char* name : {"linear", "cosine", "perturbed_cosine"})
        for (const arma::uword d : {1, 3})
            for (int repeat = 0; repeat < 5; ++repeat) {
                const auto router = make_router(spec(name, 1.7));
                const arma::mat beta = normal_matrix(d, 2, generator), weight = normal_matrix(d, 2, generator);
                const arma::mat pulled = router->pull_back(beta, weight);
                for (arma::uword i = 0; i < beta.n_elem; ++i) {
                    const double h = 1e-5;
                    arma::mat more = beta, less = beta;
                    more[i] += h, less[i] -= h;
                    const double slope = arma::accu(weight % (router->to_gate(more) - router->to_gate(less))) / (2 * h);
                    CHECK_NEAR(pulled[i], slope, 2e-8 * (1 + 1 / arma::dot(beta, beta)));
                }
            }
}

void check_curvature() {
    std::mt19937 generator(5);
    for (const char* name : {"linear", "cosine", "perturbed_cosine"})
        for (const arma::uword d : {1, 3})
            for (int repeat = 0; repeat < 5; ++repeat) {
                const auto router = make_router(spec(name, 1.7));
                const arma::vec beta = normal_matrix(d, 1, generator);
                const arma::cube curvature = router->curvature(beta);
                const double h = 1e-4 * arma::norm(beta);
                for (arma::uword c = 0; c < d; ++c)
                    for (arma::uword b = 0; b < d; ++b) {
                        // The gradient of u_c is what pull_back makes of the unit vector c.
                        arma::vec unit(d, arma::fill::zeros), more = beta, less = beta;
                        unit[c] = 1, more[b] += h, less[b] -= h;
                        const arma::vec slope =
                            (router->pull_back(more, unit) - router->pull_back(less, unit)) / (2 * h);
                        for (arma::uword a = 0; a < d; ++a)
                            CHECK_NEAR(curvature(a, b, c), slope[a], 1e-6 * (1 + 1 / arma::dot(beta, beta)));
                    }
                CHECK(arma::abs(router->curvature(arma::vec(d, arma::fill::zeros))).max() == 0);
            }
}

// --- feature maps -------------------------------------------------------------------------------------------------

// The features of one row z, through the block loader.
arma::vec features(const RouterSpec& router, const arma::vec& z) {
    Rows rows;
    rows.n = 1;
    rows.z = rows.x = z.memptr();
    rows.dz = rows.dx = z.n_elem;
    Buffer x(lane_multiple, z.n_elem + 1), zeta(lane_multiple, z.n_elem + 1);
    load_block(rows, *make_router(router), 0, 1, lane_multiple, nullptr, x, zeta);
    arma::vec out(z.n_elem);
    bool padding = true;
    for (arma::uword j = 0; j <= z.n_elem; ++j) {
        if (j < z.n_elem) out[j] = zeta.col(j)[0];
        for (std::size_t i = 1; i < lane_multiple; ++i) padding = padding && zeta.col(j)[i] == 0 && x.col(j)[i] == 0;
    }
    CHECK(padding);
    CHECK(zeta.col(z.n_elem)[0] == 1 && x.col(z.n_elem)[0] == 1);
    return out;
}

void check_features() {
    const arma::vec e = {0.6, 0, -0.8}, zero(3, arma::fill::zeros);
    for (const double size : {1e-300, 1e-200, 1e-160, 1e-100, 1.0, 5.0, 1e100, 1e155, 1e200, 1e300}) {
        CHECK(largest(features(spec("linear"), size * e) - size * e) == 0);
        CHECK(largest(features(spec("cosine"), size * e) - e) <= 1e-14);
        CHECK(largest(features(spec("perturbed_cosine"), size * e) - size / (size + 0.2) * e) <=
              1e-14 * std::min(size, 1.0));
    }
    CHECK(largest(features(spec("cosine"), zero)) == 0);
    CHECK(largest(features(spec("perturbed_cosine"), zero)) == 0);
    CHECK(features(spec("cosine"), arma::vec{-3})[0] == -1);
}

// Centre and scale come before the feature map; an index picks rows.
void check_loading() {
    std::mt19937 generator(3);
    const arma::mat x = normal_matrix(20, 2, generator), z = normal_matrix(20, 3, generator);
    Rows rows;
    rows.n = 20;
    rows.x = x.memptr(), rows.dx = 2, rows.z = z.memptr(), rows.dz = 3;
    rows.x_center = {1, -1}, rows.x_scale = {2, 0.5};
    rows.z_center = {0.5, 0, -2}, rows.z_scale = {4, 1, 0.1};
    const auto router = make_router(spec("perturbed_cosine"));
    const std::vector<std::size_t> index = {19, 3, 3, 0, 7, 11};
    for (const bool by_index : {false, true}) {
        Buffer bx(8, 3), zeta(8, 4);
        load_block(rows, *router, 1, 5, 8, by_index ? index.data() : nullptr, bx, zeta);
        for (std::size_t i = 0; i < 5; ++i) {
            const auto row = static_cast<arma::uword>(by_index ? index[1 + i] : 1 + i);
            const arma::vec scaled = (z.row(row).t() - rows.z_center) / rows.z_scale;
            for (arma::uword j = 0; j < 2; ++j)
                CHECK_NEAR(bx.col(j)[i], (x(row, j) - rows.x_center[j]) / rows.x_scale[j], 1e-14);
            for (arma::uword j = 0; j < 3; ++j)
                CHECK_NEAR(zeta.col(j)[i], scaled[j] / (arma::norm(scaled) + 0.2), 1e-14);
            CHECK(bx.col(2)[i] == 1 && zeta.col(3)[i] == 1);
        }
        for (std::size_t i = 5; i < 8; ++i) CHECK(bx.col(0)[i] == 0 && bx.col(2)[i] == 0 && zeta.col(1)[i] == 0);
    }
}

// --- softmax and top-K --------------------------------------------------------------------------------------------

struct Gate {
    Buffer logit, p;
};

// One row per column of `score`, padded to lanes.
Gate gate(const arma::mat& score, const std::vector<double>& bias, std::size_t top_k) {
    const std::size_t k = score.n_rows, n = 8;
    Gate out{Buffer(n, k), Buffer(n, k)};
    Buffer mask(n, k);
    for (std::size_t c = 0; c < k; ++c)
        for (std::size_t r = 0; r < score.n_cols; ++r)
            out.logit.col(c)[r] = score(static_cast<arma::uword>(c), static_cast<arma::uword>(r));
    gate_probabilities(out.logit, bias.data(), k, n, top_k, mask, out.p);
    return out;
}

void check_dense() {
    const std::vector<double> bias = {0, std::log(2.0), std::log(5.0)};
    const Gate g = gate({{0, 1000, -1e308}, {0, 0, 0}, {0, -1000, 1e308}}, bias, 0);
    CHECK_NEAR(g.p.col(0)[0], 0.125, 1e-16);
    CHECK_NEAR(g.p.col(1)[0], 0.25, 1e-16);
    CHECK_NEAR(g.p.col(2)[0], 0.625, 2e-16);
    CHECK(g.p.col(0)[1] == 1 && g.p.col(1)[1] == 0 && g.p.col(2)[1] == 0);
    CHECK(g.p.col(0)[2] == 0 && g.p.col(1)[2] == 0 && g.p.col(2)[2] == 1);
    CHECK(g.logit.col(2)[0] == bias[2]);
    // As many as there are, or more: dense.
    for (const std::size_t top_k : {3, 7}) CHECK(gate({{0, 1}, {0, 0}, {0, 2}}, bias, top_k).p.col(0)[0] > 0);
    CHECK(gate(arma::vec{3}, {1}, 0).p.col(0)[0] == 1);
}

void check_top_k() {
    // Ties go to the lower index, also among equal zeros of different sign.
    const arma::mat score = {{1, 0, 0.0, 3}, {1, 2, -0.0, 1}, {1, 2, 0.0, 3}, {1, 2, -0.0, 3}};
    const std::vector<double> none(4, 0.0);
    const std::vector<std::vector<std::size_t>> first = {{0}, {1}, {0}, {0}}, two = {{0, 1}, {1, 2}, {0, 1}, {0, 2}},
                                                three = {{0, 1, 2}, {1, 2, 3}, {0, 1, 2}, {0, 2, 3}};
    for (const std::size_t top_k : {1, 2, 3}) {
        const Gate g = gate(score, none, top_k);
        const auto& chosen = top_k == 1 ? first : top_k == 2 ? two : three;
        for (std::size_t r = 0; r < 4; ++r) {
            double sum = 0;
            for (std::size_t c = 0; c < 4; ++c) {
                const bool in = std::find(chosen[r].begin(), chosen[r].end(), c) != chosen[r].end();
                CHECK((g.p.col(c)[r] > 0) == in);
                sum += g.p.col(c)[r];
            }
            CHECK_NEAR(sum, 1, 1e-15);
        }
    }
    // The choice is by the score alone: a bias cannot bring an expert in, only weigh it.
    const Gate g = gate(arma::vec{2, 1, 0}, {-50, 0, 1000}, 2);
    CHECK_NEAR(g.p.col(1)[0], 1 / (1 + std::exp(-49)), 1e-15);
    CHECK_NEAR(g.p.col(0)[0], std::exp(-49), 1e-30);
    CHECK(g.p.col(2)[0] == 0);
    CHECK(g.logit.col(2)[0] == 1000);
    // Whatever the scores, exactly top_k experts take part.
    std::mt19937 generator(4);
    std::uniform_int_distribution<int> draw(-2, 2);
    for (int repeat = 0; repeat < 50; ++repeat) {
        arma::mat ties(5, 8);
        for (double& v : ties) v = draw(generator);
        for (std::size_t top_k = 1; top_k < 5; ++top_k) {
            const Gate some = gate(ties, std::vector<double>(5, 0.0), top_k);
            for (std::size_t r = 0; r < 8; ++r) {
                std::size_t used = 0;
                for (std::size_t c = 0; c < 5; ++c) used += some.p.col(c)[r] > 0;
                CHECK(used == top_k);
            }
        }
    }
}

}  // namespace

int main() {
    check_charts();
    check_bounds();
    check_zero_and_boundary();
    check_extreme_charts();
    check_pull_back();
    check_curvature();
    check_features();
    check_loading();
    check_dense();
    check_top_k();
    return check::report();
}
