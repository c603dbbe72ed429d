#include "regression/rows.h"

#include <algorithm>
#include <cmath>

#include "common/kernels.h"
#include "regression/row_sums.h"

namespace cosmoe {
namespace {

void load_column(const double* column, double center, double scale, std::size_t first, std::size_t count,
                 std::size_t padded, const std::size_t* index, double* out) {
    const double factor = 1 / scale;
    if (index)
        for (std::size_t i = 0; i < count; ++i) out[i] = (column[index[first + i]] - center) * factor;
    else kernel::standardize(column + first, center, factor, count, out);
    std::fill(out + count, out + padded, 0.0);
}

// The norm of one row where the plain sum of squares over- or underflows.
double safe_norm(const Buffer& z, std::size_t d, std::size_t row) {
    double top = 0, sum = 0;
    for (std::size_t j = 0; j < d; ++j) top = std::max(top, std::abs(z.col(j)[row]));
    if (top == 0 || !std::isfinite(top)) return top;
    for (std::size_t j = 0; j < d; ++j) sum += (z.col(j)[row] / top) * (z.col(j)[row] / top);
    return top * std::sqrt(sum);
}

// zeta = factor * z; the factor of each row from its norm.
void scale_features(const Router& router, std::size_t d, std::size_t count, std::size_t padded, const Buffer& z,
                    Buffer& zeta) {
    double* factor = zeta.col(d);                                     // the column of ones, filled later
    const std::size_t whole = count / lane_multiple * lane_multiple;  // what is left, and padding, row by row
    const bool plain = kernel::inverse_norms(z.col(0), z.rows(), d, whole, router.feature_offset(), factor);
    // Squares that over- or underflow, and zeros.
    for (std::size_t i = plain ? whole : 0; i < count; ++i) factor[i] = router.feature_factor(safe_norm(z, d, i));
    std::fill(factor + count, factor + padded, 0.0);
    for (std::size_t j = 0; j < d; ++j) kernel::multiply(z.col(j), factor, padded, zeta.col(j));
}

void load_columns(const double* data, std::size_t n, std::size_t d, const arma::vec& center, const arma::vec& scale,
                  std::size_t first, std::size_t count, std::size_t padded, const std::size_t* index, Buffer& out) {
    for (std::size_t j = 0; j < d; ++j)
        load_column(data + j * n, center.is_empty() ? 0 : center[j], scale.is_empty() ? 1 : scale[j], first, count,
                    padded, index, out.col(j));
}

void fill_ones(std::size_t count, std::size_t padded, double* column) {
    std::fill(column, column + count, 1.0);
    std::fill(column + count, column + padded, 0.0);
}

bool same(const arma::vec& a, const arma::vec& b) {
    return a.n_elem == b.n_elem && std::equal(a.begin(), a.end(), b.begin());
}

}  // namespace

bool Rows::shared() const { return x == z && dx == dz && same(x_center, z_center) && same(x_scale, z_scale); }

void load_experts(const Rows& rows, std::size_t first, std::size_t count, std::size_t padded, const std::size_t* index,
                  Buffer& x) {
    load_columns(rows.x, rows.n, rows.dx, rows.x_center, rows.x_scale, first, count, padded, index, x);
    fill_ones(count, padded, x.col(rows.dx));
}

void load_gates(const Rows& rows, const Router& router, std::size_t first, std::size_t count, std::size_t padded,
                const std::size_t* index, Buffer& zeta) {
    load_columns(rows.z, rows.n, rows.dz, rows.z_center, rows.z_scale, first, count, padded, index, zeta);
    if (router.scales_features()) scale_features(router, rows.dz, count, padded, zeta, zeta);
    fill_ones(count, padded, zeta.col(rows.dz));
}

void load_block(const Rows& rows, const Router& router, std::size_t first, std::size_t count, std::size_t padded,
                const std::size_t* index, Buffer& x, Buffer& zeta) {
    load_experts(rows, first, count, padded, index, x);
    if (!rows.shared()) return load_gates(rows, router, first, count, padded, index, zeta);
    if (router.scales_features()) scale_features(router, rows.dz, count, padded, x, zeta);
    else
        for (std::size_t j = 0; j < rows.dz; ++j) std::copy_n(x.col(j), padded, zeta.col(j));
    fill_ones(count, padded, zeta.col(rows.dz));
}

RowTotals row_totals(const Rows& rows) {
    RowTotals out;
    double sum = 0;
    const auto each = [&](auto add) {
        for (std::size_t i = 0; i < rows.n; ++i) {
            const double w = rows.w ? rows.w[i] : 1;
            if (w > 0) add(w, rows.y[i]);
        }
    };
    each([&](double w, double y) { out.weight += w, sum += w * y, out.squares += w * y * y, out.used += 1; });
    const double mean = out.weight > 0 ? sum / out.weight : 0;
    each([&](double w, double y) { out.deviation += w * (y - mean) * (y - mean); });
    return out;
}

}  // namespace cosmoe
