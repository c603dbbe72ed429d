#include "solver/nlopt_solver.h"

#ifndef COSMOE_NLOPT_HEADER
#define COSMOE_NLOPT_HEADER <nlopt.h>
#endif
#include COSMOE_NLOPT_HEADER

#include <cmath>
#include <exception>
#include <memory>

#include "common/errors.h"
#include "solver/geometry.h"

namespace cosmoe {
namespace {

// theta as a function of unconstrained v: charted blocks lie on the sphere of v (with one more coordinate for a ball).
class Chart {
  public:
    Chart(arma::uword size, Constraints charted) : size_(size), charted_(std::move(charted)) {
        std::vector<bool> covered(size, false);
        for (const BlockConstraint& c : charted_)
            for (arma::uword i = 0; i < c.length; ++i) covered[c.first + i] = true;
        for (arma::uword i = 0; i < size; ++i)
            if (!covered[i]) plain_.push_back(i);
    }
    arma::vec from(const arma::vec& theta) const {
        std::vector<double> v;
        for (const arma::uword i : plain_) v.push_back(theta[i]);
        for (const BlockConstraint& c : charted_) {
            const arma::vec u = theta(block(c)) / c.radius;
            v.insert(v.end(), u.begin(), u.end());
            // Off the equator, where the chart's gradient in the last coordinate vanishes.
            if (c.kind == ConstraintKind::ball)
                v.push_back(std::max(1e-3, std::sqrt(std::max(0.0, 1 - arma::dot(u, u)))));
        }
        return v;
    }
    arma::vec to(const arma::vec& v) const {
        arma::vec theta(size_);
        arma::uword at = 0;
        for (const arma::uword i : plain_) theta[i] = v[at++];
        for (const BlockConstraint& c : charted_) {
            const double norm = arma::norm(v.subvec(at, at + width(c) - 1));
            theta(block(c)) = v.subvec(at, at + c.length - 1) * (norm > 0 ? c.radius / norm : 0);
            at += width(c);
        }
        return theta;
    }
    arma::vec pull_back(const arma::vec& v, const arma::vec& gradient) const {
        arma::vec out(v.n_elem);
        arma::uword at = 0;
        for (const arma::uword i : plain_) out[at++] = gradient[i];
        for (const BlockConstraint& c : charted_) {
            const arma::vec own = v.subvec(at, at + width(c) - 1);
            arma::vec g(width(c), arma::fill::zeros);
            g.head(c.length) = gradient(block(c));
            const double norm = arma::norm(own);
            out.subvec(at, at + width(c) - 1) =
                norm > 0 ? arma::vec(c.radius / norm * (g - arma::dot(g, own) / (norm * norm) * own)) : g;
            at += width(c);
        }
        return out;
    }

  private:
    static arma::uword width(const BlockConstraint& c) { return c.length + (c.kind == ConstraintKind::ball ? 1 : 0); }
    arma::uword size_;
    Constraints charted_;
    std::vector<arma::uword> plain_;
};

struct Problem {
    Objective& objective;
    const Chart& chart;
    const Constraints& balls;  // as inequality constraints; untouched by the chart
    const Settings& settings;
    const Hooks& hooks;
    SolverResult& out;
    nlopt_opt handle = nullptr;
    std::exception_ptr failure;

