#include "regression/least_squares.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "common/errors.h"
#include "regression/sgd.h"
#include "solver/nlopt_solver.h"
#include "solver/trust_region.h"

namespace cosmoe {
namespace {

// Experts whose parameters differ by less than this, relative to their size, are taken for parts of one.
constexpr double alike = 1;

// Groups of experts that are alike, by single linkage; those without company are left out.
std::vector<std::vector<std::size_t>> companions(const Layout& layout, const arma::vec& theta) {
    const std::size_t k = layout.k(), q = layout.q();
    const auto eta = [&](std::size_t m) { return theta.subvec(layout.eta(m), layout.eta(m) + q - 1); };
    std::vector<std::size_t> group(k);
    for (std::size_t m = 0; m < k; ++m) group[m] = m;
    for (std::size_t i = 0; i < k; ++i)
        for (std::size_t j = 0; j < i; ++j)
            if (arma::norm(eta(i) - eta(j)) < alike * 0.5 * (arma::norm(eta(i)) + arma::norm(eta(j))))
                std::replace(group.begin(), group.end(), std::size_t(group[i]), std::size_t(group[j]));
    std::vector<std::vector<std::size_t>> out;
    for (std::size_t g = 0; g < k; ++g) {
        std::vector<std::size_t> members;
        for (std::size_t m = 0; m < k; ++m)
            if (group[m] == g) members.push_back(m);
        if (members.size() > 1) out.push_back(members);
    }
    return out;
}

class LeastSquares final : public Objective {
  public:
    LeastSquares(const Model& model, const Pass& pass) : model_(model), pass_(pass) {}
    arma::uword size() const override { return static_cast<arma::uword>(model_.layout.size()); }
    Evaluation evaluate(const arma::vec& theta, Order order) override { return pass_.evaluate(theta, order); }

    // In over-specified models a few atoms exp(b_k) delta_omega_k, omega = (u, eta), stand for one, and the objective sees
    // little more than their mass and mean. Along a straight line in (b, omega) the mean bends as soon as mass moves
    // between them; this curve keeps mass and mean as straight as the step means them to be.
    arma::vec move(const arma::vec& theta, const arma::vec& step) override {
        const Layout& layout = model_.layout;
        arma::vec out = theta + step;
        for (const std::vector<std::size_t>& members : companions(layout, theta)) {
            const std::size_t size = members.size();
            arma::vec b(size), db(size);
            for (std::size_t i = 0; i < size; ++i) b[i] = theta[layout.bias(members[i])], db[i] = step[layout.bias(members[i])];
            const auto shares = [](const arma::vec& logit) {
                const arma::vec e = arma::exp(logit - logit.max());
                return arma::vec(e / arma::accu(e));
            };
            const arma::vec share = shares(b), new_share = shares(b + db);
            const double drift = arma::dot(share, db);  // of the log mass
            const arma::vec flow = share % (db - drift);  // of the shares, to first order
            const double mass = b.max() + std::log(arma::accu(arma::exp(b - b.max())));
            for (std::size_t i = 0; i < size; ++i)
                out[layout.bias(members[i])] = mass + drift + std::log(std::max(new_share[i], 1e-300));
            const auto straighten = [&](const std::function<std::size_t(std::size_t)>& at) {
                double mean = 0, reached = 0;
                for (std::size_t i = 0; i < size; ++i) {
                    const std::size_t place = at(members[i]);
                    mean += share[i] * (theta[place] + step[place]) + flow[i] * theta[place];
                    reached += new_share[i] * (theta[place] + step[place]);
                }
                for (std::size_t i = 0; i < size; ++i) out[at(members[i])] += mean - reached;
            };
            for (std::size_t j = 0; j < layout.dz(); ++j) straighten([&](std::size_t m) { return layout.gate(m) + j; });
            for (std::size_t j = 0; j < layout.q(); ++j) straighten([&](std::size_t m) { return layout.eta(m) + j; });
        }
        return out;
    }

  private:
    const Model& model_;
    const Pass& pass_;
};

// Directions that change no prediction: one vector added to every u_k, one number added to every b_k.
arma::mat gauge_directions(const Layout& layout) {
    const std::size_t k = layout.k(), dz = layout.dz();
    arma::mat gauge(layout.size(), dz + 1, arma::fill::zeros);
    for (std::size_t m = 0; m < k; ++m)
        for (std::size_t j = 0; j <= dz; ++j) gauge(layout.gate(m) + j, j) = 1;
    return gauge;
}

Settings solver_settings(const Model& model, const Rows& rows, const FitSettings& settings) {
    Settings out;
    out.max_passes = settings.max_passes;
    out.tolerance = settings.tolerance;
    double weight = 0, sum = 0, squares = 0, used = 0;
    for (std::size_t i = 0; i < rows.n; ++i) {
        const double w = rows.w ? rows.w[i] : 1;
        if (w <= 0) continue;
        weight += w, sum += w * rows.y[i], squares += w * rows.y[i] * rows.y[i], used += 1;
    }
    double total = 0;
    const double mean = weight > 0 ? sum / weight : 0;
    for (std::size_t i = 0; i < rows.n; ++i) {
        const double w = rows.w ? rows.w[i] : 1;
        if (w > 0) total += 0.5 * w * (rows.y[i] - mean) * (rows.y[i] - mean);
    }
    out.total = total > 0 ? total : 1;
    out.response_norm = used > 0 ? std::sqrt(squares / used) : 0;
    out.residual_df = std::max(1.0, used - identifiable_parameters(model));
    return out;
}

}  // namespace

double identifiable_parameters(const Model& model) {
    const Layout& layout = model.layout;
    const double k = static_cast<double>(layout.k()), d = static_cast<double>(layout.dz());
    const double contrasts = (k - 1) * d;
    const bool spheres = model.router->constraint().kind == ConstraintKind::sphere;
    const double gates = spheres && k > 1 ? std::min(k * (d - 1), contrasts) : contrasts;
    return gates + (k - 1) + k * static_cast<double>(layout.q());
}

Fit fit_least_squares(const Model& model, const Rows& rows, const arma::vec& start, const FitSettings& settings,
                      const Hooks& hooks) {
    const Pass pass(model, rows, settings.threads, hooks);
    LeastSquares objective(model, pass);
    const Settings solver = solver_settings(model, rows, settings);
    Fit fit;
    SolverResult& result = fit;
    if (settings.optimizer == "newton")
        result = minimise_trust_region(objective, model.constraints, start, solver, hooks);
    else if (settings.optimizer == "sgd")
        result = minimise_sgd(model, pass, start, settings, hooks);
    else
        result = minimise_nlopt(objective, model.constraints, start, settings.optimizer, solver, hooks);

    // The evidence is computed without hooks: after an interrupt it is one more pass.
    const Hooks none;
    const Pass quiet(model, rows, settings.threads, none);
    const Evaluation at = quiet.evaluate(fit.theta, Order::hessian);
    fit.value = at.value;
    if (std::isfinite(at.value) && at.hessian.is_finite())
        fit.certificate = certify(at, fit.theta, model.constraints, gauge_directions(model.layout), solver);
    if (settings.optimizer != "newton" && fit.status != Status::interrupted &&
        fit.certificate.predicted_decrease <= std::sqrt(settings.tolerance))
        fit.status = Status::converged;
    return fit;
}

}  // namespace cosmoe
