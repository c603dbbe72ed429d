// A model and a criterion as the solvers see them, and the evidence for what they return.
#pragma once

#include "regression/pass.h"
#include "regression/row_sums.h"
#include "solver/certificate.h"

namespace cosmoe {

struct Fit : SolverResult {  // value is sum w (y - f)^2 / 2, or minus the log likelihood
    bool certified = false;  // whether there is a certificate
    Certificate certificate;
    std::vector<std::size_t> active_gates, active_experts, active_dispersions;  // whose bounds bind
};

class ModelObjective final : public Objective {
  public:
    // The evaluator must outlive the objective.
    ModelObjective(const Model& model, const Evaluator& rows) : model_(model), rows_(rows) {}
    Evaluation evaluate(const arma::vec& theta, Order order) override { return rows_(theta, order); }

    // In over-specified models, and where an expert runs off with less and less weight, the objective sees little
    // more of the atoms exp(b_k) delta_omega_k, omega = (u, eta), than masses and first moments. Both bend along a
    // straight line in (b, omega); along this curve each atom's mass, relative to all, and its first moment are
    // straight. A gate's moment counts with the size of its expert: what an expert gains in length, its gate need not
    // make up for.
    arma::vec move(const arma::vec& theta, const arma::vec& step) override;
    arma::mat bend(const arma::vec& theta, const arma::vec& gradient) const override;

  private:
    const Model& model_;
    const Evaluator& rows_;
};

// The pass must outlive it.
Evaluator evaluator_of(const Pass& pass);

// The number of parameters that can be told apart: without the gauge, and without norms on spheres.
double identifiable_parameters(const Model& model);

// Centres the gates and computes the certificate of `fit` afresh; one standard for all optimizers: a fit has converged
// when the certificate says so, and, if `may_converge`, whenever it does. An interrupt leaves it without certificate.
void certify_fit(const Model& model, const Evaluator& judge, const Settings& solver, bool may_converge, Fit& fit);

}  // namespace cosmoe
