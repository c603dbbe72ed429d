#include "regression/likelihood.h"

#include <algorithm>
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
        std::copy_n(h, n, eta);
        kernel::add(offset, n, eta);
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
        double* joint = block.terms.col(column(log_density, m));
        kernel::add_finite_part(block.p.col(m), block.logit.col(m), n, joint);
    }
    double *top = block.terms.col(parts * k), *sum = block.terms.col(parts * k + 1);
    double* ratio = block.terms.col(parts * k + 2);
    kernel::softmax(block.terms.col(column(log_density, 0)), parts * block_rows, k, n, nullptr,
                    block.terms.col(column(share, 0)), top, sum);
    kernel::divide(sum, gate_sum, n, ratio);
    kernel::logarithm(ratio, n, ratio);
    return kernel::weighted_sum(w, top, gate_top, ratio, n);
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
        kernel::subtract(p, r, n, block.slope.col(m));
        double* minus_score = block.terms.col(parts * k);
        kernel::multiply_negative(r, block.terms.col(column(d1, m)), n, minus_score);
        for (std::size_t a = 0; a < own; ++a)
            kernel::multiply(minus_score, block.d1(m, a), n, block.slope.col(layout.predictor(m, a)));
        if (layout.dispersions() == 0) continue;
        kernel::multiply_negative(r, block.terms.col(column(dphi, m)), n, block.slope.col(layout.predictor(m, own)));
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
    const auto term = [&](Part part, std::size_t m) { return block.terms.col(column(part, m)); };
    if (!complete && normal) kernel::multiply(ws, gt, n, normal);
    if (!exact && !complete) return;
    if (ps.features == Features::gate && pt.features == Features::gate) {
        const double one = same ? 1 : 0;
        double* information = complete && normal ? normal : exact;
        kernel::covariance(w, block.p.col(ps.owner), block.p.col(pt.owner), one, n, information);
        if (!exact) return;
        if (information != exact) std::copy_n(information, n, exact);
        if (!em) kernel::subtract_covariance(w, term(share, ps.owner), term(share, pt.owner), one, n, exact);
        return;
    }
    if (ps.features == Features::gate) {
        if (!exact) return;
        if (same) std::copy_n(wt, n, exact);
        else std::fill_n(exact, n, 0.0);
        kernel::subtract_product(wt, term(share, ps.owner), n, exact);
        return;
    }
    if (!same) {
        if (exact) kernel::multiply(ws, gt, n, exact);
        return;
    }
    const std::size_t m = ps.owner;
    const bool phi_s = ps.local == own, phi_t = pt.local == own;
    // Both derivatives of log f in the expert's predictors come with those of its value.
    const double* hs = phi_s ? nullptr : block.d1(m, ps.local);
    const double* ht = phi_t ? nullptr : block.d1(m, pt.local);
    if (complete && normal) {
        if (phi_s) std::copy_n(term(kept_phi, m), n, normal);
        else kernel::multiply3(term(kept, m), hs, ht, n, normal);
    }
    if (!exact) return;
    if (em) std::fill_n(exact, n, 0.0);
    else kernel::multiply(ws, gt, n, exact);
    if (phi_s && phi_t) {
        kernel::subtract(exact, term(d2phi, m), n, exact);
    } else if (phi_s || phi_t) {
        kernel::subtract_product(term(dcross, m), phi_s ? ht : hs, n, exact);
    } else {
        kernel::subtract_product3(term(d2, m), hs, ht, n, exact);
        if (group.curved[j] >= 0) kernel::subtract_product(term(d1, m), block.d2(m, group.curved[j]), n, exact);
    }
}

// The complete data's likelihood is a sum of one function for the gates and one for each expert with its dispersion;
// its information has nothing for an expert and its dispersion together.
bool LikelihoodCriterion::vanishes(const Predictor& s, const Predictor& t, bool exact) const {
    if (information_ != Information::complete || (exact && !anchor_)) return false;
    const bool gate_s = s.features == Features::gate, gate_t = t.features == Features::gate;
    if (gate_s || gate_t) return gate_s != gate_t;
    return s.owner != t.owner || (!exact && s.dispersion != t.dispersion);
}

}  // namespace cosmoe
