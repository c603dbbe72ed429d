#include "measure/gauge.h"

#include <cmath>

namespace cosmoe {

bool Translations::place(const arma::vec& theta, arma::mat& gates) const {
    gates = gates_.each_col() + theta;
    return true;
}

void Translations::pull_back(const arma::vec&, arma::uword, const arma::vec& slope, const arma::mat& curvature,
                             arma::vec& gradient, arma::mat& hessian) const {
    gradient += slope;
    hessian += curvature;
}

bool BallShifts::place(const arma::vec& theta, arma::mat& gates) const {
    gates = u_.each_col() + theta;
    for (arma::uword i = 0; i < gates.n_cols; ++i) {
        const double slack = scale_ - arma::norm(gates.col(i));
        if (!(slack > 1e-8 * scale_)) return false;
        gates.col(i) *= tau_ / slack;
    }
    return true;
}

// With h = 1 / (scale - |u|), h' = h^2, h'' = 2 h^3 and e = u / |u|: the Jacobian is J = tau (h I + h' |u| e e'), and
// v'beta has the Hessian tau (h' (v e' + e v') + (v'e) (|u| h'' e e' + h' (I - e e'))).
void BallShifts::pull_back(const arma::vec& theta, arma::uword i, const arma::vec& v, const arma::mat& curvature,
                           arma::vec& gradient, arma::mat& hessian) const {
    arma::vec e = u_.col(i) + theta;
    const double norm = arma::norm(e);
    if (norm > 0) e /= norm;
    const double h = 1 / (scale_ - norm), h1 = h * h, h2 = 2 * h * h1, along = arma::dot(v, e);
    // J v and J curvature J without forming J.
    const double a = tau_ * h, b = tau_ * h1 * norm;
    gradient += a * v + b * along * e;
    const arma::vec ce = curvature * e;
    const double ece = arma::dot(e, ce);
    const arma::vec mixed = a * b * ce + tau_ * h1 * v;
    hessian += a * a * curvature;
    hessian += mixed * e.t();
    hessian += e * mixed.t();
    hessian += (b * b * ece + tau_ * along * (norm * h2 - h1)) * (e * e.t());
    hessian.diag() += tau_ * along * h1;
}

arma::mat Rays::directions(const arma::vec& theta) const {
    if (turns() == 0) return fixed_;
    return fixed_.each_col() + arma::vec(radius_ * (basis_ * theta.head(turns())));
}

bool Rays::place(const arma::vec& theta, arma::mat& gates) const {
    gates = directions(theta);
    bool allowed = true;
    for (arma::uword i = 0; i < gates.n_cols; ++i) {
        const double lambda = theta[turns() + i];
        allowed = allowed && lambda >= 0;
        gates.col(i) *= lambda;
    }
    return allowed;
}

// Along the sphere of x, with P the projection on its tangents: x moves by P s - x |s|^2 / 2 to second order.
void Rays::pull_back(const arma::vec& theta, arma::uword i, const arma::vec& v, const arma::mat& curvature,
                     arma::vec& gradient, arma::mat& hessian) const {
    const arma::uword q = turns(), at = q + i;
    const double lambda = theta[at];
    arma::vec e = fixed_.col(i);
    if (q > 0) e += radius_ * (basis_ * theta.head(q));
    const arma::vec ce = curvature * e;
    gradient[at] += arma::dot(v, e);
    hessian(at, at) += arma::dot(e, ce);
    if (q == 0) return;
    // With B the basis and P = I - x x', the Jacobian is radius B P; P is applied as an update of rank one.
    const arma::vec x = theta.head(q);
    const auto project = [&](const arma::vec& w) { return arma::vec(w - arma::dot(x, w) * x); };
    const arma::vec bv = basis_.t() * v, jv = radius_ * project(bv);
    const arma::vec cross = lambda * radius_ * project(basis_.t() * ce) + jv;
    gradient.head(q) += lambda * jv;
    arma::mat own = (lambda * lambda * radius_ * radius_) * (basis_.t() * (curvature * basis_));
    const arma::vec along = own * x;
    const double bend = lambda * radius_ * arma::dot(bv, x);
    own -= along * x.t();
    own -= x * along.t();
    own += (arma::dot(x, along) + bend) * (x * x.t());
    own.diag() -= bend;
    hessian.submat(0, 0, q - 1, q - 1) += own;
    hessian.submat(0, at, q - 1, at) += cross;
    hessian.submat(at, 0, at, q - 1) += cross.t();
}

arma::vec Rays::move(const arma::vec& theta, const arma::vec& step) const {
    arma::vec out = theta + step;
    const arma::uword q = turns();
    if (q > 0) {
        const arma::vec x = theta.head(q), s = step.head(q);
        out.head(q) = arma::normalise(x + s - arma::dot(x, s) * x);
    }
    return out;
}

}  // namespace cosmoe
