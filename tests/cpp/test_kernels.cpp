// Vector kernels against functions of the standard library in long double and against plain loops, for the instruction
// set in use and for the portable loops every machine can run.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "common/kernels.h"

namespace cosmoe {
namespace portable_copy {
#define COSMOE_LANES 2
#include "common/kernels_body.h"
#undef COSMOE_LANES
}  // namespace portable_copy
}  // namespace cosmoe

namespace {

using cosmoe::Activation;
using Real = long double;

constexpr Real eps = std::numeric_limits<double>::epsilon();

struct Kernels {
    decltype(&cosmoe::kernel::combine) combine;
    decltype(&cosmoe::kernel::combine_listed) combine_listed;
    decltype(&cosmoe::kernel::cross_product) cross_product;
    decltype(&cosmoe::kernel::outer_product) outer_product;
    decltype(&cosmoe::kernel::transpose) transpose;
    decltype(&cosmoe::kernel::dot_listed) dot_listed;
    decltype(&cosmoe::kernel::add_listed) add_listed;
    decltype(&cosmoe::kernel::inverse_norms) inverse_norms;
    decltype(&cosmoe::kernel::multiply) multiply;
    decltype(&cosmoe::kernel::multiply3) multiply3;
    decltype(&cosmoe::kernel::softmax) softmax;
    decltype(&cosmoe::kernel::activate) activate;
    decltype(&cosmoe::kernel::add) add;
    decltype(&cosmoe::kernel::add_product3) add_product3;
    decltype(&cosmoe::kernel::subtract_product) subtract_product;
    decltype(&cosmoe::kernel::logarithm) logarithm;
    decltype(&cosmoe::kernel::exponential) exponential;
    decltype(&cosmoe::kernel::gaussian) gaussian;
    decltype(&cosmoe::kernel::weigh_density) weigh_density;
    decltype(&cosmoe::kernel::subtract) subtract;
    decltype(&cosmoe::kernel::divide) divide;
    decltype(&cosmoe::kernel::subtract_product3) subtract_product3;
    decltype(&cosmoe::kernel::multiply_difference) multiply_difference;
    decltype(&cosmoe::kernel::multiply_negative) multiply_negative;
    decltype(&cosmoe::kernel::covariance) covariance;
    decltype(&cosmoe::kernel::subtract_covariance) subtract_covariance;
    decltype(&cosmoe::kernel::mix) mix;
    decltype(&cosmoe::kernel::all_positive) all_positive;
    decltype(&cosmoe::kernel::clear_where_zero) clear_where_zero;
    decltype(&cosmoe::kernel::residuals) residuals;
    decltype(&cosmoe::kernel::add_finite_part) add_finite_part;
    decltype(&cosmoe::kernel::weighted_sum) weighted_sum;
    decltype(&cosmoe::kernel::largest) largest;
    decltype(&cosmoe::kernel::standardize) standardize;
};

constexpr Kernels in_use = {
    cosmoe::kernel::combine,
    cosmoe::kernel::combine_listed,
    cosmoe::kernel::cross_product,
    cosmoe::kernel::outer_product,
    cosmoe::kernel::transpose,
    cosmoe::kernel::dot_listed,
    cosmoe::kernel::add_listed,
    cosmoe::kernel::inverse_norms,
    cosmoe::kernel::multiply,
    cosmoe::kernel::multiply3,
    cosmoe::kernel::softmax,
    cosmoe::kernel::activate,
    cosmoe::kernel::add,
    cosmoe::kernel::add_product3,
    cosmoe::kernel::subtract_product,
    cosmoe::kernel::logarithm,
    cosmoe::kernel::exponential,
    cosmoe::kernel::gaussian,
    cosmoe::kernel::weigh_density,
    cosmoe::kernel::subtract,
    cosmoe::kernel::divide,
    cosmoe::kernel::subtract_product3,
    cosmoe::kernel::multiply_difference,
    cosmoe::kernel::multiply_negative,
    cosmoe::kernel::covariance,
    cosmoe::kernel::subtract_covariance,
    cosmoe::kernel::mix,
    cosmoe::kernel::all_positive,
    cosmoe::kernel::clear_where_zero,
    cosmoe::kernel::residuals,
    cosmoe::kernel::add_finite_part,
    cosmoe::kernel::weighted_sum,
    cosmoe::kernel::largest,
    cosmoe::kernel::standardize,
};
constexpr Kernels portable = {
    cosmoe::portable_copy::combine,
    cosmoe::portable_copy::combine_listed,
    cosmoe::portable_copy::cross_product,
    cosmoe::portable_copy::outer_product,
    cosmoe::portable_copy::transpose,
    cosmoe::portable_copy::dot_listed,
    cosmoe::portable_copy::add_listed,
    cosmoe::portable_copy::inverse_norms,
    cosmoe::portable_copy::multiply,
    cosmoe::portable_copy::multiply3,
    cosmoe::portable_copy::softmax,
    cosmoe::portable_copy::activate,
    cosmoe::portable_copy::add,
    cosmoe::portable_copy::add_product3,
    cosmoe::portable_copy::subtract_product,
    cosmoe::portable_copy::logarithm,
    cosmoe::portable_copy::exponential,
    cosmoe::portable_copy::gaussian,
    cosmoe::portable_copy::weigh_density,
    cosmoe::portable_copy::subtract,
    cosmoe::portable_copy::divide,
    cosmoe::portable_copy::subtract_product3,
    cosmoe::portable_copy::multiply_difference,
    cosmoe::portable_copy::multiply_negative,
    cosmoe::portable_copy::covariance,
    cosmoe::portable_copy::subtract_covariance,
    cosmoe::portable_copy::mix,
    cosmoe::portable_copy::all_positive,
    cosmoe::portable_copy::clear_where_zero,
    cosmoe::portable_copy::residuals,
    cosmoe::portable_copy::add_finite_part,
    cosmoe::portable_copy::weighted_sum,
    cosmoe::portable_copy::largest,
    cosmoe::portable_copy::standardize,
};

std::vector<double> uniform(std::size_t n, double from, double to, unsigned seed) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> draw(from, to);
    std::vector<double> out(n);
    for (double& v : out) v = draw(generator);
    return out;
}

