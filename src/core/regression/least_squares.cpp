#include "regression/least_squares.h"

#include <algorithm>
#include <cmath>

#include "regression/model_objective.h"
#include "regression/sgd.h"
#include "solver/nlopt_solver.h"
#include "solver/trust_region.h"

namespace cosmoe {
namespace {

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

Fit fit_least_squares(const Model& model, const Rows& rows, const arma::vec& start, const FitSettings& settings,
                      const Hooks& hooks) {
    const Pass pass(model, rows, settings.threads, hooks);
    ModelObjective objective(model, pass);
    const Settings solver = solver_settings(model, rows, settings);
    Fit fit;
    SolverResult& result = fit;
    if (settings.optimizer == "newton")
        result = minimise_trust_region(objective, model.constraints, start, solver, hooks);
    else if (settings.optimizer == "sgd") result = minimise_sgd(model, pass, start, settings, hooks);
    else result = minimise_nlopt(objective, model.constraints, start, settings.optimizer, solver, hooks);

    if (!settings.certify && fit.status == Status::max_passes) return fit;
    // The evidence is computed without hooks: after an interrupt it is one more pass.
    const Hooks none;
    const Pass quiet(model, rows, settings.threads, none);
    certify_fit(model, quiet, solver, settings.optimizer != "sgd", fit);
    return fit;
}

}  // namespace cosmoe
