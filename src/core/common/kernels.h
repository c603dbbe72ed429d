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

// out += a, out += a * b * c and out -= a * b, elementwise.
void add(const double* a, std::size_t n, double* out);
void add_product3(const double* a, const double* b, const double* c, std::size_t n, double* out);
void subtract_product(const double* a, const double* b, std::size_t n, double* out);

// Softmax across the k columns of logit, into p. With `mask` (n x k, 0 or 1) only the chosen columns take part. The log
// of the sum of exponentials is top + log(sum); a row of -infinity alone has p = 0 and sum = 0. Both
// may be null.
void softmax(const double* logit, std::size_t ld, std::size_t k, std::size_t n, const double* mask, double* p,
             double* top = nullptr, double* sum = nullptr);

// Natural logarithms of positive normal numbers; 0 gives -infinity.
void logarithm(const double* x, std::size_t n, double* out);

// Exponentials; 0 below -708, and not above exp(709).
void exponential(const double* x, std::size_t n, double* out);

// Log density of a Gaussian with mean `mean` and precision exp(-2 phi), with derivatives: in the mean, twice, in phi,
// twice, in both.
struct GaussianColumns {
    double *log_density, *d1, *d2, *dphi, *d2phi, *dcross;
};
void gaussian(const double* y, const double* mean, double phi, std::size_t n, const GaussianColumns& out);

// Derivatives of a log density f, where the share r of its row is positive, become what Hessians are made of:
//   d1 <- w r f', kept <- -w r min(f'', 0), d2 <- w r (f'' + square f'^2), the same for phi, and
//   dcross <- w r (f'_phi' + square f' f'_phi); 0 elsewhere. square is 0 or 1.
struct DensityColumns {
    double *d1, *d2, *dphi, *d2phi, *dcross, *kept, *kept_phi;
};
void weigh_density(const double* w, const double* r, double square, std::size_t n, const DensityColumns& columns);

// value = phi(s), first = phi'(s), second = phi''(s); first and second may be null. CELU is that with alpha = 1.
// Derivatives of ReLU at its kink are 0.
void activate(Activation phi, const double* s, std::size_t n, double* value, double* first, double* second);

// The instruction set in use: "portable", "avx2" or "avx512".
const char* instruction_set();

}  // namespace kernel
}  // namespace cosmoe
