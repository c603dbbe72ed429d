// Voronoi losses of a mixing measure against a true one, and their infimum over the gauge of the measure.
#pragma once

#include "common/armadillo.h"
#include "gate/router.h"

namespace cosmoe {

// The atoms of a mixing measure, one column each. `beta` is infinite where `u` is on the boundary.
struct Atoms {
    arma::vec bias;
    arma::mat u, beta, eta;
};

struct VoronoiSpec {
    double power = 1;         // of the distances
    bool squares = false;     // cells with several atoms take the power 2 instead
    bool bounded = false;     // gates are measured by u, not by beta
    arma::uword counted = 0;  // the number of cells that count, those with the largest losses; 0: all
};

struct VoronoiLoss {
    double value = 0;
    arma::uvec cell;        // true atom of each fitted one
    arma::mat terms;        // mass, gate, expert: one row a cell
    arma::uvec counted;     // 1 for the cells in the sum
    arma::vec shift;        // of all u
    double log_factor = 0;  // added to all biases; -infinity: the masses vanish
    arma::vec norms;        // of beta, for the cosine router
};

// The formula for the numbers as they are. Ties go to the true atom with the lower index. Two gates on the boundary have
// the distance 0 if they are equal; any other gate there is infinitely far.
VoronoiLoss voronoi_loss(const Atoms& fit, const Atoms& truth, const VoronoiSpec& spec);

// The infimum over all shifts of `fit` (see alignment.cpp), with the values that attain or approach it.
VoronoiLoss aligned_voronoi_loss(const Atoms& fit, const Atoms& truth, const VoronoiSpec& spec,
                                 const RouterSpec& router);

// ---- parts of the above ---------------------------------------------------------------------------------------------

// Euclidean distances of the columns of a from those of b: infinite if one of them is, 0 if they are equal.
arma::mat column_distances(const arma::mat& a, const arma::mat& b);
// Distances of the gates by u (`bounded`) or by beta.
arma::mat gate_distances(const Atoms& fit, const Atoms& truth, bool bounded);

// What is known of a loss once the atoms have their cells: per cell the mass and the costs, the distances weighted with
// the masses. For masses multiplied by gamma, cell j loses |gamma mass_j - true_mass_j| + gamma (gate_j + expert_j).
struct CellSums {
    arma::uvec cell;   // of each atom
    arma::uvec count;  // atoms of each cell
    arma::vec mass, gate, expert;
};

class CellLoss {
  public:
    CellLoss(const VoronoiSpec& spec, arma::vec mass, arma::vec true_mass, arma::mat expert_distance);
    const arma::vec& mass() const { return mass_; }
    const arma::vec& true_mass() const { return true_mass_; }
    const arma::mat& expert_distance() const { return expert_; }
    bool counts_all() const { return counted_ == true_mass_.n_elem; }
    arma::uword counted() const { return counted_; }

    double power(arma::uword count) const { return squares_ ? (count > 1 ? 2 : 1) : power_; }
    // Cells by the smallest distance of gate and expert together.
    arma::uvec nearest(const arma::mat& gate_distance) const;
    CellSums sums(const arma::uvec& cell, const arma::mat& gate_distance) const;
    double value(const CellSums& sums, double gamma) const;
    // The best gamma >= 0, by the convex piecewise linear function of it.
    double best_factor(const CellSums& sums) const;
    VoronoiLoss describe(const CellSums& sums, double gamma) const;

  private:
    // Value and a slope (to the right at kinks) in gamma.
    double value_and_slope(const CellSums& sums, double gamma, double* slope) const;
    double power_;
    bool squares_;
    arma::uword counted_;
    arma::vec mass_, true_mass_;
    arma::mat expert_;
};

}  // namespace cosmoe
