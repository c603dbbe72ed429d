// Triangular factors of the derivative functions: against values computed here, over blocks, and for host's experts.
#include <cmath>
#include <random>

#include "check.h"
#include "common/errors.h"
#include "measure/identifiability.h"

namespace {

using namespace cosmoe;

arma::mat normal_matrix(arma::uword rows, arma::uword cols, std::mt19937& generator) {
    std::normal_distribution<double> draw;
    arma::mat out(rows, cols);
    for (double& v : out) v = draw(generator);
    return out;
}

ModelSpec tanh_spec(const char* router, std::size_t k) {
    ModelSpec spec;
    spec.router.name = router;
    spec.router.scale = 2;
    spec.router.tau1 = 0.4;
    spec.router.tau2 = 0.3;
    spec.expert.name = "tanh";
    spec.k = k;
    return spec;
}

Rows rows_of(const arma::mat& x) {
    Rows rows;
    rows.n = x.n_rows;
    rows.x = rows.z = x.memptr();
    rows.dx = rows.dz = x.n_cols;
    return rows;
}

Atoms atoms_of(std::size_t k, arma::uword d, std::mt19937& generator) {
    const auto columns = static_cast<arma::uword>(k);
    return {normal_matrix(columns, 1, generator), normal_matrix(d, columns, generator),
            normal_matrix(d + 1, columns, generator)};
}

double difference(const arma::mat& factor, const arma::mat& values) {
    return arma::abs(factor.t() * factor - values.t() * values).max() / (values.t() * values).max();
}

// First derivatives written down for the linear router: exp(s beta'x) (s x h, h' x, h').
void check_first_derivatives() {
    std::mt19937 generator(1);
    for (const arma::uword n : {10, 256, 1000}) {
        const arma::mat x = normal_matrix(n, 2, generator);
        const Atoms atoms = atoms_of(2, 2, generator);
        const Model model(tanh_spec("linear", 2), 2, 2);
        arma::mat values(n, 10);
        for (arma::uword i = 0; i < 2; ++i) {
            const arma::vec eta = atoms.eta.col(i), score = 2 * x * atoms.beta1.col(i);
            const arma::vec h = arma::tanh(x * eta.head(2) + eta[2]), slope = 1 - h % h;
            const arma::vec gate = arma::exp(score - score.max());
            for (arma::uword j = 0; j < 2; ++j) {
                values.col(5 * i + j) = 2 * gate % x.col(j) % h;
                values.col(5 * i + 2 + j) = gate % x.col(j) % slope;
            }
            values.col(5 * i + 4) = gate % slope;
        }
        const DerivativeFactors factors = derivative_factors(model, rows_of(x), atoms, 1, Hooks{});
        CHECK(factors.functions.n_cols == 10 && factors.regression.n_cols == 12);
        CHECK(difference(factors.functions, values) <= 1e-13);
    }
}

// A host's tanh expert, whose second derivatives are differences.
void check_host_expert() {
    std::mt19937 generator(2);
    const arma::mat x = normal_matrix(50, 2, generator);
    const Atoms atoms = atoms_of(3, 2, generator);
    for (const char* router : {"linear", "cosine", "perturbed_cosine"}) {
        ModelSpec host = tanh_spec(router, 3);
        host.expert.name = "custom";
        host.expert.n_par = 3;
        host.expert.custom = [](const double* at, std::size_t ldx, std::size_t n, std::size_t d, const double* eta,
                                double* value, double* gradient, std::size_t ld) {
            for (std::size_t i = 0; i < n; ++i) {
                double t = eta[d];
                for (std::size_t j = 0; j < d; ++j) t += eta[j] * at[j * ldx + i];
                value[i] = std::tanh(t);
                if (!gradient) continue;
                for (std::size_t j = 0; j <= d; ++j)
                    gradient[j * ld + i] = (1 - value[i] * value[i]) * (j < d ? at[j * ldx + i] : 1);
            }
        };
        const DerivativeFactors own = derivative_factors(Model(host, 2, 2), rows_of(x), atoms, 2, Hooks{});
        const DerivativeFactors exact =
            derivative_factors(Model(tanh_spec(router, 3), 2, 2), rows_of(x), atoms, 2, Hooks{});
        CHECK(difference(own.functions, exact.functions) <= 1e-10);
        CHECK(difference(own.regression, exact.regression) <= 1e-13);
    }
}

void check_refusals() {
    std::mt19937 generator(3);
    const arma::mat x = normal_matrix(50, 2, generator);
    const Model model(tanh_spec("cosine", 2), 2, 2);
    const Atoms atoms = atoms_of(2, 2, generator);
    CHECK_THROWS(derivative_factors(model, rows_of(x), atoms, 3, Hooks{}), InvalidArgument);
    CHECK_THROWS(derivative_factors(model, rows_of(x), atoms_of(3, 2, generator), 1, Hooks{}), InvalidArgument);
    Atoms huge = atoms;
    huge.eta(0, 0) = arma::datum::nan;
    CHECK_THROWS(derivative_factors(model, rows_of(x), huge, 1, Hooks{}), Error);
    Hooks stop;
    stop.interrupted = [] { return true; };
    CHECK_THROWS(derivative_factors(model, rows_of(x), atoms, 1, stop), Interrupted);
}

}  // namespace

int main() {
    check_first_derivatives();
    check_host_expert();
    check_refusals();
    return check::report();
}
