#include "regression/outcome.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/buffer.h"
#include "common/chunks.h"
#include "common/kernels.h"
#include "regression/block.h"

namespace cosmoe {
namespace {

// Of one block of rows: mean responses, log(p_k f_k) and responsibilities, a column for each expert.
struct Values {
    explicit Values(std::size_t k)
        : mean(block_rows, k),
          joint(block_rows, k),
          share(block_rows, k),
          entropy(block_rows, 1),
          top(block_rows, 1),
          sum(block_rows, 1),
          y(block_rows, 1),
          w(block_rows, 1),
          trials(block_rows, 1),
          eta(block_rows, 1),
          unused(block_rows, 5) {}
    Buffer mean, joint, share, entropy, top, sum, y, w, trials, eta;
    Buffer unused;  // derivatives of the densities
};

void load(const OutcomeRows& rows, std::size_t first, std::size_t count, const Family* family, const arma::vec& phi,
          Values& v) {
    const auto fill = [&](const double* from, double otherwise, double* to) {
        for (std::size_t i = 0; i < count; ++i) to[i] = from ? from[first + i] : otherwise;
        std::fill(to + count, to + block_rows, 0.0);
    };
    fill(rows.w, 1, v.w.col(0));
    for (std::size_t m = 0; m < rows.k; ++m) fill(rows.expert + m * rows.n, 0, v.mean.col(m));
    if (!family) return;
    fill(rows.y, 0, v.y.col(0));
    fill(rows.trials, 1, v.trials.col(0));
    const std::size_t n = round_up(count, lane_multiple);
    const auto unused = [&](std::size_t j) { return v.unused.col(j); };
    for (std::size_t m = 0; m < rows.k; ++m) {
        double *mean = v.mean.col(m), *eta = v.eta.col(0), *joint = v.joint.col(m);
        const double* p = rows.gate + m * rows.n + first;
        for (std::size_t i = 0; i < count; ++i) eta[i] = mean[i] + (rows.offset ? rows.offset[first + i] : 0.0);
        std::fill(eta + count, eta + block_rows, 0.0);
        const DensityBlock out{n,         v.y.col(0), v.trials.col(0), joint,    unused(0),
                               unused(1), unused(2),  unused(3),       unused(4)};
        family->evaluate(out, v.w.col(0), eta, phi[m]);
        for (std::size_t i = 0; i < count; ++i) mean[i] = family->mean(eta[i]);
        // The smallest normal number stands for what is smaller, whose logarithm the kernel does not know.
        double* log_p = v.share.col(m);
        for (std::size_t i = 0; i < count; ++i) log_p[i] = std::max(p[i], std::numeric_limits<double>::min());
        kernel::logarithm(log_p, n, log_p);
        for (std::size_t i = 0; i < count; ++i)
            joint[i] =
                p[i] > 0 && !std::isnan(joint[i]) ? joint[i] + log_p[i] : -std::numeric_limits<double>::infinity();
    }
}

// An expert has weight in a row if its share is at least this.
constexpr double some_weight = 1e-3;

bool is_extreme(double p, double size, const double* limits) {
    const bool counts = p >= some_weight;
    return (counts ? size : p * size) > limits[1] || (counts && size < limits[0]);
}

// - sum_k r_k log r_k of each row, r_k in proportion to exp(joint_k); not a number where all are impossible.
void entropies(std::size_t k, std::size_t count, Values& v) {
    const std::size_t n = round_up(count, lane_multiple);
    double *entropy = v.entropy.col(0), *top = v.top.col(0), *sum = v.sum.col(0);
    kernel::softmax(v.joint.col(0), block_rows, k, n, nullptr, v.share.col(0), top, sum);
    kernel::logarithm(sum, n, entropy);
    for (std::size_t i = 0; i < count; ++i)
        if (!(sum[i] > 0)) entropy[i] = std::numeric_limits<double>::quiet_NaN();
    for (std::size_t m = 0; m < k; ++m) {
        const double *share = v.share.col(m), *joint = v.joint.col(m);
        for (std::size_t i = 0; i < count; ++i)
            if (share[i] > 0) entropy[i] -= share[i] * (joint[i] - top[i]);
    }
}

}  // namespace

Outcome summarise(const OutcomeRows& rows, const Family* family, const arma::vec& phi, double* f) {
    const std::size_t k = rows.k;
    Outcome out(k);
    Values v(k);
    for (std::size_t first = 0; first < rows.n; first += block_rows) {
        const std::size_t count = std::min(block_rows, rows.n - first);
        load(rows, first, count, family, phi, v);
        if (family) entropies(k, count, v);
        const auto gate = [&](std::size_t m, std::size_t i) { return rows.gate[m * rows.n + first + i]; };
        for (std::size_t i = 0; i < count; ++i) {
            double value = 0;
            for (std::size_t m = 0; m < k; ++m)
                if (gate(m, i) != 0) value += gate(m, i) * v.mean.col(m)[i];
            f[first + i] = value;
            const double w = v.w.col(0)[i];
            if (!(w > 0)) continue;
            if (family) out.entropy += w * v.entropy.col(0)[i];
            for (std::size_t m = 0; m < k; ++m) {
                const double p = gate(m, i), h = v.mean.col(m)[i];
                if (!(p > 0)) continue;
                out.gate[m] += w * p;
                if (rows.limits && is_extreme(p, std::abs(h), rows.limits)) out.extreme[m] += w;
                out.influence[m] += w * (p * (h - value)) * (p * (h - value));
                for (std::size_t j = 0; j <= m; ++j) {
                    const double joint = w * p * gate(j, i), apart = h - v.mean.col(j)[i];
                    if (!(joint > 0)) continue;
                    out.both(m, j) += joint;
                    if (j < m) out.difference(m, j) += joint * apart * apart;
                }
            }
        }
    }
    out.both = arma::symmatl(out.both);
    out.difference = arma::symmatl(out.difference);
    return out;
}

}  // namespace cosmoe
