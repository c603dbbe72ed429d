#include "regression/columns.h"

#include <algorithm>
#include <cmath>

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

}  // namespace cosmoe
