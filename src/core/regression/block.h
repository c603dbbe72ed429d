// A block of rows in the pass: features, gate, experts, and what a criterion makes of them.
#pragma once

#include <utility>
#include <vector>

#include "common/buffer.h"
#include "regression/layout.h"

namespace cosmoe {

constexpr std::size_t block_rows = 256;

// All pairs of predictors whose features are (first, second), with their sums' layout: a row of sums per pair and
// slice, a column per pair of features. Same-feature groups hold the upper triangle of feature pairs only.
struct PairGroup {
    Features first, second;
    std::vector<std::pair<std::size_t, std::size_t>> pairs;
    std::vector<int> curved;  // for two predictors of one expert: column of its second derivatives, or -1
    std::size_t columns = 0;
    std::size_t start = 0;  // in the sums

    bool symmetric() const { return first == second; }
};

struct Block {
    Block(const Layout& layout, std::size_t own, std::size_t own_curved, std::size_t wide, std::size_t terms_columns,
          std::size_t most_pairs)
        : predictors(own),
          curved(own_curved),
          x(block_rows, layout.dx() + 1),
          zeta(block_rows, layout.dz() + 1),
          logit(block_rows, layout.k()),
          mask(block_rows, layout.k()),
          p(block_rows, layout.k()),
          norm(block_rows, 2),
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
          coef(block_rows, 2 * most_pairs),
          features(block_rows, std::max(layout.dx(), layout.dz()) + 1),
          scratch(block_rows, std::max<std::size_t>(1, wide)) {}

    std::size_t n = 0, valid = 0;    // padded and true number of rows; padding has weight 0
    std::size_t predictors, curved;  // of one expert
    Buffer x, zeta, logit, mask, p;  // features; logits; gate
    Buffer norm;                     // log of the sum of exponentials of the logits: norm(:, 0) + log(norm(:, 1))
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
