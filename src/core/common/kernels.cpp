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
    decltype(&portable::cross_product) cross_product;
    decltype(&portable::outer_product) outer_product;
    decltype(&portable::row_sum_of_squares) row_sum_of_squares;
    decltype(&portable::multiply) multiply;
    decltype(&portable::multiply3) multiply3;
    decltype(&portable::add) add;
    decltype(&portable::add_product3) add_product3;
    decltype(&portable::subtract_product) subtract_product;
    decltype(&portable::softmax) softmax;
    decltype(&portable::logarithm) logarithm;
    decltype(&portable::exponential) exponential;
    decltype(&portable::gaussian) gaussian;
    decltype(&portable::weigh_density) weigh_density;
    decltype(&portable::activate) activate;
    const char* name;
};

#define COSMOE_TABLE(isa)                                                                                             \
    {                                                                                                                 \
        isa::combine, isa::cross_product, isa::outer_product, isa::row_sum_of_squares, isa::multiply, isa::multiply3, \
            isa::add, isa::add_product3, isa::subtract_product, isa::softmax, isa::logarithm, isa::exponential,       \
            isa::gaussian, isa::weigh_density, isa::activate, #isa                                                    \
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

void cross_product(const double* a, std::size_t lda, std::size_t na, const double* b, std::size_t ldb, std::size_t nb,
                   std::size_t n, double* out, std::size_t ldo) {
    table().cross_product(a, lda, na, b, ldb, nb, n, out, ldo);
}

void outer_product(const double* a, std::size_t lda, std::size_t na, const double* b, std::size_t ldb, std::size_t nb,
                   std::size_t n, double* out, std::size_t ldo) {
    table().outer_product(a, lda, na, b, ldb, nb, n, out, ldo);
}

void row_sum_of_squares(const double* a, std::size_t lda, std::size_t na, std::size_t n, double* out) {
    table().row_sum_of_squares(a, lda, na, n, out);
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
