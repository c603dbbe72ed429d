#include "regression/em.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "common/errors.h"
#include "regression/thinned.h"
#include "solver/geometry.h"
#include "solver/nlopt_solver.h"
#include "solver/trust_region.h"

namespace cosmoe {
namespace {

// The likelihood of a mixture has spurious maxima, where an expert passes through a few rows. EM climbs the hill on which
// it starts; Newton's steps may leave it. So a hybrid fit takes the exact Hessian only once steps gain less than this,
// or after so many passes.
constexpr double slow_gain = 2;
constexpr int patience = 50;

// One iteration of EM is a few Newton steps on the expected likelihood, whose gate part is concave and separate from
// the experts'. Two steps nearly maximise it; the rest is for iterations that start far off.
constexpr int expected_passes = 4;

class Em {
  public:
    Em(const Model& model, const Family& family, const Rows& rows, const EmSettings& settings, const Settings& solver,
       const Hooks& hooks)
        : model_(model),
          family_(family),
          rows_(rows),
          settings_(settings),
          solver_(solver),
          hooks_(hooks),
          observed_(family, Information::complete),
          pass_(model, rows, settings.threads, hooks, observed_) {}

    double value(const arma::vec& theta) const { return pass_.evaluate(theta, Order::value).value; }

    // The next iterate, with its value: never above that of theta.
    void iterate(SolverResult& at) const {
        const LikelihoodCriterion expected(family_, at.theta);
        const Pass pass(model_, rows_, settings_.threads, hooks_, expected);
        const Evaluator sums = evaluator_of(pass);
        ModelObjective objective(model_, sums);
        Settings inner = solver_;
        inner.max_passes = expected_passes;
        const SolverResult step = minimise_trust_region(objective, model_.constraints, at.theta, inner, hooks_);
        if (step.status == Status::interrupted) throw Interrupted();
        at.probes += step.probes;
        accept(at, step.theta, step.passes);
    }

    // Takes `theta` if it is no worse.
    bool accept(SolverResult& at, const arma::vec& theta, int passes) const {
        const double there = value(theta);
        at.passes += passes;
        const bool better = std::isfinite(there) && there <= at.value;
        if (better) at.theta = theta, at.value = there;
        at.trace.push_back(at.value);
        return better;
    }

    // Two iterations and an extrapolation along both (SQUAREM's third scheme, Varadhan and Roland, 2008), kept if it
    // is no worse than where they led.
    void accelerated(SolverResult& at) const {
        const arma::vec start = at.theta;
        iterate(at);
        const arma::vec first = at.theta - start;
        const arma::vec middle = at.theta;
        iterate(at);
        const arma::vec bend = (at.theta - middle) - first;
        const double size = arma::norm(bend);
        if (!(size > 0)) return;
        const double length = -std::max(1.0, arma::norm(first) / size);
        if (length == -1) return;
        accept(at, project(start - 2 * length * first + length * length * bend, model_.constraints), 0);
    }

    const Pass& pass() const { return pass_; }

