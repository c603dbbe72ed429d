// How the gauge of a mixing measure moves its gates. The gauge has parameters theta; the gates a loss sees are a smooth
// function of them.
#pragma once

#include <vector>

#include "common/armadillo.h"

namespace cosmoe {

class Gauge {
  public:
    virtual ~Gauge() = default;
    virtual arma::uword size() const = 0;
    // The gates (d x k), or false where theta is not allowed.
    virtual bool place(const arma::vec& theta, arma::mat& gates) const = 0;
    // Adds to gradient and Hessian in theta what a function with `slope` and `curvature` in gate i contributes.
    virtual void pull_back(const arma::vec& theta, arma::uword i, const arma::vec& slope, const arma::mat& curvature,
                           arma::vec& gradient, arma::mat& hessian) const = 0;
    virtual arma::vec move(const arma::vec& theta, const arma::vec& step) const { return theta + step; }
    // Parameters from this one on are positive.
    virtual arma::uword first_positive() const { return size(); }
    // Whether theta is added to all gates.
    virtual bool translates() const { return false; }
    // |gate_i - a| is at least this times |u_i - u(a)|; 0: unknown.
    virtual double contrast_bound() const { return 1; }
};

// gate_i = gate_i + theta.
class Translations final : public Gauge {
  public:
    explicit Translations(arma::mat gates) : gates_(std::move(gates)) {}
    arma::uword size() const override { return gates_.n_rows; }
    bool translates() const override { return true; }
    bool place(const arma::vec& theta, arma::mat& gates) const override;
    void pull_back(const arma::vec&, arma::uword, const arma::vec& slope, const arma::mat& curvature,
                   arma::vec& gradient, arma::mat& hessian) const override;

  private:
    arma::mat gates_;
};

// beta_i = tau (u_i + theta) / (scale - |u_i + theta|) inside the open ball.
class BallShifts final : public Gauge {
  public:
    BallShifts(arma::mat u, double scale, double tau) : u_(std::move(u)), scale_(scale), tau_(tau) {}
    arma::uword size() const override { return u_.n_rows; }
    bool place(const arma::vec& theta, arma::mat& gates) const override;
    void pull_back(const arma::vec& theta, arma::uword i, const arma::vec& slope, const arma::mat& curvature,
                   arma::vec& gradient, arma::mat& hessian) const override;
    double contrast_bound() const override { return tau_ / scale_; }

  private:
    arma::mat u_;
    double scale_, tau_;
};

// beta_i = lambda_i e_i on rays with the unit directions e_i = (fixed_i + radius * basis * x), |x| = 1: the turns that
// keep all differences. theta = (x, lambda).
class Rays final : public Gauge {
  public:
    Rays(arma::mat fixed, arma::mat basis, double radius)
        : fixed_(std::move(fixed)),
          basis_(std::move(basis)),
          radius_(radius) {}
    arma::uword size() const override { return basis_.n_cols + fixed_.n_cols; }
    arma::uword turns() const { return basis_.n_cols; }
    arma::mat directions(const arma::vec& theta) const;
    bool place(const arma::vec& theta, arma::mat& gates) const override;
    void pull_back(const arma::vec& theta, arma::uword i, const arma::vec& slope, const arma::mat& curvature,
                   arma::vec& gradient, arma::mat& hessian) const override;
    arma::vec move(const arma::vec& theta, const arma::vec& step) const override;
    arma::uword first_positive() const override { return turns(); }
    double contrast_bound() const override { return 0; }
    const arma::mat& basis() const { return basis_; }
    double radius() const { return radius_; }

  private:
    arma::mat fixed_, basis_;
    double radius_;
};

}  // namespace cosmoe
