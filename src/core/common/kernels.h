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

// out(:, c) = start + sum_j a(:, j) coef[c][j]: the same with columns of coef wherever they lie; start may be null.
void combine_listed(const double* a, std::size_t lda, std::size_t na, const double* start, const double* const* coef,
                    std::size_t nc, std::size_t n, double* out, std::size_t ldo);

// out(i, j) += a(:, i)' b(:, j).
void cross_product(const double* a, std::size_t lda, std::size_t na, const double* b, std::size_t ldb, std::size_t nb,
                   std::size_t n, double* out, std::size_t ldo);

// out(:, j) += sum_r a(:, r) b[r][j], for j < nb and r < na: a has n rows.
void outer_product(const double* a, std::size_t lda, std::size_t na, const double* const* b, std::size_t nb,
                   std::size_t n, double* out, std::size_t ldo);

// out(c, r) = a(r, c), for c < na and r < n.
void transpose(const double* a, std::size_t lda, std::size_t na, std::size_t n, double* out, std::size_t ldo);

// out(r) = a(:, r)' b[r], and b[r] += a(:, r) c(r), for r < n; a has `rows` rows, a multiple of `lane_multiple`.
void dot_listed(const double* a, std::size_t lda, std::size_t rows, const double* const* b, std::size_t n, double* out);
void add_listed(const double* a, std::size_t lda, std::size_t rows, const double* c, std::size_t n, double* const* b);

// out(i) = 1 / (sqrt(sum_j a(i, j)^2) + offset). False where a sum of squares is too small or too large for that.
bool inverse_norms(const double* a, std::size_t lda, std::size_t na, std::size_t n, double offset, double* out);

// out = a * b, elementwise; out may be a.
void multiply(const double* a, const double* b, std::size_t n, double* out);

// out = a * b * c, elementwise.
void multiply3(const double* a, const double* b, const double* c, std::size_t n, double* out);

// out = a - b, out = a / b, out += a, out += a * b * c, out -= a * b and out -= a * b * c, elementwise.
void subtract(const double* a, const double* b, std::size_t n, double* out);
void divide(const double* a, const double* b, std::size_t n, double* out);
void add(const double* a, std::size_t n, double* out);
void add_product3(const double* a, const double* b, const double* c, std::size_t n, double* out);
void subtract_product(const double* a, const double* b, std::size_t n, double* out);
void subtract_product3(const double* a, const double* b, const double* c, std::size_t n, double* out);

// share * (a - b) and -share * a where the share is positive, else 0, whatever a and b are.
void multiply_difference(const double* share, const double* a, const double* b, std::size_t n, double* out);
void multiply_negative(const double* share, const double* a, std::size_t n, double* out);

// out = w p (same - q), and out -= that: of indicators with probabilities p and q, with `same` 1 for p = q, else 0.
void covariance(const double* w, const double* p, const double* q, double same, std::size_t n, double* out);
void subtract_covariance(const double* w, const double* p, const double* q, double same, std::size_t n, double* out);

// out = sum over the k columns of p h, where p is not 0: what has no weight may overflow.
void mix(const double* p, std::size_t ldp, const double* h, std::size_t ldh, std::size_t k, std::size_t n, double* out);

bool all_positive(const double* p, std::size_t n);  // n > 0
void clear_where_zero(const double* p, std::size_t n, double* out);

// minus_wr = -w (y - f), 0 where w is 0; returns the sum of w (y - f)^2 / 2.
double residuals(const double* w, const double* y, const double* f, std::size_t n, double* minus_wr);

// out += a where p is positive, else out = -infinity.
void add_finite_part(const double* p, const double* a, std::size_t n, double* out);

// The sum of w (a - b + c) over positive w.
double weighted_sum(const double* w, const double* a, const double* b, const double* c, std::size_t n);

// The `top` largest of the k columns in each row, largest first, and their numbers; equal ones in the order of columns,
// NaN as -infinity.
void largest(const double* score, std::size_t ld, std::size_t k, std::size_t n, std::size_t top, double* value,
             double* number, std::size_t ldo);

// out = (column - center) * factor, for any n.
void standardize(const double* column, double center, double factor, std::size_t n, double* out);

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
