// A router is a feature map zeta(z), a constraint set for the gate vectors u_k, and a chart from the paper's beta_k.
// Everything else is written against (u, b): logit_k = u_k' zeta(z) + b_k.
#pragma once

#include <cstddef>
#include <limits>
#include <memory>
#include <string>

#include "common/armadillo.h"
#include "common/constraint.h"

namespace cosmoe {

// Where every u_k lives: all of R^d, the ball or the sphere of `radius` round the origin.
struct GateConstraint {
    ConstraintKind kind = ConstraintKind::free;
    double radius = std::numeric_limits<double>::infinity();
};

class Router {
  public:
    virtual ~Router() = default;

    // The feature map of the (centred, scaled) covariates: zeta = z / (norm(z) + offset), 0 where that has no value. A
    // router whose map is the identity says so and has no offset.
    virtual bool scales_features() const { return true; }
    virtual double feature_offset() const { return 0; }
    double feature_factor(double norm) const {
        const double factor = 1 / (norm + feature_offset());
        return factor <= std::numeric_limits<double>::max() ? factor : 0;
    }

    virtual GateConstraint constraint() const = 0;

    // u from beta, both d x k. beta = 0 gives u = 0 (for the cosine router this is the documented value of 0/0).
    virtual arma::mat to_gate(const arma::mat& beta) const = 0;

    // beta from u; infinite in the direction of u where u lies on the boundary of the perturbed router's ball.
    virtual arma::mat to_beta(const arma::mat& u) const = 0;

    // du/dbeta' applied to a gradient in u: the gradient in beta, one column a gate.
    virtual arma::mat pull_back(const arma::mat& beta, const arma::mat& gradient_u) const = 0;

    // Second derivatives of the chart at one beta: d2u_c / dbeta_a dbeta_b at (a, b, c). 0 where there are none, at 0.
    virtual arma::cube curvature(const arma::vec& beta) const = 0;
};

struct RouterSpec {
    std::string name = "perturbed_cosine";  // or "linear", "cosine"
    double scale = 1;
    double tau1 = 0.1, tau2 = 0.1;
    std::size_t top_k = 0;                                        // 0: dense
    double bound_gate = std::numeric_limits<double>::infinity();  // the largest norm of beta_k
};

std::unique_ptr<const Router> make_router(const RouterSpec& spec);

}  // namespace cosmoe
