#include "common/kernels.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

// Copies of the same loops for wider registers, where compiler and processor family allow choosing at run time.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define COSMOE_WIDE 1
#else
#define COSMOE_WIDE 0
#endif

namespace cosmoe {

#if COSMOE_WIDE
#pragma GCC push_options
#pragma GCC optimize("O3")
#endif

namespace portable {
#define COSMOE_LANES 2
#include "common/kernels_body.h"
#undef COSMOE_LANES
}  // namespace portable

#if COSMOE_WIDE
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define COSMOE_LANES 4
#include "common/kernels_body.h"
#undef COSMOE_LANES
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
namespace avx512 {
#define COSMOE_LANES 8
#include "common/kernels_body.h"
#undef COSMOE_LANES
}  // namespace avx512
#pragma GCC pop_options

#pragma GCC pop_options
#endif

namespace kernel {
namespace {

struct Table {
    decltype(&portable::combine) combine;
    decltype(&portable::combine_listed) combine_listed;
    decltype(&portable::cross_product) cross_product;
    decltype(&portable::outer_product) outer_product;
    decltype(&portable::transpose) transpose;
    decltype(&portable::dot_listed) dot_listed;
    decltype(&portable::add_listed) add_listed;
    decltype(&portable::inverse_norms) inverse_norms;
    decltype(&portable::multiply) multiply;
    decltype(&portable::multiply3) multiply3;
    decltype(&portable::add) add;
    decltype(&portable::add_product3) add_product3;
    decltype(&portable::subtract_product) subtract_product;
    decltype(&portable::subtract) subtract;
    decltype(&portable::divide) divide;
    decltype(&portable::subtract_product3) subtract_product3;
    decltype(&portable::multiply_difference) multiply_difference;
    decltype(&portable::multiply_negative) multiply_negative;
    decltype(&portable::covariance) covariance;
    decltype(&portable::subtract_covariance) subtract_covariance;
    decltype(&portable::mix) mix;
    decltype(&portable::all_positive) all_positive;
    decltype(&portable::clear_where_zero) clear_where_zero;
    decltype(&portable::residuals) residuals;
    decltype(&portable::add_finite_part) add_finite_part;
    decltype(&portable::weighted_sum) weighted_sum;
    decltype(&portable::largest) largest;
    decltype(&portable::standardize) standardize;
    decltype(&portable::softmax) softmax;
    decltype(&portable::logarithm) logarithm;
    decltype(&portable::exponential) exponential;
    decltype(&portable::gaussian) gaussian;
    decltype(&portable::weigh_density) weigh_density;
    decltype(&portable::activate) activate;
    const char* name;
};

#define COSMOE_TABLE(isa)                                                                                           \
    {                                                                                                               \
        isa::combine, isa::combine_listed, isa::cross_product, isa::outer_product, isa::transpose, isa::dot_listed, \
            isa::add_listed, isa::inverse_norms, isa::multiply, isa::multiply3, isa::add, isa::add_product3,        \
            isa::subtract_product, isa::subtract, isa::divide, isa::subtract_product3, isa::multiply_difference,    \
            isa::multiply_negative, isa::covariance, isa::subtract_covariance, isa::mix, isa::all_positive,         \
            isa::clear_where_zero, isa::residuals, isa::add_finite_part, isa::weighted_sum, isa::largest,           \
            isa::standardize, isa::softmax, isa::logarithm, isa::exponential, isa::gaussian, isa::weigh_density,    \
            isa::activate, #isa                                                                                     \
    }

Table choose() {
#if COSMOE_WIDE
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return COSMOE_TABLE(avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return COSMOE_TABLE(avx2);
#endif
    return COSMOE_TABLE(portable);
}

const Table& table() {
    static const Table chosen = choose();
    return chosen;
}

}  // namespace

void combine(const double* a, std::size_t lda, std::size_t na, const double* coef, std::size_t ldc, std::size_t nc,
             std::size_t n, double* out, std::size_t ldo) {
    table().combine(a, lda, na, coef, ldc, nc, n, out, ldo);
}

void combine_listed(const double* a, std::size_t lda, std::size_t na, const double* start, const double* const* coef,
                    std::size_t nc, std::size_t n, double* out, std::size_t ldo) {
    table().combine_listed(a, lda, na, start, coef, nc, n, out, ldo);
}

void cross_product(const double* a, std::size_t lda, std::size_t na, const double* b, std::size_t ldb, std::size_t nb,
                   std::size_t n, double* out, std::size_t ldo) {
    table().cross_product(a, lda, na, b, ldb, nb, n, out, ldo);
}

void outer_product(const double* a, std::size_t lda, std::size_t na, const double* const* b, std::size_t nb,
                   std::size_t n, double* out, std::size_t ldo) {
    table().outer_product(a, lda, na, b, nb, n, out, ldo);
}

void transpose(const double* a, std::size_t lda, std::size_t na, std::size_t n, double* out, std::size_t ldo) {
    table().transpose(a, lda, na, n, out, ldo);
}

void dot_listed(const double* a, std::size_t lda, std::size_t rows, const double* const* b, std::size_t n,
                double* out) {
    table().dot_listed(a, lda, rows, b, n, out);
}

void add_listed(const double* a, std::size_t lda, std::size_t rows, const double* c, std::size_t n, double* const* b) {
    table().add_listed(a, lda, rows, c, n, b);
}

bool inverse_norms(const double* a, std::size_t lda, std::size_t na, std::size_t n, double offset, double* out) {
    return table().inverse_norms(a, lda, na, n, offset, out);
}

void multiply(const double* a, const double* b, std::size_t n, double* out) { table().multiply(a, b, n, out); }

void multiply3(const double* a, const double* b, const double* c, std::size_t n, double* out) {
    table().multiply3(a, b, c, n, out);
}

void add(const double* a, std::size_t n, double* out) { table().add(a, n, out); }

void add_product3(const double* a, const double* b, const double* c, std::size_t n, double* out) {
    table().add_product3(a, b, c, n, out);
}

void subtract_product(const double* a, const double* b, std::size_t n, double* out) {
    table().subtract_product(a, b, n, out);
}

void subtract(const double* a, const double* b, std::size_t n, double* out) { table().subtract(a, b, n, out); }

void divide(const double* a, const double* b, std::size_t n, double* out) { table().divide(a, b, n, out); }

void subtract_product3(const double* a, const double* b, const double* c, std::size_t n, double* out) {
    table().subtract_product3(a, b, c, n, out);
}

void multiply_difference(const double* share, const double* a, const double* b, std::size_t n, double* out) {
    table().multiply_difference(share, a, b, n, out);
}

void multiply_negative(const double* share, const double* a, std::size_t n, double* out) {
    table().multiply_negative(share, a, n, out);
}

void covariance(const double* w, const double* p, const double* q, double same, std::size_t n, double* out) {
    table().covariance(w, p, q, same, n, out);
}

void subtract_covariance(const double* w, const double* p, const double* q, double same, std::size_t n, double* out) {
    table().subtract_covariance(w, p, q, same, n, out);
}

void mix(const double* p, std::size_t ldp, const double* h, std::size_t ldh, std::size_t k, std::size_t n,
         double* out) {
    table().mix(p, ldp, h, ldh, k, n, out);
}

bool all_positive(const double* p, std::size_t n) { return table().all_positive(p, n); }

void clear_where_zero(const double* p, std::size_t n, double* out) { table().clear_where_zero(p, n, out); }

double residuals(const double* w, const double* y, const double* f, std::size_t n, double* minus_wr) {
    return table().residuals(w, y, f, n, minus_wr);
}

void add_finite_part(const double* p, const double* a, std::size_t n, double* out) {
    table().add_finite_part(p, a, n, out);
}

double weighted_sum(const double* w, const double* a, const double* b, const double* c, std::size_t n) {
    return table().weighted_sum(w, a, b, c, n);
}

void largest(const double* score, std::size_t ld, std::size_t k, std::size_t n, std::size_t top, double* value,
             double* number, std::size_t ldo) {
    table().largest(score, ld, k, n, top, value, number, ldo);
}

void standardize(const double* column, double center, double factor, std::size_t n, double* out) {
    table().standardize(column, center, factor, n, out);
}

void softmax(const double* logit, std::size_t ld, std::size_t k, std::size_t n, const double* mask, double* p,
             double* top, double* sum) {
    table().softmax(logit, ld, k, n, mask, p, top, sum);
}

void logarithm(const double* x, std::size_t n, double* out) { table().logarithm(x, n, out); }

void exponential(const double* x, std::size_t n, double* out) { table().exponential(x, n, out); }

void gaussian(const double* y, const double* mean, double phi, std::size_t n, const GaussianColumns& out) {
    table().gaussian(y, mean, phi, n, out);
}

void weigh_density(const double* w, const double* r, double square, std::size_t n, const DensityColumns& columns) {
    table().weigh_density(w, r, square, n, columns);
}

void activate(Activation phi, const double* s, std::size_t n, double* value, double* first, double* second) {
    table().activate(phi, s, n, value, first, second);
}

const char* instruction_set() { return table().name; }

}  // namespace kernel
}  // namespace cosmoe