    // NLopt is C: an exception is kept, the run is stopped, and the exception goes on after NLopt has returned.
    template <class Body>
    double guarded(Body body) {
        try {
            if (hooks.stop_requested()) throw Interrupted();
            return body();
        } catch (...) {
            failure = std::current_exception();
            nlopt_force_stop(handle);
            return HUGE_VAL;
        }
    }
};

double objective_callback(unsigned n, const double* v, double* gradient, void* data) {
    Problem& problem = *static_cast<Problem*>(data);
    return problem.guarded([&] {
        const arma::vec point(v, n);
        const arma::vec theta = problem.chart.to(point);
        const Evaluation e = problem.objective.evaluate(theta, gradient ? Order::gradient : Order::value);
        SolverResult& out = problem.out;
        ++out.passes;
        bool feasible = true;
        for (const BlockConstraint& c : problem.balls)
            feasible = feasible && arma::norm(theta(block(c))) <= c.radius * (1 + 1e-9);
        if (std::isfinite(e.value) && feasible && e.value < out.value) out.value = e.value, out.theta = theta;
        out.trace.push_back(out.value);
        if (gradient) {
            const arma::vec g = problem.chart.pull_back(point, e.gradient) / problem.settings.total;
            std::copy(g.begin(), g.end(), gradient);
        }
        return std::isfinite(e.value) ? e.value / problem.settings.total : HUGE_VAL;
    });
}

struct BallData {
    Problem* problem;
    BlockConstraint ball;
};

// norm(u)^2 / radius^2 - 1 <= 0
double ball_callback(unsigned n, const double* v, double* gradient, void* data) {
    const BallData& own = *static_cast<BallData*>(data);
    return own.problem->guarded([&] {
        const arma::vec point(v, n);
        const arma::vec u = own.problem->chart.to(point)(block(own.ball)) / own.ball.radius;
        if (gradient) {
            arma::vec g(own.problem->out.theta.n_elem, arma::fill::zeros);
            g(block(own.ball)) = 2 / own.ball.radius * u;
            const arma::vec pulled = own.problem->chart.pull_back(point, g);
            std::copy(pulled.begin(), pulled.end(), gradient);
        }
        return arma::dot(u, u) - 1;
    });
}

}  // namespace

SolverResult minimise_nlopt(Objective& objective, const Constraints& constraints, const arma::vec& start,
                            const std::string& algorithm, const Settings& settings, const Hooks& hooks) {
    // CCSAQ takes constraints too, but solves a dual for them that never calls back and can run for ever.
    const bool takes_constraints = algorithm == "slsqp";
    nlopt_algorithm code;
    if (algorithm == "slsqp") code = NLOPT_LD_SLSQP;
    else if (algorithm == "lbfgs") code = NLOPT_LD_LBFGS;
    else if (algorithm == "ccsaq") code = NLOPT_LD_CCSAQ;
    else if (algorithm == "bobyqa") code = NLOPT_LN_BOBYQA;
    else throw InvalidArgument("unknown optimizer '" + algorithm + "'");

    Constraints charted, balls;
    for (const BlockConstraint& c : constraints)
        (takes_constraints && c.kind == ConstraintKind::ball ? balls : charted).push_back(c);
    const Chart chart(start.n_elem, charted);

    SolverResult out;
    out.theta = project(start, constraints);
    out.value = HUGE_VAL;
    arma::vec v = chart.from(out.theta);
    const std::unique_ptr<std::remove_pointer_t<nlopt_opt>, decltype(nlopt_destroy)*> handle(
        nlopt_create(code, static_cast<unsigned>(v.n_elem)), nlopt_destroy);
    if (!handle) throw Error("NLopt could not create '" + algorithm + "'");
    Problem problem{objective, chart, balls, settings, hooks, out, handle.get(), nullptr};
    nlopt_set_min_objective(handle.get(), objective_callback, &problem);
    std::vector<BallData> data;
    for (const BlockConstraint& c : balls) data.push_back({&problem, c});
    for (BallData& d : data) nlopt_add_inequality_constraint(handle.get(), ball_callback, &d, 1e-12);
    nlopt_set_ftol_rel(handle.get(), 1e-15);
    nlopt_set_xtol_rel(handle.get(), 1e-12);
    nlopt_set_maxeval(handle.get(), settings.max_passes);
    if (algorithm == "lbfgs") nlopt_set_vector_storage(handle.get(), 15);

    double best;
    const nlopt_result code_out = nlopt_optimize(handle.get(), v.memptr(), &best);
    if (problem.failure) {
        try {
            std::rethrow_exception(problem.failure);
        } catch (const Interrupted&) {
            out.status = Status::interrupted;
            out.message = "interrupted";
            return out;
        }
    }
    // Return codes say little near an optimum; the certificate decides (see fit_least_squares).
    out.theta = project(out.theta, constraints);
    out.status = code_out == NLOPT_MAXEVAL_REACHED ? Status::max_passes : Status::stalled;
    out.message = out.status == Status::max_passes ? "the limit of passes was reached"
                  : code_out > 0 ? "NLopt stopped where its own steps no longer help, before the certificate is met"
                                 : "NLopt failed with code " + std::to_string(static_cast<int>(code_out));
    return out;
}

}  // namespace cosmoe
