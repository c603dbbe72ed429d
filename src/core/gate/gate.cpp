#include "gate/gate.h"

#include "common/kernels.h"

namespace cosmoe {
namespace {

// An expert is chosen when fewer than top_k others come before it: larger score, or the same score and a lower index.
void choose_top(const Buffer& score, std::size_t k, std::size_t n, std::size_t top_k, Buffer& mask) {
    for (std::size_t c = 0; c < k; ++c)
        for (std::size_t r = 0; r < n; ++r) {
            const double own = score.col(c)[r];
            std::size_t before = 0;
            for (std::size_t m = 0; m < k; ++m) before += score.col(m)[r] > own || (score.col(m)[r] == own && m < c);
            mask.col(c)[r] = before < top_k ? 1 : 0;
        }
}

}  // namespace

void gate_probabilities(Buffer& logit, const double* bias, std::size_t k, std::size_t n, std::size_t top_k,
                        Buffer& mask, Buffer& p, Buffer* norm) {
    const bool sparse = top_k > 0 && top_k < k;
    if (sparse) choose_top(logit, k, n, top_k, mask);
    for (std::size_t c = 0; c < k; ++c)
        for (std::size_t r = 0; r < n; ++r) logit.col(c)[r] += bias[c];
    kernel::softmax(logit.col(0), logit.rows(), k, n, sparse ? mask.col(0) : nullptr, p.col(0),
                    norm ? norm->col(0) : nullptr, norm ? norm->col(1) : nullptr);
}

}  // namespace cosmoe