// --- products -----------------------------------------------------------------------------------------------------

// Shapes with every remainder of the tiles (up to 8 columns wide), and columns further apart than they are long.
void check_products(const Kernels& kernels) {
    constexpr Real slack = 8 * eps;
    for (const std::size_t n : {8, 24, 256})
        for (std::size_t na = 0; na <= 9; ++na)
            for (std::size_t nb = 1; nb <= 11; ++nb) {
                const std::size_t lda = n + 8, ldb = n + 16, ldc = na + 2, ldo = n + 24;
                const auto seed = static_cast<unsigned>(1000 * n + 10 * na + nb);
                const std::vector<double> a = uniform(lda * (na + 1), -2, 2, seed),
                                          b = uniform(ldb * nb, -2, 2, seed + 1);
                const std::vector<double> coef = uniform(ldc * nb, -2, 2, seed + 2);

                std::vector<double> out(ldo * nb, -7.0);
                kernels.combine(a.data(), lda, na, coef.data(), ldc, nb, n, out.data(), ldo);
                Real worst = 0;
                bool outside = false;
                for (std::size_t c = 0; c < nb; ++c)
                    for (std::size_t r = 0; r < ldo; ++r) {
                        if (r >= n) {
                            outside = outside || out[c * ldo + r] != -7.0;
                            continue;
                        }
                        Real sum = 0, size = 1;
                        for (std::size_t j = 0; j < na; ++j) {
                            const Real term = Real(a[j * lda + r]) * coef[c * ldc + j];
                            sum += term, size += std::abs(term);
                        }
                        worst = std::max(worst, std::abs(out[c * ldo + r] - sum) / size);
                    }
                CHECK(worst <= slack);
                CHECK(!outside);

                // The same numbers, from columns in the opposite order; then with a start.
                std::vector<const double*> columns(nb);
                for (std::size_t c = 0; c < nb; ++c) columns[c] = coef.data() + (nb - 1 - c) * ldc;
                std::vector<double> other(ldo * nb, -7.0);
                kernels.combine_listed(a.data(), lda, na, nullptr, columns.data(), nb, n, other.data(), ldo);
                worst = 0;
                for (std::size_t c = 0; c < nb; ++c)
                    for (std::size_t r = 0; r < ldo; ++r)
                        worst = std::max(worst, std::abs(Real(other[c * ldo + r]) - out[(nb - 1 - c) * ldo + r]));
                CHECK(worst <= slack * 8 * static_cast<Real>(na));
                const double* start = a.data() + na * lda;
                kernels.combine_listed(a.data(), lda, na, start, columns.data(), nb, n, other.data(), ldo);
                worst = 0;
                for (std::size_t c = 0; c < nb; ++c)
                    for (std::size_t r = 0; r < n; ++r)
                        worst = std::max(worst,
                                         std::abs(Real(other[c * ldo + r]) - out[(nb - 1 - c) * ldo + r] - start[r]));
                CHECK(worst <= slack * 8 * static_cast<Real>(na + 1));

                // coef's columns as rows of the second factor: nb of them, added to what is there.
                const std::size_t ldr = nb + 1;
                const std::vector<double> rows = uniform(ldr * (na + 1), -2, 2, seed + 3);
                std::fill(out.begin(), out.end(), -7.0);
                std::vector<const double*> listed(na);
                for (std::size_t j = 0; j < na; ++j) listed[j] = rows.data() + j * ldr;
                kernels.outer_product(a.data(), lda, na, listed.data(), nb, n, out.data(), ldo);
                worst = 0, outside = false;
                for (std::size_t c = 0; c < nb; ++c)
                    for (std::size_t r = 0; r < ldo; ++r) {
                        if (r >= n) {
                            outside = outside || out[c * ldo + r] != -7.0;
                            continue;
                        }
                        Real sum = -7, size = 7;
                        for (std::size_t j = 0; j < na; ++j) {
                            const Real term = Real(a[j * lda + r]) * rows[j * ldr + c];
                            sum += term, size += std::abs(term);
                        }
                        worst = std::max(worst, std::abs(out[c * ldo + r] - sum) / size);
                    }
                CHECK(worst <= slack);
                CHECK(!outside);

                const std::size_t ldx = na + 3;
                std::vector<double> cross(ldx * nb, 0.5);  // sums are added to what is there
                kernels.cross_product(a.data(), lda, na, b.data(), ldb, nb, n, cross.data(), ldx);
                worst = 0, outside = false;
                for (std::size_t j = 0; j < nb; ++j)
                    for (std::size_t i = 0; i < ldx; ++i) {
                        if (i >= na) {
                            outside = outside || cross[j * ldx + i] != 0.5;
                            continue;
                        }
                        Real sum = 0.5, size = 1;
                        for (std::size_t r = 0; r < n; ++r) {
                            const Real term = Real(a[i * lda + r]) * b[j * ldb + r];
                            sum += term, size += std::abs(term);
                        }
                        worst = std::max(worst, std::abs(cross[j * ldx + i] - sum) / size);
                    }
                CHECK(worst <= slack);
                CHECK(!outside);

                std::vector<double> inverse(n + 8, -7.0);
                const bool plain = kernels.inverse_norms(a.data(), lda, na, n, 0.25, inverse.data());
                CHECK(plain == (na > 0));
                worst = 0;
                for (std::size_t r = 0; r < n; ++r) {
                    Real sum = 0;
                    for (std::size_t j = 0; j < na; ++j) sum += Real(a[j * lda + r]) * a[j * lda + r];
                    worst = std::max(worst, std::abs(inverse[r] * (std::sqrt(sum) + Real(0.25)) - 1));
                }
                CHECK(worst <= slack);
                CHECK(inverse[n] == -7.0);
            }
}

