// What a fit minimises: a sum over rows of a function of the gate and the experts' values. The pass knows the features,
// a criterion the derivatives in the predictors.
#pragma once

#include "common/armadillo.h"
#include "regression/block.h"

namespace cosmoe {

class Criterion {
  public:
    virtual ~Criterion() = default;

    // Columns of Block::terms.
    virtual std::size_t columns(std::size_t) const { return 0; }

    // A parameter at which something is to be evaluated first, in remember(), or null: EM's responsibilities.
    virtual const arma::vec* anchor() const { return nullptr; }
    virtual void remember(const Layout&, Block&) const {}

    // The block's weighted sum. With derivatives, fills `slope` and `weighted` of the block.
    virtual double add_rows(const Layout& layout, const arma::vec& theta, int derivatives, Block& block) const = 0;

    // Whether the normal matrix (the exact Hessian) has nothing for a pair of predictors, whatever the data.
    virtual bool vanishes(const Predictor&, const Predictor&, bool /*exact*/) const { return false; }

    // Coefficients of pair j of a group: `normal` of the (positive semi-definite) model matrix and `exact` of the
    // Hessian, each with the rows' weights; null where it vanishes or is not asked for.
    virtual void pair(const Layout& layout, const PairGroup& group, std::size_t j, const Block& block, double* normal,
                      double* exact) const = 0;
};

// sum w (y - f)^2 / 2.
class LeastSquaresCriterion final : public Criterion {
  public:
    std::size_t columns(std::size_t) const override { return 1; }
    double add_rows(const Layout& layout, const arma::vec& theta, int derivatives, Block& block) const override;
    void pair(const Layout& layout, const PairGroup& group, std::size_t j, const Block& block, double* normal,
              double* exact) const override;
};

}  // namespace cosmoe
