// Parameters as matrices, one column an expert, and as the vector theta the solvers move.
#pragma once

#include "common/armadillo.h"
#include "common/errors.h"
#include "regression/layout.h"

namespace cosmoe {

struct Parameters {
    arma::mat u;         // dz x k
    arma::vec b;         // k
    arma::mat eta;       // q x k
    arma::vec phi = {};  // logarithms of dispersions: none, one or k
};

inline arma::vec pack(const Layout& layout, const Parameters& par) {
    if (par.u.n_rows != layout.dz() || par.u.n_cols != layout.k() || par.b.n_elem != layout.k() ||
        par.eta.n_rows != layout.q() || par.eta.n_cols != layout.k() || par.phi.n_elem != layout.dispersions())
        throw InvalidArgument("parameters do not have the shape of the model");
    arma::vec theta(layout.size());
    for (std::size_t m = 0; m < layout.k(); ++m) {
        for (std::size_t j = 0; j < layout.dz(); ++j) theta[layout.gate(m) + j] = par.u(j, m);
        theta[layout.bias(m)] = par.b[m];
        for (std::size_t j = 0; j < layout.q(); ++j) theta[layout.eta(m) + j] = par.eta(j, m);
    }
    for (std::size_t m = 0; m < layout.dispersions(); ++m) theta[layout.eta(layout.k()) + m] = par.phi[m];
    return theta;
}

inline Parameters unpack(const Layout& layout, const arma::vec& theta) {
    Parameters par{arma::mat(layout.dz(), layout.k()), arma::vec(layout.k()), arma::mat(layout.q(), layout.k()),
                   arma::vec(layout.dispersions())};
    for (std::size_t m = 0; m < layout.k(); ++m) {
        for (std::size_t j = 0; j < layout.dz(); ++j) par.u(j, m) = theta[layout.gate(m) + j];
        par.b[m] = theta[layout.bias(m)];
        for (std::size_t j = 0; j < layout.q(); ++j) par.eta(j, m) = theta[layout.eta(m) + j];
    }
    for (std::size_t m = 0; m < layout.dispersions(); ++m) par.phi[m] = theta[layout.eta(layout.k()) + m];
    return par;
}

// The gates' columns u_k of theta, or of its gradient.
inline arma::mat gates(const Layout& layout, const arma::vec& theta) {
    arma::mat u(layout.dz(), layout.k());
    for (std::size_t m = 0; m < layout.k(); ++m)
        for (std::size_t j = 0; j < layout.dz(); ++j) u(j, m) = theta[layout.gate(m) + j];
    return u;
}

inline void set_gates(const Layout& layout, const arma::mat& u, arma::vec& theta) {
    for (std::size_t m = 0; m < layout.k(); ++m)
        for (std::size_t j = 0; j < layout.dz(); ++j) theta[layout.gate(m) + j] = u(j, m);
}

}  // namespace cosmoe