// Squares that vanish or overflow are reported.
void check_extreme_norms(const Kernels& kernels) {
    for (const double odd : {0.0, 1e-200, 1e200, -1e200}) {
        std::vector<double> a(24, 1.0), out(24);
        CHECK(kernels.inverse_norms(a.data(), 24, 1, 24, 0, out.data()));
        a[13] = odd;
        CHECK(!kernels.inverse_norms(a.data(), 24, 1, 24, 0, out.data()));
    }
}

// The criteria's loops by their definitions; what has no weight may be infinite or NaN.
void check_weighted(const Kernels& kernels) {
    constexpr std::size_t n = 40, k = 3;
    const double infinite = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    std::vector<double> p = uniform(n * k, 0.1, 1, 1), a = uniform(n * k, -2, 2, 2), b = uniform(n, -2, 2, 3),
                        c = uniform(n, 1, 2, 4), w = uniform(n, 0.5, 3, 5);
    for (const std::size_t i : {0, 7, 39}) {
        CHECK(kernels.all_positive(p.data() + n, n));
        const double kept = p[n + i];
        p[n + i] = 0;
        CHECK(!kernels.all_positive(p.data() + n, n));
        p[n + i] = kept;
    }
    p[4] = 0, a[4] = infinite, p[n + 9] = 0, a[n + 9] = nan;
    std::vector<double> out(n), expected(n);
    Real worst = 0;
    const auto compare = [&](const char* what) {
        worst = 0;
        for (std::size_t i = 0; i < n; ++i)
            worst = std::max(worst, out[i] == expected[i] ? Real(0) : std::abs(Real(out[i]) - expected[i]) / 10);
        if (!(worst <= 4 * eps)) std::cerr << what << '\n';
        CHECK(worst <= 4 * eps);
    };
    kernels.mix(p.data(), n, a.data(), n, k, n, out.data());
    for (std::size_t i = 0; i < n; ++i) {
        Real sum = 0;
        for (std::size_t m = 0; m < k; ++m)
            if (p[m * n + i] > 0) sum += Real(p[m * n + i]) * a[m * n + i];
        expected[i] = static_cast<double>(sum);
    }
    compare("mix");
    const auto each = [&](const auto& value) {
        for (std::size_t i = 0; i < n; ++i) expected[i] = static_cast<double>(value(i));
    };
    kernels.multiply_difference(p.data(), a.data(), b.data(), n, out.data());
    each([&](std::size_t i) { return p[i] > 0 ? Real(p[i]) * (Real(a[i]) - b[i]) : 0; });
    compare("multiply_difference");
    kernels.multiply_negative(p.data(), a.data(), n, out.data());
    each([&](std::size_t i) { return p[i] > 0 ? -Real(p[i]) * a[i] : 0; });
    compare("multiply_negative");
    out.assign(a.begin(), a.begin() + n);
    kernels.clear_where_zero(p.data(), n, out.data());
    each([&](std::size_t i) { return p[i] > 0 ? Real(a[i]) : 0; });
    compare("clear_where_zero");
    out.assign(b.begin(), b.end());
    kernels.add_finite_part(p.data(), a.data(), n, out.data());
    each([&](std::size_t i) { return p[i] > 0 ? Real(b[i]) + a[i] : -infinite; });
    compare("add_finite_part");
    a[4] = 1, a[n + 9] = 1;
    kernels.subtract(a.data(), b.data(), n, out.data());
    each([&](std::size_t i) { return Real(a[i]) - b[i]; });
    compare("subtract");
    kernels.divide(a.data(), c.data(), n, out.data());
    each([&](std::size_t i) { return Real(a[i]) / c[i]; });
    compare("divide");
    out = b;
    kernels.subtract_product3(a.data(), c.data(), w.data(), n, out.data());
    each([&](std::size_t i) { return Real(b[i]) - Real(a[i]) * c[i] * w[i]; });
    compare("subtract_product3");
    for (const double same : {0.0, 1.0}) {
        kernels.covariance(w.data(), p.data(), a.data(), same, n, out.data());
        each([&](std::size_t i) { return Real(w[i]) * p[i] * (same - Real(a[i])); });
        compare("covariance");
        out = b;
        kernels.subtract_covariance(w.data(), p.data(), a.data(), same, n, out.data());
        each([&](std::size_t i) { return Real(b[i]) - Real(w[i]) * p[i] * (same - Real(a[i])); });
        compare("subtract_covariance");
    }
    w[11] = 0;
    std::vector<double> y = b;
    y[11] = nan;
    const double half = kernels.residuals(w.data(), y.data(), a.data(), n, out.data());
    Real squares = 0, sum = 0;
    for (std::size_t i = 0; i < n; ++i)
        if (w[i] > 0) squares += Real(w[i]) * (Real(y[i]) - a[i]) * (Real(y[i]) - a[i]) / 2;
    CHECK_NEAR(half, static_cast<double>(squares), 1e-13);
    each([&](std::size_t i) { return w[i] > 0 ? -Real(w[i]) * (Real(y[i]) - a[i]) : 0; });
    compare("residuals");
    for (std::size_t i = 0; i < n; ++i)
        if (w[i] > 0) sum += Real(w[i]) * (Real(y[i]) - a[i] + c[i]);
    CHECK_NEAR(kernels.weighted_sum(w.data(), y.data(), a.data(), c.data(), n), static_cast<double>(sum), 1e-13);
    for (const std::size_t rows : {1, 7, 8, 9, 40}) {
        out.assign(n, -7.0);
        kernels.standardize(a.data(), 0.3, 1.7, rows, out.data());
        each([&](std::size_t i) { return i < rows ? (Real(a[i]) - Real(0.3)) * Real(1.7) : -7; });
        compare("standardize");
    }
}