  private:
    const Model& model_;
    const Family& family_;
    const Rows& rows_;
    const EmSettings& settings_;
    const Settings& solver_;
    const Hooks& hooks_;
    const LikelihoodCriterion observed_;
    const Pass pass_;
};

Settings solver_settings(const RowTotals& rows, const FitSettings& settings) {
    Settings out;
    out.likelihood = true;
    out.max_passes = settings.max_passes;
    out.tolerance = settings.tolerance;
    out.weight = rows.weight;
    out.total = std::max(out.weight, 1e-300);
    return out;
}

// Moves a start nearer to the solution; true if the exact Hessian may then come first (see approach()).
using Approach = std::function<bool(const Settings&, SolverResult&)>;

// `em`: what makes the steps of pure EM, or null for the observed likelihood's.
Fit maximise(const Model& model, const RowSums& rows, const Em* em, const Approach& approach, const arma::vec& start,
             const EmSettings& settings, const Hooks& hooks) {
    Settings solver = solver_settings(rows.totals, settings);
    solver.cheap_values = rows.in_memory;
    Fit fit;
    SolverResult& result = fit;
    fit.theta = project(start, model.constraints);
    fit.value = std::numeric_limits<double>::infinity();
    const bool newton = settings.optimizer == "newton", direct = newton && !em;
    if (!direct) {
        fit.value = rows.judge(fit.theta, Order::value).value;
        fit.trace.push_back(fit.value);
        if (!std::isfinite(fit.value)) {
            fit.message = "the likelihood is not finite at the start";
            return fit;
        }
    }
    try {
        fit.status = Status::max_passes;
        fit.message = "the limit of passes was reached";
        double asked = std::numeric_limits<double>::infinity();
        while (em && fit.passes < solver.max_passes) {
            const double before = fit.value;
            em->accelerated(fit);
            const double gain = before - fit.value;
            // EM crawls: the certificate, not the gain, says when it has arrived.
            if (gain >= std::min(solver.unit(fit.value), 0.5 * asked)) continue;
            Fit now = fit;
            now.status = Status::stalled;
            certify_fit(model, rows.judge, solver, true, now);
            fit.passes += 1;
            asked = gain;
            if (now.status == Status::converged || gain <= solver.rounding(fit.value)) {
                fit.status = Status::stalled;
                fit.message = "EM makes no further progress";
                break;
            }
        }
        if (!em) {
            ModelObjective objective(model, rows.search);
            Settings rest = solver;
            rest.exact_below = slow_gain, rest.exact_after = patience;
            if (direct && approach) rest.exact_first = approach(rest, fit);
            rest.max_passes = std::max(1, solver.max_passes - fit.passes);
            SolverResult finish =
                newton ? minimise_trust_region(objective, model.constraints, fit.theta, rest, hooks)
                       : minimise_nlopt(objective, model.constraints, fit.theta, settings.optimizer, rest, hooks);
            finish.passes += fit.passes;
            finish.probes += fit.probes;
            finish.trace.insert(finish.trace.begin(), fit.trace.begin(), fit.trace.end());
            if (direct || finish.value <= fit.value) result = std::move(finish);
            if (fit.status == Status::stalled && !std::isfinite(fit.value)) return fit;
        }
    } catch (const Interrupted&) {
        fit.status = Status::interrupted;
        fit.message = "interrupted";
    }
    if (settings.certify || fit.status != Status::max_passes) certify_fit(model, rows.judge, solver, true, fit);
    return fit;
}

bool is_pure(const EmSettings& settings) { return !settings.hybrid && settings.optimizer == "newton"; }

}  // namespace

Fit fit_likelihood(const Model& model, const RowSums& rows, const arma::vec& start, const EmSettings& settings,
                   const Hooks& hooks) {
    if (is_pure(settings)) throw InvalidArgument("pure EM needs the rows in memory");
    return maximise(model, rows, nullptr, nullptr, start, settings, hooks);
}

Fit fit_likelihood(const Model& model, const Family& family, const Rows& rows, const arma::vec& start,
                   const EmSettings& settings, const Hooks& hooks) {
    const RowTotals totals = row_totals(rows);
    const Settings solver = solver_settings(totals, settings);
    const Em em(model, family, rows, settings, solver, hooks);
    const Hooks none;
    const LikelihoodCriterion criterion(family, Information::complete);
    const Pass quiet(model, rows, settings.threads, none, criterion);
    const RowSums sums{evaluator_of(em.pass()), evaluator_of(quiet), totals};
    const auto from_part = [&](const Settings& rest, SolverResult& at) {
        return approach(model, family, rows, settings.threads, hooks, rest, em.pass(), at);
    };
    return maximise(model, sums, is_pure(settings) ? &em : nullptr, from_part, start, settings, hooks);
}

}  // namespace cosmoe
