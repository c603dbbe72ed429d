#include "gate/gate.h"

#include <algorithm>

#include "common/kernels.h"

namespace cosmoe {
namespace {

void choose_top(const Buffer& score, std::size_t k, std::size_t n, std::size_t top_k, Buffer& mask) {
    Buffer value(n, top_k), number(n, top_k);
    largest_scores(score, k, n, top_k, value, number);
    for (std::size_t c = 0; c < k; ++c) std::fill_n(mask.col(c), n, 0.0);
    for (std::size_t j = 0; j < top_k; ++j)
        for (std::size_t r = 0; r < n; ++r) mask.col(static_cast<std::size_t>(number.col(j)[r]))[r] = 1;
}

}  // namespace

void largest_scores(const Buffer& score, std::size_t k, std::size_t n, std::size_t top_k, Buffer& value,
                    Buffer& number) {
    kernel::largest(score.col(0), score.rows(), k, n, top_k, value.col(0), number.col(0), value.rows());
}

void gate_probabilities(Buffer& logit, const double* bias, std::size_t k, std::size_t n, std::size_t top_k,
                        Buffer& mask, Buffer& p, Buffer* norm) {
    const bool sparse = top_k > 0 && top_k < k;
    if (sparse) choose_top(logit, k, n, top_k, mask);
    for (std::size_t c = 0; bias && c < k; ++c)
        for (std::size_t r = 0; r < n; ++r) logit.col(c)[r] += bias[c];
    kernel::softmax(logit.col(0), logit.rows(), k, n, sparse ? mask.col(0) : nullptr, p.col(0),
                    norm ? norm->col(0) : nullptr, norm ? norm->col(1) : nullptr);
}

}  // namespace cosmoe
