#include "gate/router.h"

#include <cmath>

#include "common/errors.h"

namespace cosmoe {
namespace {

// Norm and direction of a vector whose squares may over- or underflow; the direction of 0 is 0.
struct Polar {
    explicit Polar(const arma::vec& v) : direction(arma::size(v), arma::fill::zeros) {
        const double top = v.is_empty() ? 0 : arma::abs(v).max();
        if (top == 0) return;
        const arma::vec unit = v / top;
        const double size = arma::norm(unit);
        norm = top * size;
        direction = unit / size;
    }
    double norm = 0;
    arma::vec direction;
};

constexpr double infinity = std::numeric_limits<double>::infinity();

// Second derivatives of u = s beta / (norm(beta) + tau). With e = beta / norm(beta), L = norm(beta) + tau:
// s / L^2 ((1 + 2 norm(beta) / L) e_a e_b e_c - [c = a] e_b - [c = b] e_a - [a = b] e_c).
arma::cube radial_curvature(const arma::vec& beta, double scale, double tau) {
    const arma::uword d = beta.n_elem;
    arma::cube out(d, d, d, arma::fill::zeros);
    const Polar polar(beta);
    if (polar.norm == 0) return out;
    const arma::vec& e = polar.direction;
    const double length = polar.norm + tau, factor = 1 + 2 * polar.norm / length;
    for (arma::uword c = 0; c < d; ++c)
        for (arma::uword b = 0; b < d; ++b)
            for (arma::uword a = 0; a < d; ++a)
                out(a, b, c) = scale / length / length *
                               (factor * e[a] * e[b] * e[c] - (c == a) * e[b] - (c == b) * e[a] - (a == b) * e[c]);
    return out;
}

class LinearRouter final : public Router {
  public:
    explicit LinearRouter(const RouterSpec& spec) : scale_(spec.scale), bound_(spec.bound_gate) {}
    bool scales_features() const override { return false; }
    GateConstraint constraint() const override {
        return {std::isfinite(bound_) ? ConstraintKind::ball : ConstraintKind::free, scale_ * bound_};
    }
    arma::mat to_gate(const arma::mat& beta) const override { return scale_ * beta; }
    arma::mat to_beta(const arma::mat& u) const override { return u / scale_; }
    arma::mat pull_back(const arma::mat&, const arma::mat& gradient_u) const override { return scale_ * gradient_u; }
    arma::cube curvature(const arma::vec& beta) const override {
        return arma::cube(beta.n_elem, beta.n_elem, beta.n_elem, arma::fill::zeros);
    }

  private:
    double scale_, bound_;
};

// Norms carry nothing: u is the direction of beta, on the sphere of radius `scale`.
class CosineRouter final : public Router {
  public:
    explicit CosineRouter(const RouterSpec& spec) : scale_(spec.scale) {}
    GateConstraint constraint() const override { return {ConstraintKind::sphere, scale_}; }
    arma::mat to_gate(const arma::mat& beta) const override {
        arma::mat u(arma::size(beta));
        for (arma::uword k = 0; k < beta.n_cols; ++k) u.col(k) = scale_ * Polar(beta.col(k)).direction;
        return u;
    }
    arma::mat to_beta(const arma::mat& u) const override { return u / scale_; }
    arma::mat pull_back(const arma::mat& beta, const arma::mat& gradient_u) const override {
        arma::mat out(arma::size(beta), arma::fill::zeros);
        for (arma::uword k = 0; k < beta.n_cols; ++k) {
            const Polar polar(beta.col(k));
            if (polar.norm == 0) continue;
            const arma::vec &e = polar.direction, g = gradient_u.col(k);
            out.col(k) = scale_ / polar.norm * (g - arma::dot(g, e) * e);
        }
        return out;
    }
    arma::cube curvature(const arma::vec& beta) const override { return radial_curvature(beta, scale_, 0); }

  private:
    double scale_;
};

// u = s beta / (norm(beta) + tau1) maps R^d onto the open ball of radius s; its boundary is norm(beta) = infinity.
class PerturbedCosineRouter final : public Router {
  public:
    explicit PerturbedCosineRouter(const RouterSpec& spec)
        : scale_(spec.scale),
          tau1_(spec.tau1),
          tau2_(spec.tau2),
          bound_(spec.bound_gate) {}
    double feature_offset() const override { return tau2_; }
    GateConstraint constraint() const override {
        return {ConstraintKind::ball, std::isfinite(bound_) ? scale_ * (bound_ / (bound_ + tau1_)) : scale_};
    }
    arma::mat to_gate(const arma::mat& beta) const override {
        arma::mat u(arma::size(beta));
        for (arma::uword k = 0; k < beta.n_cols; ++k)
            u.col(k) = scale_ * (beta.col(k) / (Polar(beta.col(k)).norm + tau1_));
        return u;
    }
    arma::mat to_beta(const arma::mat& u) const override {
        arma::mat beta(arma::size(u), arma::fill::zeros);
        for (arma::uword k = 0; k < u.n_cols; ++k) {
            const double norm = arma::norm(u.col(k)), slack = scale_ - norm;
            const bool boundary = slack <= boundary_slack * scale_;
            for (arma::uword j = 0; j < u.n_rows; ++j) {
                if (u(j, k) == 0) continue;
                beta(j, k) = boundary ? std::copysign(infinity, u(j, k)) : tau1_ * u(j, k) / slack;
            }
        }
        return beta;
    }
    arma::mat pull_back(const arma::mat& beta, const arma::mat& gradient_u) const override {
        arma::mat out(arma::size(beta));
        for (arma::uword k = 0; k < beta.n_cols; ++k) {
            const Polar polar(beta.col(k));
            const double length = polar.norm + tau1_;
            const arma::vec &e = polar.direction, g = gradient_u.col(k);
            out.col(k) = scale_ / length * (g - polar.norm / length * arma::dot(g, e) * e);
        }
        return out;
    }
    arma::cube curvature(const arma::vec& beta) const override { return radial_curvature(beta, scale_, tau1_); }

  private:
    // Closer to the boundary than this, norm(beta) is an accident of rounding.
    static constexpr double boundary_slack = 1e-8;
    double scale_, tau1_, tau2_, bound_;
};

}  // namespace

std::unique_ptr<const Router> make_router(const RouterSpec& spec) {
    if (spec.name == "linear") return std::make_unique<LinearRouter>(spec);
    if (spec.name == "cosine") return std::make_unique<CosineRouter>(spec);
    if (spec.name == "perturbed_cosine") return std::make_unique<PerturbedCosineRouter>(spec);
    throw InvalidArgument("unknown router '" + spec.name + "'");
}

}  // namespace cosmoe
