// The softmax gate over a block of rows, dense or top-K.
#pragma once

#include <cstddef>

#include "common/buffer.h"

namespace cosmoe {

// The numbers of the top_k experts with the largest scores in each row, first the largest; ties go to the lower number.
// Two n x top_k columns of doubles, the second the answer.
void largest_scores(const Buffer& score, std::size_t k, std::size_t n, std::size_t top_k, Buffer& value,
                    Buffer& number);

// Scores score_k = u_k' zeta (no bias) are in `logit` on entry, n rows of k columns. On return logit = score + bias and
// p = softmax over the chosen experts. Top-K chooses by the score alone; ties go to the lower index.
// `mask` is scratch (same shape), untouched when dense. bias may be null when dense: it is in the logits then. The log of the sum of exponentials over the chosen experts is
// norm(:, 0) + log(norm(:, 1)), if asked for.
void gate_probabilities(Buffer& logit, const double* bias, std::size_t k, std::size_t n, std::size_t top_k,
                        Buffer& mask, Buffer& p, Buffer* norm = nullptr);

}  // namespace cosmoe
