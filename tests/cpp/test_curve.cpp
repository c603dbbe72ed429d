// The curves along which the solver moves the atoms of a mixture, and what they add to the Hessian.
#include <cmath>
#include <random>

#include "check.h"
#include "regression/model_objective.h"

namespace {

using namespace cosmoe;

struct Problem {
    Model model;
    ModelObjective objective;
    arma::vec theta, step, gradient;
    std::mt19937 generator;

    static ModelSpec spec(const std::string& router) {
        ModelSpec out;
        out.k = 3;
        out.router.name = router;
        out.expert.name = "gelu";
        return out;
    }
    arma::vec draw() {
        std::normal_distribution<double> normal;
        arma::vec out(theta.n_elem);
        for (double& v : out) v = normal(generator);
        return out;
    }
    // Numbers added to all biases, and vectors to all gates, change nothing.
    arma::vec without_gauge(arma::vec v) const {
        const Layout& layout = model.layout;
        for (std::size_t j = 0; j <= layout.dz(); ++j) {
            double mean = 0;
            for (std::size_t m = 0; m < layout.k(); ++m) mean += v[layout.gate(m) + j] / 3;
            for (std::size_t m = 0; m < layout.k(); ++m) v[layout.gate(m) + j] -= mean;
        }
        return v;
    }
    Problem(const std::string& router, unsigned seed)
        : model(spec(router), 2, 3),
          objective(model, evaluator),
          theta(model.layout.size()),
          generator(seed) {
        theta = 0.3 * draw();
        step = draw();
        gradient = without_gauge(draw());
    }
    double along(double t) { return arma::dot(gradient, objective.move(theta, t * step)); }

    static const Evaluator evaluator;
};

const Evaluator Problem::evaluator = [](const arma::vec&, Order) { return Evaluation(); };

}  // namespace

int main() {
    for (const char* router : {"linear", "perturbed_cosine"}) {
        for (unsigned seed = 1; seed <= 20; ++seed) {
            Problem p(router, seed);
            const double h = 2e-4, here = p.along(0);
            CHECK_NEAR((p.along(h) - p.along(-h)) / (2 * h), arma::dot(p.gradient, p.step), 1e-4);
            const arma::mat bend = p.objective.bend(p.theta, p.gradient);
            CHECK_NEAR(arma::norm(bend - bend.t()), 0, 1e-14);
            const double second = (p.along(h) - 2 * here + p.along(-h)) / (h * h);
            CHECK_NEAR(second / (1 + std::abs(second)), arma::dot(p.step, bend * p.step) / (1 + std::abs(second)),
                       1e-4);

            // A step with a gauge in it leads to the same function.
            const Layout& layout = p.model.layout;
            arma::vec shifted = p.step;
            for (std::size_t j = 0; j <= layout.dz(); ++j)
                for (std::size_t m = 0; m < 3; ++m) shifted[layout.gate(m) + j] += 0.7 + 0.2 * static_cast<double>(j);
            const arma::vec one = p.without_gauge(p.objective.move(p.theta, p.step));
            const arma::vec other = p.without_gauge(p.objective.move(p.theta, shifted));
            CHECK_NEAR(arma::norm(one - other), 0, 1e-12);

            // Steps that change logits by far more than masses are straight.
            const arma::vec long_step = 1e3 * p.step;
            const arma::vec line = p.without_gauge(p.theta + long_step);
            CHECK_NEAR(arma::norm(p.without_gauge(p.objective.move(p.theta, long_step)) - line), 0, 1e-9);

            // An expert that grows as its mass shrinks keeps their product, on its way to infinity as well.
            for (const double far : {0.1, 0.9, 2.0}) {
                arma::vec away(p.theta.n_elem, arma::fill::zeros);
                double rest = 0, own = std::exp(p.theta[layout.bias(0)]);
                for (std::size_t m = 1; m < 3; ++m) rest += std::exp(p.theta[layout.bias(m)]);
                for (std::size_t m = 1; m < 3; ++m) away[layout.bias(m)] = far * own / rest;
                away[layout.bias(0)] = -far;  // and no drift of all mass
                for (std::size_t j = 0; j < layout.q(); ++j) away[layout.eta(0) + j] = far * p.theta[layout.eta(0) + j];
                const arma::vec there = p.objective.move(p.theta, away);
                for (std::size_t j = 0; j < layout.q(); ++j) {
                    const std::size_t at = layout.eta(0) + j;
                    const double before = own * p.theta[at], after = std::exp(there[layout.bias(0)]) * there[at];
                    CHECK_NEAR(after / before, 1, 1e-12);
                }
            }
        }
    }
    return check::report();
}
