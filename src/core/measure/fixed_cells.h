// The loss as a function of the gauge while every atom keeps its cell: convex for translations, smooth up to the norms
// and, where only the largest cells count, the choice of them.
#pragma once

#include "common/armadillo.h"
#include "measure/gauge.h"
#include "measure/voronoi.h"

namespace cosmoe {

class FixedCells {
  public:
    // `target`: the true gates; an infinite one is out of reach and must not be in `cell`.
    FixedCells(const Gauge& gauge, const CellLoss& loss, const arma::mat& target, arma::uvec cell);

    // Minimises from theta, by Newton's method on ever sharper norms sqrt(|x|^2 + eps^2). With `stay` the atoms remain
    // nearest to the targets of their cells, by a logarithmic barrier on the differences of squared distances: the
    // start must be inside, and so is the result. Starts at the infimum over gamma, which it follows.
    arma::vec minimise(const arma::vec& theta, double gamma, bool stay) const;

    // Moves theta to where the atoms are in their cells, always across the tie that is violated most (the relaxation
    // method for linear inequalities); false where it does not get there.
    bool enter(arma::vec& theta) const;

  private:
    struct Smoothing {
        double length = 0, mass = 0, barrier = 0;
    };
    struct Gap {
        arma::uword atom;
        arma::vec slope;  // in the atom's gate
        double constant;
    };
    double evaluate(const arma::vec& y, const Smoothing& smoothing, arma::vec* gradient, arma::mat* hessian) const;
    arma::vec move(const arma::vec& y, const arma::vec& step) const;
    bool approach(arma::vec& theta, double smooth) const;
    bool newton(arma::vec& y, const Smoothing& smoothing, double tolerance) const;

    const Gauge& gauge_;
    const CellLoss& loss_;
    arma::mat target_;
    arma::uvec cell_;
    arma::vec power_;  // of each atom
    arma::vec cell_mass_, cell_expert_;
    bool joint_;             // gamma and a threshold are variables, too
    std::vector<Gap> gaps_;  // by atom
};

}  // namespace cosmoe
