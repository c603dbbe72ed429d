// What a solution does with the rows: fitted values, the experts' weights and effects, how far experts differ, and the
// entropy of the responsibilities.
#pragma once

#include "common/armadillo.h"
#include "regression/family.h"

namespace cosmoe {

// n rows of gate and experts (n x k, column major); null pointers as in Rows.
struct OutcomeRows {
    std::size_t n = 0, k = 0;
    const double *gate = nullptr, *expert = nullptr;
    const double *y = nullptr, *w = nullptr, *offset = nullptr, *trials = nullptr;
    const double* limits = nullptr;  // the least and the largest size of a mean that the responses support
};

// Sums over rows with their weights, of mean responses h where there is a family, else of the experts' values: p_k;
// (p_k (h_k - f))^2; p_j p_k; p_j p_k (h_j - h_k)^2; - sum_k r_k log r_k; 1 where the mean is
// beyond the limits and the expert has weight, or makes the fitted value so.
struct Outcome {
    explicit Outcome(std::size_t k)
        : gate(k, arma::fill::zeros),
          influence(k, arma::fill::zeros),
          extreme(k, arma::fill::zeros),
          both(k, k, arma::fill::zeros),
          difference(k, k, arma::fill::zeros) {}
    void add(const Outcome& other) {
        gate += other.gate, influence += other.influence, extreme += other.extreme;
        both += other.both, difference += other.difference;
        entropy += other.entropy;
    }
    arma::vec gate, influence, extreme;
    arma::mat both, difference;
    double entropy = 0;
};

// `family` null for least squares; phi has an entry for each expert. f gets n values.
Outcome summarise(const OutcomeRows& rows, const Family* family, const arma::vec& phi, double* f);

}  // namespace cosmoe
