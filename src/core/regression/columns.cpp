#include "regression/columns.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

namespace cosmoe {
namespace {

// In four sums side by side, which need not wait for each other.
template <class Term>
long double sum_of(std::size_t n, const Term& term) {
    long double a = 0, b = 0, c = 0, d = 0;
    std::size_t i = 0;
    for (; i + 4 <= n; i += 4) a += term(i), b += term(i + 1), c += term(i + 2), d += term(i + 3);
    for (; i < n; ++i) a += term(i);
    return (a + b) + (c + d);
}

}  // namespace

ColumnSummary summarise_column(const double* column, const double* w, std::size_t n) {
    ColumnSummary out;
    out.least = out.largest = column[0];
    for (std::size_t i = 0; i < n; ++i) {
        const double v = column[i];
        if (v < out.least) out.least = v, out.least_row = i;
        if (v > out.largest) out.largest = v, out.largest_row = i;
    }
    const long double total = w ? sum_of(n, [&](std::size_t i) { return w[i]; }) : static_cast<long double>(n);
    const auto mean_of = [&](const auto& term) {
        const long double sum = w ? sum_of(n, [&](std::size_t i) { return w[i] * term(i); }) : sum_of(n, term);
        return static_cast<double>(sum / total);
    };
    out.center = mean_of([&](std::size_t i) { return column[i]; });
    if (!std::isfinite(out.center)) {  // the sum overflows
        long double mean = 0;
        for (std::size_t i = 0; i < n; ++i) mean += column[i] / static_cast<long double>(n);
        out.center = static_cast<double>(mean);
    }
    // Squares must neither overflow nor underflow.
    const double top = std::max(out.largest - out.center, out.center - out.least);
    if (!(top > 0)) return out;
    const auto root_mean_square = [&](const auto& value) {
        return std::sqrt(mean_of([&](std::size_t i) { return value(i) * value(i); }));
    };
    const auto deviation = [&](std::size_t i) { return column[i] - out.center; };
    out.spread = top > 1e-100 && top < 1e100
                     ? root_mean_square(deviation)
                     : top * root_mean_square([&](std::size_t i) { return deviation(i) / top; });
    return out;
}

double lower_median(const double* column, std::size_t n) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const std::size_t rank = (n - 1) / 2;
    double low = -infinity, high = infinity;
    // Some values, evenly spread, tell where it will be, give or take three standard deviations of their median's rank:
    // only what lies there is sorted out.
    constexpr std::size_t some = 1024, deviations = 3 * 16;
    if (n >= 4 * some) {
        std::vector<double> sample(some);
        for (std::size_t i = 0; i < some; ++i) sample[i] = column[i * (n / some)];
        const auto lower = sample.begin() + some / 2 - deviations, upper = sample.begin() + some / 2 + deviations;
        std::nth_element(sample.begin(), lower, sample.end());
        std::nth_element(lower + 1, upper, sample.end());
        low = *lower, high = *upper;
    }
    const std::unique_ptr<double[]> found(new double[n]);  // memory that is not touched costs nothing
    for (;;) {
        std::size_t below = 0, within = 0;
        for (std::size_t i = 0; i < n; ++i) {
            const double v = column[i];
            below += v < low;
            found[within] = v;
            within += !(v < low) & !(v > high);
        }
        if (below <= rank && rank < below + within) {
            double* middle = found.get() + (rank - below);
            std::nth_element(found.get(), middle, found.get() + within);
            return *middle;
        }
        low = -infinity, high = infinity;  // these rows are unlike the others
    }
}

}  // namespace cosmoe
