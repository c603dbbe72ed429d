#include "regression/least_squares.h"

#include <algorithm>
#include <cmath>

#include "common/errors.h"
#include "regression/model_objective.h"
#include "regression/sgd.h"
#include "solver/nlopt_solver.h"
#include "solver/trust_region.h"

namespace cosmoe {
namespace {

Settings solver_settings(const Model& model, const RowTotals& rows, const FitSettings& settings) {
    Settings out;
    out.max_passes = settings.max_passes;
    out.tolerance = settings.tolerance;
    out.total = rows.deviation > 0 ? 0.5 * rows.deviation : 1;
    out.response_norm = rows.used > 0 ? std::sqrt(rows.squares / rows.used) : 0;
    out.residual_df = std::max(1.0, rows.used - identifiable_parameters(model));
    return out;
}

// The evidence, unless it is not wanted.
void judge(const Model& model, const RowSums& rows, const FitSettings& settings, Fit& fit) {
    if (!settings.certify && fit.status == Status::max_passes) return;
    certify_fit(model, rows.judge, solver_settings(model, rows.totals, settings), settings.optimizer != "sgd", fit);
}

}  // namespace

Fit fit_least_squares(const Model& model, const RowSums& rows, const arma::vec& start, const FitSettings& settings,
                      const Hooks& hooks) {
    if (settings.optimizer == "sgd") throw InvalidArgument("stochastic gradient descent needs the rows in memory");
    ModelObjective objective(model, rows.search);
    Settings solver = solver_settings(model, rows.totals, settings);
    solver.cheap_values = rows.in_memory;
    Fit fit;
    SolverResult& result = fit;
    if (settings.optimizer == "newton")
        result = minimise_trust_region(objective, model.constraints, start, solver, hooks);
    else result = minimise_nlopt(objective, model.constraints, start, settings.optimizer, solver, hooks);
    judge(model, rows, settings, fit);
    return fit;
}

Fit fit_least_squares(const Model& model, const Rows& rows, const arma::vec& start, const FitSettings& settings,
                      const Hooks& hooks) {
    const Pass pass(model, rows, settings.threads, hooks);
    // The evidence is computed without hooks: after an interrupt it is one more pass.
    const Hooks none;
    const Pass quiet(model, rows, settings.threads, none);
    const RowSums sums{evaluator_of(pass), evaluator_of(quiet), row_totals(rows)};
    if (settings.optimizer != "sgd") return fit_least_squares(model, sums, start, settings, hooks);
    Fit fit;
    static_cast<SolverResult&>(fit) = minimise_sgd(model, pass, start, settings, hooks);
    judge(model, sums, settings, fit);
    return fit;
}

}  // namespace cosmoe