// Sorted by value, equal ones by number.
void check_largest(const Kernels& kernels) {
    constexpr std::size_t n = 16, k = 6;
    std::mt19937 generator(8);
    std::uniform_int_distribution<int> draw(-2, 2);
    for (int repeat = 0; repeat < 20; ++repeat) {
        std::vector<double> score(n * k);
        for (double& v : score) v = draw(generator);
        score[3] = -std::numeric_limits<double>::infinity();
        score[5] = score[n + 7] = std::nan("");  // the smallest of all
        for (std::size_t top = 1; top <= k; ++top) {
            std::vector<double> value(n * k), number(n * k);
            kernels.largest(score.data(), n, k, n, top, value.data(), number.data(), n);
            for (std::size_t r = 0; r < n; ++r) {
                std::vector<std::size_t> order(k);
                for (std::size_t c = 0; c < k; ++c) order[c] = c;
                const auto at = [&](std::size_t c) {
                    const double v = score[c * n + r];
                    return std::isnan(v) ? -std::numeric_limits<double>::infinity() : v;
                };
                std::stable_sort(order.begin(), order.end(),
                                 [&](std::size_t c, std::size_t d) { return at(c) > at(d); });
                for (std::size_t j = 0; j < top; ++j)
                    CHECK(number[j * n + r] == static_cast<double>(order[j]) && value[j * n + r] == at(order[j]));
            }
        }
    }
}

