// A block of rows in the pass: features, gate, experts, and what a criterion makes of them.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "common/buffer.h"
#include "regression/layout.h"
#include "solver/objective.h"

namespace cosmoe {

constexpr std::size_t block_rows = 256;
constexpr std::size_t feature_columns = 32;  // products of features that wait for their sums

// All pairs of predictors whose features are (first, second). Their sums have a column for each pair of features (the
// upper triangle only where both predictors have the same features) and a row for each pair of predictors: first those
// that the normal matrix has, then those of the exact Hessian.
struct PairGroup {
    Features first, second;
    std::vector<std::pair<std::size_t, std::size_t>> pairs;
    std::vector<int> curved;         // for two predictors of one expert: column of its second derivatives, or -1
    std::vector<int> normal, exact;  // the row of the pair among those of the matrix, or -1: always zero
    std::size_t normals = 0, exacts = 0;
    std::size_t columns = 0;

    bool symmetric() const { return first == second; }
    std::size_t height(Order order) const {
        return order < Order::normal ? 0 : normals + (order == Order::hessian ? exacts : 0);
    }
};

struct Block {
    Block(const Layout& layout, std::size_t own, std::size_t own_curved, std::size_t wide, std::size_t terms_columns,
          std::size_t most_rows)
        : predictors(own),
          curved(own_curved),
          x(block_rows, layout.dx() + 1),
          zeta(block_rows, layout.dz() + 1),
          logit(block_rows, layout.k()),
          mask(block_rows, layout.k()),
          p(block_rows, layout.k()),
          norm(block_rows, 2),
          wide(block_rows, layout.k() * wide),
          h(block_rows, layout.k()),
          first(block_rows, layout.k() * own),
          second(block_rows, layout.k() * own_curved),
          slope(block_rows, layout.predictors().size()),
          weighted(block_rows, layout.predictors().size()),
          f(block_rows, 1),
          y(block_rows, 1),
          w(block_rows, 1),
          offset(block_rows, 1),
          trials(block_rows, 1),
          terms(block_rows, terms_columns),
          coef(block_rows, most_rows),
          features(block_rows, feature_columns),
          scratch(block_rows, wide + 3) {
        std::fill_n(trials.col(0), block_rows, 1.0);
    }

    std::size_t n = 0, valid = 0;    // padded and true number of rows; padding has weight 0
    std::size_t predictors, curved;  // of one expert
    Buffer x, zeta, logit, mask, p;  // features; logits; gate
    Buffer norm;                     // log of the sum of exponentials of the logits: norm(:, 0) + log(norm(:, 1))
    Buffer wide;                     // the experts' predictors a'x + b
    Buffer h, first, second;         // experts and their derivatives in their own predictors
    Buffer slope;                    // one column a predictor: what the normal matrix is made of
    Buffer weighted;                 // one column a predictor: weight times the derivative of the criterion
    Buffer f, y, w, offset, trials;  // of the rows
    Buffer terms;                    // a criterion's own columns
    Buffer coef, features, scratch;

    // Columns of expert m's derivatives.
    const double* d1(std::size_t m, std::size_t a) const { return first.col(m * predictors + a); }
    const double* d2(std::size_t m, int c) const { return second.col(m * curved + static_cast<std::size_t>(c)); }
};

}  // namespace cosmoe
