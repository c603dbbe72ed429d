#include "regression/likelihood.h"

#include <cmath>
#include <limits>

#include "common/kernels.h"

namespace cosmoe {
namespace {

constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

}  // namespace

void LikelihoodCriterion::densities(const Layout& layout, const arma::vec& theta, Block& block) const {
    const std::size_t k = layout.k(), n = block.n;
    const double *w = block.w.col(0), *offset = block.offset.col(0);
    double* eta = block.terms.col(parts * k);
    for (std::size_t m = 0; m < k; ++m) {
        const double* h = block.h.col(m);
        for (std::size_t i = 0; i < n; ++i) eta[i] = h[i] + offset[i];
        const auto col = [&](Part part) { return block.terms.col(column(part, m)); };
        const DensityBlock out{n,       block.y.col(0), block.trials.col(0), col(log_density), col(d1),
                               col(d2), col(dphi),      col(d2phi),          col(dcross)};
        family_.evaluate(out, w, eta, layout.dispersions() > 0 ? theta[layout.dispersion(m)] : 0.0);
    }
}

// The responsibilities r_k = p_k f_k / sum_j p_j f_j into `share`; returns sum w log sum_k p_k f_k. The log densities
// become those of expert and response together, without the norm of the gate.
double LikelihoodCriterion::shares(const Layout& layout, Block& block) const {
    const std::size_t k = layout.k(), n = block.n;
    const double *w = block.w.col(0), *gate_top = block.norm.col(0), *gate_sum = block.norm.col(1);
    for (std::size_t m = 0; m < k; ++m) {
        const double *p = block.p.col(m), *logit = block.logit.col(m);
        double* joint = block.terms.col(column(log_density, m));
        for (std::size_t i = 0; i < n; ++i) joint[i] = p[i] > 0 ? joint[i] + logit[i] : minus_infinity;
    }
    double *top = block.terms.col(parts * k), *sum = block.terms.col(parts * k + 1);
    double* ratio = block.terms.col(parts * k + 2);
    kernel::softmax(block.terms.col(column(log_density, 0)), parts * block_rows, k, n, nullptr,
                    block.terms.col(column(share, 0)), top, sum);
    for (std::size_t i = 0; i < n; ++i) ratio[i] = sum[i] / gate_sum[i];
    kernel::logarithm(ratio, n, ratio);
    double value = 0;
    for (std::size_t i = 0; i < n; ++i)
        if (w[i] > 0) value += w[i] * (top[i] - gate_top[i] + ratio[i]);
    return value;
}

// EM: responsibilities at the anchor, kept in `share` while the block is evaluated at theta.
void LikelihoodCriterion::remember(const Layout& layout, Block& block) const {
    densities(layout, *anchor_, block);
    shares(layout, block);
}

// slope_s = - sum_k r_k dq_k/ds with q_k = log p_k + log f_k, and dq_k/dl_m = [k = m] - p_m.
double LikelihoodCriterion::add_rows(const Layout& layout, const arma::vec& theta, int derivatives,
                                     Block& block) const {
    const std::size_t k = layout.k(), n = block.n, own = block.predictors;
    const double* w = block.w.col(0);
    densities(layout, theta, block);
    double value = 0;
    if (!anchor_) {
        value = -shares(layout, block);
    } else {
        double* log_sum = block.terms.col(parts * k);
        kernel::logarithm(block.norm.col(1), n, log_sum);
        for (std::size_t m = 0; m < k; ++m) {
            const double *r = block.terms.col(column(share, m)), *p = block.p.col(m), *logit = block.logit.col(m);
            const double *density = block.terms.col(column(log_density, m)), *top = block.norm.col(0);
            for (std::size_t i = 0; i < n; ++i) {
                if (!(r[i] > 0 && w[i] > 0)) continue;
                const double log_p = p[i] > 0 ? logit[i] - top[i] - log_sum[i] : minus_infinity;
                value -= w[i] * r[i] * (log_p + density[i]);
            }
        }
    }
    if (derivatives < 1) return value;
    for (std::size_t m = 0; m < k; ++m) {
        const double *r = block.terms.col(column(share, m)), *p = block.p.col(m);
        double* gate = block.slope.col(m);
        for (std::size_t i = 0; i < n; ++i) gate[i] = p[i] - r[i];
        double* minus_score = block.terms.col(parts * k);
        const double *score = block.terms.col(column(d1, m)), *of_phi = block.terms.col(column(dphi, m));
        for (std::size_t i = 0; i < n; ++i) minus_score[i] = r[i] > 0 ? -r[i] * score[i] : 0.0;
        for (std::size_t a = 0; a < own; ++a)
            kernel::multiply(minus_score, block.d1(m, a), n, block.slope.col(layout.predictor(m, a)));
        if (layout.dispersions() == 0) continue;
        double* phi = block.slope.col(layout.predictor(m, own));
        for (std::size_t i = 0; i < n; ++i) phi[i] = r[i] > 0 ? -r[i] * of_phi[i] : 0.0;
    }
    for (std::size_t s = 0; s < layout.predictors().size(); ++s)
        kernel::multiply(w, block.slope.col(s), n, block.weighted.col(s));
    if (derivatives < 2 && information_ != Information::complete) return value;
    for (std::size_t m = 0; m < k; ++m) {
        const auto col = [&](Part part) { return block.terms.col(column(part, m)); };
        kernel::weigh_density(w, col(share), anchor_ ? 0 : 1, n,
                              {col(d1), col(d2), col(dphi), col(d2phi), col(dcross), col(kept), col(kept_phi)});
    }
    return value;
}

// The Hessian of -log sum_k exp(q_k) is g g' - sum_k r_k (q_k'' + q_k' q_k''), with g = - sum_k r_k q_k'; that of the
// expected complete likelihood is - sum_k r_k q_k''. In the logits that is [m = n] (p_m - r_m) + r_m r_n - p_m p_n and
// [m = n] p_m - p_m p_n, and the mixed part of the first ([m = n] - r_m) g_t. The normal matrix: g g' (the scores'
// cross product), or the complete data's information, - sum_k r_k q_k'' with the curvature of log f_k made non-negative.
void LikelihoodCriterion::pair(const Layout& layout, const PairGroup& group, std::size_t j, const Block& block,
                               double* normal, double* exact) const {
    const auto [s, t] = group.pairs[j];
    const Predictor &ps = layout.predictors()[s], &pt = layout.predictors()[t];
    const double *gt = block.slope.col(t), *ws = block.weighted.col(s), *wt = block.weighted.col(t);
    const double* w = block.w.col(0);
    const std::size_t n = block.n, own = block.predictors;
    const bool same = ps.owner == pt.owner, em = anchor_ != nullptr, complete = information_ == Information::complete;
    const auto zero = [n](double* out) { std::fill_n(out, n, 0.0); };
    const auto term = [&](Part part, std::size_t m) { return block.terms.col(column(part, m)); };
    if (!complete) kernel::multiply(ws, block.slope.col(t), n, normal);
    if (ps.features == Features::gate && pt.features == Features::gate) {
        const double *pm = block.p.col(ps.owner), *pn = block.p.col(pt.owner);
        const double *rm = term(share, ps.owner), *rn = term(share, pt.owner);
        double* information = complete ? normal : exact;
        if (!information) return;
        // w ([m = n] p_m - p_m p_n)
        for (std::size_t i = 0; i < n; ++i) information[i] = w[i] * pm[i] * ((same ? 1.0 : 0.0) - pn[i]);
        if (!exact) return;
        if (information != exact) std::copy_n(information, n, exact);
        if (em) return;
        for (std::size_t i = 0; i < n; ++i) exact[i] += w[i] * rm[i] * (rn[i] - (same ? 1.0 : 0.0));
        return;
    }
    if (ps.features == Features::gate) {
        if (complete) zero(normal);
        if (!exact) return;
        if (em || !same) zero(exact);
        else std::copy_n(wt, n, exact);
        if (!em) kernel::subtract_product(wt, term(share, ps.owner), n, exact);
        return;
    }
    if (!same) {
        if (complete) zero(normal);
        if (exact && em) zero(exact);
        else if (exact) kernel::multiply(ws, gt, n, exact);
        return;
    }
    const std::size_t m = ps.owner;
    const bool phi_s = ps.local == own, phi_t = pt.local == own;
    // Both derivatives of log f in the expert's predictors come with those of its value.
    const double* hs = phi_s ? nullptr : block.d1(m, ps.local);
    const double* ht = phi_t ? nullptr : block.d1(m, pt.local);
    if (complete) {
        if (phi_s && phi_t) std::copy_n(term(kept_phi, m), n, normal);
        else if (phi_s || phi_t) zero(normal);
        else kernel::multiply3(term(kept, m), hs, ht, n, normal);
    }
    if (!exact) return;
    if (em) zero(exact);
    else kernel::multiply(ws, gt, n, exact);
    if (phi_s && phi_t) {
        const double* both = term(d2phi, m);
        for (std::size_t i = 0; i < n; ++i) exact[i] -= both[i];
    } else if (phi_s || phi_t) {
        kernel::subtract_product(term(dcross, m), phi_s ? ht : hs, n, exact);
    } else {
        const double* both = term(d2, m);
        for (std::size_t i = 0; i < n; ++i) exact[i] -= both[i] * hs[i] * ht[i];
        if (group.curved[j] >= 0) kernel::subtract_product(term(d1, m), block.d2(m, group.curved[j]), n, exact);
    }
}

}  // namespace cosmoe