// Small whole numbers: sums are exact in any order.
void check_listed(const Kernels& kernels) {
    std::mt19937 generator(12);
    std::uniform_int_distribution<int> draw(-9, 9);
    for (const std::size_t rows : {8, 16, 40})
        for (const std::size_t n : {8, 24, 256}) {
            const std::size_t columns = rows - 3, lda = n + 8;
            std::vector<double> a(lda * columns), t((rows + 1) * n, -7.0), c(n), lists(rows * 5), dots(n);
            for (auto* numbers : {&a, &c, &lists})
                for (double& v : *numbers) v = draw(generator);
            kernels.transpose(a.data(), lda, columns, n, t.data(), rows + 1);
            bool right = true;
            for (std::size_t r = 0; r < n; ++r)
                for (std::size_t j = 0; j <= rows; ++j)
                    right = right && t[r * (rows + 1) + j] == (j < columns ? a[j * lda + r] : -7.0);
            CHECK(right);
            std::vector<double> sums = lists;
            std::vector<const double*> from(n);
            std::vector<double*> to(n);
            for (std::size_t r = 0; r < n; ++r) {
                const std::size_t m = static_cast<std::size_t>(draw(generator) + 9) % 5;
                from[r] = lists.data() + m * rows, to[r] = sums.data() + m * rows;
            }
            kernels.dot_listed(t.data(), rows + 1, rows, from.data(), n, dots.data());
            kernels.add_listed(t.data(), rows + 1, rows, c.data(), n, to.data());
            std::vector<double> expected = lists;
            for (std::size_t r = 0; r < n; ++r) {
                double dot = 0;
                for (std::size_t j = 0; j < rows; ++j) {
                    dot += t[r * (rows + 1) + j] * from[r][j];
                    expected[static_cast<std::size_t>(from[r] - lists.data()) + j] += c[r] * t[r * (rows + 1) + j];
                }
                right = right && dots[r] == dot;
            }
            CHECK(right);
            CHECK(sums == expected);
        }
}

void check_elementwise(const Kernels& kernels) {
    const std::size_t n = 40;
    const std::vector<double> a = uniform(n, -2, 2, 1), b = uniform(n, -2, 2, 2), c = uniform(n, -2, 2, 3);
    std::vector<double> two(n), three(n), in_place = a, less = c, more = c, most = c;
    kernels.add(a.data(), n, more.data());
    kernels.add_product3(a.data(), b.data(), c.data(), n, most.data());
    kernels.subtract_product(a.data(), b.data(), n, less.data());
    kernels.multiply(a.data(), b.data(), n, two.data());
    kernels.multiply3(a.data(), b.data(), c.data(), n, three.data());
    kernels.multiply(in_place.data(), b.data(), n, in_place.data());
    for (std::size_t i = 0; i < n; ++i) {
        CHECK(two[i] == a[i] * b[i]);
        CHECK(in_place[i] == two[i]);
        CHECK_NEAR(three[i], a[i] * b[i] * c[i], 1e-15);
        CHECK(more[i] == c[i] + a[i]);
        CHECK_NEAR(most[i], c[i] + a[i] * b[i] * c[i], 1e-15);
        CHECK_NEAR(less[i], c[i] - a[i] * b[i], 1e-15);
    }
}

// --- softmax ------------------------------------------------------------------------------------------------------

// Two columns, the first of zeros: the second is e / (1 + e), e = exp(x). Measured: 1.6 eps, asserted: 3.
void check_exp(const Kernels& kernels) {
    const std::size_t n = 20000;
    for (const double range : {1e-8, 1.0, 10.0, 100.0, 707.0}) {
        std::vector<double> logit(n, 0.0), p(2 * n);
        const std::vector<double> x = uniform(n, -range, 0, 7);
        logit.insert(logit.end(), x.begin(), x.end());
        std::vector<double> top(n), total(n);
        kernels.softmax(logit.data(), n, 2, n, nullptr, p.data(), top.data(), total.data());
        Real worst = 0, sum = 0;
        for (std::size_t i = 0; i < n; ++i) {
            const Real e = std::exp(Real(x[i])), exact = e / (1 + e);
            worst = std::max(worst, std::abs(p[n + i] - exact) / exact);
            sum = std::max(sum, std::abs(Real(p[i]) + p[n + i] - 1));
            CHECK(top[i] == 0);
            CHECK(std::abs(total[i] - (1 + e)) <= 2 * eps);
        }
        CHECK(worst <= 3 * eps);
        CHECK(sum <= 2 * eps);
    }
}

void check_softmax(const Kernels& kernels) {
    for (const std::size_t k : {1, 2, 3, 7})
        for (const std::size_t n : {8, 64, 72, 136})
            for (const bool masked : {false, true}) {
                const std::size_t ld = n + 8;
                const std::vector<double> logit = uniform(ld * k, -30, 30, static_cast<unsigned>(10 * n + k));
                std::vector<double> mask = uniform(ld * k, 0, 1, 5), p(ld * k, -7.0);
                for (double& m : mask) m = m < 0.5 ? 0 : 1;
                for (std::size_t r = 0; r < n; ++r) mask[(r % k) * ld + r] = 1;
                std::vector<double> tops(n), sums(n);
                kernels.softmax(logit.data(), ld, k, n, masked ? mask.data() : nullptr, p.data(), tops.data(),
                                sums.data());
                Real worst = 0;
                for (std::size_t r = 0; r < n; ++r) {
                    Real sum = 0, top = -1e300L;
                    for (std::size_t c = 0; c < k; ++c)
                        if (!masked || mask[c * ld + r] == 1)
                            sum += std::exp(Real(logit[c * ld + r])), top = std::max(top, Real(logit[c * ld + r]));
                    for (std::size_t c = 0; c < k; ++c) {
                        const bool in = !masked || mask[c * ld + r] == 1;
                        const Real exact = in ? std::exp(Real(logit[c * ld + r])) / sum : 0;
                        // The difference to the largest logit is rounded before exp() sees it.
                        const Real rounded = 1 + 0.5L * (top - logit[c * ld + r]);
                        if (in) worst = std::max(worst, std::abs(p[c * ld + r] / exact - 1) / rounded);
                        else if (p[c * ld + r] != 0) worst = 1;
                    }
                }
                CHECK(worst <= 4 * eps);
                CHECK(p[n] == -7.0);
            }
}

