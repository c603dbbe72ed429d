// Fits a mixture of two GELU experts with a perturbed cosine router, from plain C++ without R.
#include <cstdio>
#include <random>

#include "regression/least_squares.h"
#include "regression/parameters.h"

int main() {
    cosmoe::ModelSpec spec;
    spec.router.name = "perturbed_cosine";
    spec.expert.name = "gelu";
    spec.k = 2;
    const std::size_t n = 2000, d = 2;
    const cosmoe::Model model(spec, d, d);
    const cosmoe::Parameters truth{{{0.5, -0.5}, {0.3, -0.3}}, {0.2, -0.2}, {{3, -1}, {0.5, 2.5}, {0.2, -0.4}}};

    std::mt19937 random(1);
    std::normal_distribution<double> normal;
    arma::mat x(n, d);
    for (double& value : x) value = normal(random);
    arma::vec y(n);
    cosmoe::Rows rows;
    rows.n = n, rows.dx = rows.dz = d, rows.x = rows.z = x.memptr(), rows.y = y.memptr();
    const cosmoe::Hooks hooks;
    cosmoe::Prediction prediction;
    prediction.f = y.memptr();
    cosmoe::Pass(model, rows, 1, hooks).predict(cosmoe::pack(model.layout, truth), prediction);
    for (double& value : y) value += 0.1 * normal(random);

    arma::vec start = cosmoe::pack(model.layout, truth);
    for (double& value : start) value += 0.1 * normal(random);
    const cosmoe::Fit fit = cosmoe::fit_least_squares(model, rows, start, {}, hooks);
    std::printf("%s after %d passes, sum of squares %.4f, projected gradient %.1e\n",
                fit.status == cosmoe::Status::converged ? "converged" : "not converged", fit.passes, 2 * fit.value,
                fit.certificate.projected_gradient);
    cosmoe::unpack(model.layout, fit.theta).eta.print("experts (columns; slopes, then intercept):");
    return fit.status == cosmoe::Status::converged ? 0 : 1;
}
