#include "regression/columns.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace cosmoe {

ColumnSummary summarise_column(const double* column, const double* w, std::size_t n) {
    ColumnSummary out;
    out.least = out.largest = column[0];
    long double total = 0, sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const double v = column[i];
        if (v < out.least) out.least = v, out.least_row = i;
        if (v > out.largest) out.largest = v, out.largest_row = i;
        total += w ? w[i] : 1.0;
        sum += w ? w[i] * v : v;
    }
    out.center = static_cast<double>(sum / total);
    if (!std::isfinite(out.center)) {  // the sum overflows
        long double mean = 0;
        for (std::size_t i = 0; i < n; ++i) mean += column[i] / static_cast<long double>(n);
        out.center = static_cast<double>(mean);
    }
    // Squares must neither overflow nor underflow.
    const double top = std::max(out.largest - out.center, out.center - out.least);
    if (!(top > 0)) return out;
    const double unit = top > 1e-100 && top < 1e100 ? 1 : top;
    long double squares = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const double deviation = (column[i] - out.center) / unit, square = deviation * deviation;
        squares += w ? w[i] * square : square;
    }
    out.spread = unit * std::sqrt(static_cast<double>(squares / total));
    return out;
}

double lower_median(const double* column, std::size_t n) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const std::size_t rank = (n - 1) / 2;
    double low = -infinity, high = infinity;
    // Some values, evenly spread, tell where it will be, give or take three standard deviations of their median's rank:
    // only what lies there has to be copied.
    constexpr std::size_t some = 256, deviations = 3 * 8;
    if (n >= 8 * some) {
        double sample[some];
        for (std::size_t i = 0; i < some; ++i) sample[i] = column[i * (n / some)];
        std::sort(sample, sample + some);
        low = sample[some / 2 - deviations], high = sample[some / 2 + deviations];
    }
    for (;;) {
        std::size_t below = 0, within = 0;
        for (std::size_t i = 0; i < n; ++i) {
            below += column[i] < low;
            within += column[i] <= high;
        }
        within -= below;
        if (below <= rank && rank < below + within) {
            std::vector<double> found(within + 1);  // one more place, for what is written and not kept
            std::size_t count = 0;
            for (std::size_t i = 0; i < n; ++i) {
                found[count] = column[i];
                count += column[i] >= low && column[i] <= high;
            }
            const auto middle = found.begin() + static_cast<std::ptrdiff_t>(rank - below);
            std::nth_element(found.begin(), middle, found.end() - 1);
            return *middle;
        }
        low = -infinity, high = infinity;  // these rows are unlike the others
    }
}

}  // namespace cosmoe