void check_softmax_extremes(const Kernels& kernels) {
    constexpr double big = 1e308, infinity = std::numeric_limits<double>::infinity();
    // Rows: overflow of exp, of the difference, underflow, -Inf, equal huge values, one column masked out below.
    const std::vector<double> first = {1e4, big, -big, -infinity, big, 0, 0, 0};
    const std::vector<double> second = {0, -big, -big, 0, big, -709, -1e5, 3};
    std::vector<double> logit = first, p(16), mask(16, 1.0), top(8), sum(8);
    logit.insert(logit.end(), second.begin(), second.end());
    kernels.softmax(logit.data(), 8, 2, 8, nullptr, p.data(), top.data(), sum.data());
    const double expected[] = {1, 1, 0.5, 0, 0.5, 1, 1};
    for (std::size_t r = 0; r < 7; ++r) {
        CHECK(p[r] == expected[r]);
        CHECK(p[8 + r] == 1 - expected[r]);
    }
    // A column that is masked out takes no part, however large: not in the maximum, either.
    std::fill(mask.begin(), mask.begin() + 8, 0.0);
    kernels.softmax(logit.data(), 8, 2, 8, mask.data(), p.data(), top.data(), sum.data());
    for (std::size_t r = 0; r < 8; ++r) CHECK(p[r] == 0 && p[8 + r] == 1);
    // NaN is passed on, in its own row only.
    logit[2] = std::nan("");
    kernels.softmax(logit.data(), 8, 2, 8, nullptr, p.data(), top.data(), sum.data());
    CHECK(std::isnan(p[2]) && std::isnan(p[10]));
    CHECK(p[0] == 1 && p[8] == 0);
    // Nothing to choose from.
    logit.assign(16, -infinity);
    kernels.softmax(logit.data(), 8, 2, 8, nullptr, p.data(), top.data(), sum.data());
    for (std::size_t r = 0; r < 8; ++r) CHECK(p[r] == 0 && p[8 + r] == 0 && sum[r] == 0);
}

// --- logarithms, exponentials, densities --------------------------------------------------------------------------

// Measured: logarithm 0.9 units in the last place, exponential 1.6; asserted: 2 and 3.
void check_logarithm(const Kernels& kernels) {
    const std::size_t n = 20000;
    std::vector<double> out(n);
    const auto ulp = [](double got, Real want) {
        return std::abs(got - want) / (std::nextafter(std::abs(double(want)), 1e300) - std::abs(double(want)));
    };
    for (const double range : {1e-6, 0.5, 5.0, 700.0}) {
        std::vector<double> x = uniform(n, -range, range, 17);
        kernels.exponential(x.data(), n, out.data());
        Real worst = 0;
        for (std::size_t i = 0; i < n; ++i) worst = std::max(worst, ulp(out[i], std::exp(Real(x[i]))));
        CHECK(worst <= 3);
        for (double& v : x) v = std::exp(v);
        kernels.logarithm(x.data(), n, out.data());
        worst = 0;
        for (std::size_t i = 0; i < n; ++i) worst = std::max(worst, ulp(out[i], std::log(Real(x[i]))));
        CHECK(worst <= 2);
    }
    const std::vector<double> special = {1, 0, std::nan(""), 2, 1, 1, 1, 1};
    kernels.logarithm(special.data(), 8, out.data());
    CHECK(out[0] == 0 && out[1] == -std::numeric_limits<double>::infinity() && std::isnan(out[2]));
    CHECK(out[3] == std::log(2.0));
    const std::vector<double> large = {-800, 709, 0, std::nan(""), 0, 0, 0, 0};
    kernels.exponential(large.data(), 8, out.data());
    CHECK(out[0] == 0 && std::isfinite(out[1]) && out[2] == 1 && std::isnan(out[3]));
}

