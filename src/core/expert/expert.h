// An expert family: h(x, eta) over a block of rows, with derivatives in its *predictors*. A predictor is linear in
// the parameters: "wide" ones are a'x + b (d + 1 parameters), "scalar" ones are a single parameter. In eta the wide
// predictors come first (each a, then b), then the scalars.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/buffer.h"
#include "common/kernels.h"

namespace cosmoe {

struct ExpertBlock {
    const Buffer& x;    // n rows; d covariates, then the column of ones
    std::size_t d;      // covariates without the ones
    std::size_t n;      // rows, a multiple of lane_multiple
    std::size_t valid;  // the first `valid` rows are data, the others padding
    // The wide predictors' values, columns x.rows() apart, where the caller has them; else they are computed.
    const double* predictors = nullptr;
};

class Expert {
  public:
    virtual ~Expert() = default;

    virtual std::size_t wide() const = 0;
    virtual std::size_t scalars() const = 0;

    // Pairs of predictors (wide first, then scalars) whose second derivative is not identically zero.
    virtual const std::vector<std::pair<std::size_t, std::size_t>>& curved_pairs() const = 0;

    // value[n]; with derivatives >= 1 first[n x (wide + scalars)]; with derivatives >= 2 second[n x curved_pairs].
    // Columns lie x.rows() apart. scratch holds at least
    // `wide` columns, and 3 beside them.
    virtual void evaluate(const ExpertBlock& block, const double* eta, int derivatives, double* value, double* first,
                          double* second, Buffer& scratch) const = 0;

    // False when evaluate() calls back into a host that has one thread only.
    virtual bool thread_safe() const { return true; }

    std::size_t predictors() const { return wide() + scalars(); }
    std::size_t parameters(std::size_t d) const { return wide() * (d + 1) + scalars(); }
};

// A host's own expert: value[n] and, when not null, gradient[n x n_par] (columns ld apart) for n rows of d raw
// covariates in x (columns ldx apart).
using CustomFunction = std::function<void(const double* x, std::size_t ldx, std::size_t n, std::size_t d,
                                          const double* eta, double* value, double* gradient, std::size_t ld)>;

struct ExpertSpec {
    std::string name = "linear";  // constant, linear, polynomial, relu, gelu, tanh, sigmoid, softplus, network, custom
    int degree = 1;               // polynomial
    std::size_t hidden = 1;       // network
    std::string activation = "tanh";  // network
    std::size_t n_par = 0;            // custom
    CustomFunction custom;
    double bound_expert = std::numeric_limits<double>::infinity();  // the largest norm of eta_k
};

// By the name hosts use, such as "gelu"; "linear" is the identity.
Activation activation_named(const std::string& name);

std::unique_ptr<const Expert> make_expert(const ExpertSpec& spec);

}  // namespace cosmoe
