// Loops over the rows of a block, on vector lanes. The instruction set is chosen at run time among those the
// compiler can target; results on one machine depend neither on threads nor on the BLAS in use.
// Every row count n is a multiple of `lane_multiple`; callers pad blocks with rows of weight zero.
#pragma once

#include <cstddef>

namespace cosmoe {

constexpr std::size_t lane_multiple = 8;

enum class Activation { identity, relu, gelu, tanh, sigmoid, softplus, cubic, celu };

namespace kernel {

// out(:, c) = sum_j a(:, j) coef(j, c), for c < nc. Columns of a, coef and out lie lda, ldc and ldo apart.
void combine(const double* a, std::size_t lda, std::size_t na, const double* coef, std::size_t ldc, std::size_t nc,
             std::size_t n, double* out, std::size_t ldo);

// out(i, j) += a(:, i)' b(:, j).
void cross_product(const double* a, std::size_t lda, std::size_t na, const double* b, std::size_t ldb, std::size_t nb,
                   std::size_t n, double* out, std::size_t ldo);

// out(:, j) += sum_r a(:, r) b(j, r), for j < nb and r < na: a has n rows, b has nb.
void outer_product(const double* a, std::size_t lda, std::size_t na, const double* b, std::size_t ldb, std::size_t nb,
                   std::size_t n, double* out, std::size_t ldo);

// out(i) = sum_j a(i, j)^2.
void row_sum_of_squares(const double* a, std::size_t lda, std::size_t na, std::size_t n, double* out);

// out = a * b, elementwise; out may be a.
void multiply(const double* a, const double* b, std::size_t n, double* out);

// out = a * b * c, elementwise.
void multiply3(const double* a, const double* b, const double* c, std::size_t n, double* out);

// Softmax across the k columns of logit, into p. With `mask` (n x k, 0 or 1) only the chosen columns take part.
void softmax(const double* logit, std::size_t ld, std::size_t k, std::size_t n, const double* mask, double* p);

// value = phi(s), first = phi'(s), second = phi''(s); first and second may be null. CELU is that with alpha = 1.
// Derivatives of ReLU at its kink are 0.
void activate(Activation phi, const double* s, std::size_t n, double* value, double* first, double* second);

// The instruction set in use: "portable", "avx2" or "avx512".
const char* instruction_set();

}  // namespace kernel
}  // namespace cosmoe