void check_densities(const Kernels& kernels) {
    const std::size_t n = 16;
    const std::vector<double> y = uniform(n, -2, 2, 1), mean = uniform(n, -2, 2, 2), w = uniform(n, 0.5, 2, 3);
    const double phi = 0.3, sigma = std::exp(phi);
    std::vector<std::vector<double>> c(8, std::vector<double>(n));
    kernels.gaussian(y.data(), mean.data(), phi, n,
                     {c[0].data(), c[1].data(), c[2].data(), c[3].data(), c[4].data(), c[5].data()});
    std::vector<double> r = uniform(n, 0, 1, 4);
    r[3] = 0;
    std::vector<std::vector<double>> weighed = c;
    weighed[1][3] = std::numeric_limits<double>::infinity();  // where the share is 0 nothing counts
    kernels.weigh_density(w.data(), r.data(), 1, n,
                          {weighed[1].data(), weighed[2].data(), weighed[3].data(), weighed[4].data(),
                           weighed[5].data(), weighed[6].data(), weighed[7].data()});
    for (std::size_t i = 0; i < n; ++i) {
        const double e = (y[i] - mean[i]) / sigma, wr = w[i] * r[i];
        CHECK_NEAR(c[0][i], -0.5 * e * e - phi - 0.5 * std::log(2 * std::acos(-1.0)), 1e-14);
        CHECK_NEAR(c[1][i], e / sigma, 1e-14);
        CHECK_NEAR(c[2][i], -1 / (sigma * sigma), 1e-15);
        CHECK_NEAR(c[3][i], e * e - 1, 1e-14);
        CHECK_NEAR(c[4][i], -2 * e * e, 1e-14);
        CHECK_NEAR(c[5][i], -2 * e / sigma, 1e-14);
        CHECK_NEAR(weighed[1][i], wr * e / sigma, 1e-14);
        CHECK_NEAR(weighed[2][i], wr * (e * e - 1) / (sigma * sigma), 1e-14);
        CHECK_NEAR(weighed[4][i], wr * ((e * e - 1) * (e * e - 1) - 2 * e * e), 1e-13);
        CHECK_NEAR(weighed[5][i], wr * e / sigma * (e * e - 3), 1e-13);
        CHECK_NEAR(weighed[6][i], wr / (sigma * sigma), 1e-15);
        CHECK_NEAR(weighed[7][i], 2 * wr * e * e, 1e-14);
    }
}

// --- activations --------------------------------------------------------------------------------------------------

struct Values {
    Real value, first, second;
};

Values exact(Activation phi, Real x) {
    switch (phi) {
        case Activation::identity: return {x, 1, 0};
        case Activation::relu: return {x > 0 ? x : 0, x > 0 ? Real(1) : 0, 0};
        case Activation::gelu: {
            const Real cdf = 0.5L * std::erfc(-x / std::sqrt(2.0L));
            const Real density = std::exp(-0.5L * x * x) / std::sqrt(2 * std::acos(-1.0L));
            return {x * cdf, cdf + x * density, density * (2 - x * x)};
        }
        case Activation::tanh: {
            const Real sech = 1 / std::cosh(x), t = std::tanh(x);
            return {t, sech * sech, -2 * t * sech * sech};
        }
        case Activation::sigmoid: {
            const Real v = 1 / (1 + std::exp(-x)), rest = 1 / (1 + std::exp(x));
            return {v, v * rest, v * rest * (rest - v)};
        }
        case Activation::softplus: {
            const Real v = 1 / (1 + std::exp(-x)), rest = 1 / (1 + std::exp(x));
            return {(x > 0 ? x : 0) + std::log1p(std::exp(x > 0 ? -x : x)), v, v * rest};
        }
        case Activation::cubic: return {x * x * x, 3 * x * x, 6 * x};
        case Activation::celu: return x > 0 ? Values{x, 1, 0} : Values{std::expm1(x), std::exp(x), std::exp(x)};
    }
    return {};
}

// Errors of value, first and second derivative in units of eps * max(1, abs(exact)); measured on x86-64 with and
// without fused multiply-add, in brackets. Derivatives of tanh and sigmoid cancel in their tails: their errors are
// absolute.
struct Bound {
    Activation phi;
    Real value, first, second;
};

constexpr Bound bounds[] = {
    {Activation::identity, 0, 0, 0}, {Activation::relu, 0, 0, 0}, {Activation::gelu, 2, 2, 2},  // (0.8, 1.1, 1.2)
    {Activation::tanh, 2, 5, 10},                                                               // (1.3, 2.8, 5.5)
    {Activation::sigmoid, 2, 2, 2},                                                             // (0.9, 0.9, 0.9)
    {Activation::softplus, 2, 2, 2},                                                            // (1.1, 0.9, 0.9)
    {Activation::cubic, 3, 3, 3},    {Activation::celu, 2, 2, 2},
};

void check_activations(const Kernels& kernels) {
    const std::size_t n = 20000;
    for (const Bound& bound : bounds)
        for (const double range : {1e-6, 1.0, 6.0, 40.0, 800.0}) {
            const std::vector<double> s = uniform(n, -range, range, 11);
            std::vector<double> value(n), first(n), second(n);
            kernels.activate(bound.phi, s.data(), n, value.data(), first.data(), second.data());
            Real worst[3] = {0, 0, 0};
            for (std::size_t i = 0; i < n; ++i) {
                const Values v = exact(bound.phi, s[i]);
                const auto error = [](double got, Real want) {
                    return std::abs(got - want) / std::max(Real(1), std::abs(want));
                };
                worst[0] = std::max(worst[0], error(value[i], v.value));
                worst[1] = std::max(worst[1], error(first[i], v.first));
                worst[2] = std::max(worst[2], error(second[i], v.second));
            }
            CHECK(worst[0] <= bound.value * eps);
            CHECK(worst[1] <= bound.first * eps);
            CHECK(worst[2] <= bound.second * eps);

            // The same values when derivatives are not asked for.
            std::vector<double> alone(n), slope(n);
            kernels.activate(bound.phi, s.data(), n, alone.data(), nullptr, nullptr);
            CHECK(alone == value);
            kernels.activate(bound.phi, s.data(), n, alone.data(), slope.data(), nullptr);
            CHECK(alone == value && slope == first);
        }
}

// Values keep their relative precision where they are small. Measured: tanh 1.6 eps, softplus 1.1, gelu 17 at -10 and
// growing as x^2 / 2 (the rounding of x^2 in the exponent).
void check_relative_precision(const Kernels& kernels) {
    const std::size_t n = 20000;
    std::vector<double> value(n);
    const auto worst = [&](Activation phi, double from, double to, Real growth) {
        const std::vector<double> s = uniform(n, from, to, 13);
        kernels.activate(phi, s.data(), n, value.data(), nullptr, nullptr);
        Real out = 0;
        for (std::size_t i = 0; i < n; ++i) {
            const Real want = exact(phi, s[i]).value;
            out = std::max(out, std::abs(value[i] / want - 1) / (1 + growth * Real(s[i]) * s[i]));
        }
        return out;
    };
    CHECK(worst(Activation::tanh, -1, 1, 0) <= 4 * eps);
    CHECK(worst(Activation::tanh, 1e-300, 1e-290, 0) <= 4 * eps);
    CHECK(worst(Activation::tanh, -30, 30, 0) <= 4 * eps);
    CHECK(worst(Activation::softplus, -700, 0, 0) <= 4 * eps);
    CHECK(worst(Activation::softplus, 0, 700, 0) <= 4 * eps);
    CHECK(worst(Activation::gelu, -37, 0, 1) <= 4 * eps);
    CHECK(worst(Activation::gelu, 0, 700, 0) <= 4 * eps);
}

// Values no model should have, and none may turn into NaN: where derivatives are 0, factors beside them overflow.
void check_activation_extremes(const Kernels& kernels) {
    const std::vector<double> s = {0, 1e-310, 1e160, -1e160, 1e308, -1e308, 750, -750};
    std::vector<double> value(8), first(8), second(8);
    for (const Bound& bound : bounds) {
        if (bound.phi == Activation::cubic) continue;  // it overflows, as it must
        kernels.activate(bound.phi, s.data(), 8, value.data(), first.data(), second.data());
        for (std::size_t i = 0; i < 8; ++i) {
            const bool upper = s[i] > 1, lower = s[i] < -1;
            CHECK(std::isfinite(value[i]) && std::isfinite(first[i]) && std::isfinite(second[i]));
            const bool saturates = bound.phi == Activation::tanh || bound.phi == Activation::sigmoid;
            if (upper) CHECK(value[i] == (saturates ? 1 : s[i]));
            if (upper) CHECK(first[i] == (saturates ? 0 : 1));
            const bool below = bound.phi == Activation::tanh || bound.phi == Activation::celu;
            if (lower && bound.phi != Activation::identity) CHECK(value[i] == (below ? -1 : 0));
            if (lower && bound.phi != Activation::identity) CHECK(first[i] == 0);
            if (upper || lower) CHECK(second[i] == 0);
        }
    }
    // NaN stays NaN wherever exp() is involved.
    const std::vector<double> broken(8, std::nan(""));
    for (const Activation phi :
         {Activation::gelu, Activation::tanh, Activation::sigmoid, Activation::softplus, Activation::celu}) {
        kernels.activate(phi, broken.data(), 8, value.data(), first.data(), second.data());
        CHECK(std::isnan(value[0]) && std::isnan(first[0]) && std::isnan(second[0]));
    }
}

}  // namespace

int main() {
    std::cout << "instruction set: " << cosmoe::kernel::instruction_set() << '\n';
    for (const Kernels* kernels : {&in_use, &portable}) {
        check_products(*kernels);
        check_extreme_norms(*kernels);
        check_weighted(*kernels);
        check_largest(*kernels);
        check_listed(*kernels);
        check_elementwise(*kernels);
        check_exp(*kernels);
        check_softmax(*kernels);
        check_softmax_extremes(*kernels);
        check_logarithm(*kernels);
        check_densities(*kernels);
        check_activations(*kernels);
        check_relative_precision(*kernels);
        check_activation_extremes(*kernels);
    }
    return check::report();
}
