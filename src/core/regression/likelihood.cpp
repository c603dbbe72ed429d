#include "regression/likelihood.h"

#include <cmath>
#include <limits>

#include "common/kernels.h"

namespace cosmoe {

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

// The responsibilities r_k = p_k f_k / sum_j p_j f_j into `share`; returns sum w log sum_k p_k f_k.
double LikelihoodCriterion::shares(const Layout& layout, Block& block) const {
    const std::size_t k = layout.k(), n = block.n;
    const double* w = block.w.col(0);
    double *top = block.terms.col(parts * k), *total = block.terms.col(parts * k + 1);
    std::fill_n(top, n, -std::numeric_limits<double>::infinity());
    std::fill_n(total, n, 0.0);
    for (std::size_t m = 0; m < k; ++m) {
        const double *p = block.p.col(m), *density = block.terms.col(column(log_density, m));
        double* joint = block.terms.col(column(share, m));
        for (std::size_t i = 0; i < n; ++i) {
            joint[i] = p[i] > 0 ? std::log(p[i]) + density[i] : -std::numeric_limits<double>::infinity();
            top[i] = std::max(top[i], joint[i]);
        }
    }
    for (std::size_t m = 0; m < k; ++m) {
        double* joint = block.terms.col(column(share, m));
        for (std::size_t i = 0; i < n; ++i) {
            joint[i] = std::isfinite(top[i]) ? std::exp(joint[i] - top[i]) : 0.0;
            total[i] += joint[i];
        }
    }
    double value = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if (w[i] > 0) value += w[i] * (top[i] + std::log(total[i]));
        total[i] = total[i] > 0 ? 1 / total[i] : 0;
    }
    for (std::size_t m = 0; m < k; ++m)
        kernel::multiply(total, block.terms.col(column(share, m)), n, block.terms.col(column(share, m)));
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
        for (std::size_t m = 0; m < k; ++m) {
            const double *r = block.terms.col(column(share, m)), *p = block.p.col(m);
            const double* density = block.terms.col(column(log_density, m));
            for (std::size_t i = 0; i < n; ++i)
                if (r[i] > 0 && w[i] > 0) value -= w[i] * r[i] * (std::log(p[i]) + density[i]);
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
    return value;
}

// The Hessian of -log sum_k exp(q_k) is g g' - sum_k r_k (q_k'' + q_k' q_k''), with g = - sum_k r_k q_k'; that of the
// expected complete likelihood is - sum_k r_k q_k''. The normal matrix: g g' (the scores' cross product), or the
// complete data's information, - sum_k r_k q_k'' with the curvature of log f_k made non-negative.
void LikelihoodCriterion::pair(const Layout& layout, const PairGroup& group, std::size_t j, const Block& block,
                               double* normal, double* exact) const {
    const auto [s, t] = group.pairs[j];
    const Predictor &ps = layout.predictors()[s], &pt = layout.predictors()[t];
    const double *gs = block.slope.col(s), *gt = block.slope.col(t), *w = block.w.col(0);
    const std::size_t n = block.n, own = block.predictors;
    const bool same = ps.owner == pt.owner, em = anchor_ != nullptr, complete = information_ == Information::complete;
    const double *pm = block.p.col(ps.owner), *pn = block.p.col(pt.owner);
    const double *rm = block.terms.col(column(share, ps.owner)), *rn = block.terms.col(column(share, pt.owner));
    if (!complete) kernel::multiply3(w, gs, gt, n, normal);
    else std::fill_n(normal, n, 0.0);
    if (exact && em) std::fill_n(exact, n, 0.0);
    else if (exact) kernel::multiply3(w, gs, gt, n, exact);
    if (ps.features == Features::gate && pt.features == Features::gate) {
        for (std::size_t i = 0; i < n; ++i) {
            const double cross = pm[i] * pn[i], own_share = same ? pm[i] : 0.0;
            const double information = w[i] * (own_share - cross);
            if (complete) normal[i] = information;
            if (exact && em) exact[i] = information;
            else if (exact) {
                exact[i] -= w[i] * ((same ? rm[i] : 0.0) - own_share - rm[i] * pn[i] - rn[i] * pm[i] + 2 * cross);
            }
        }
        return;
    }
    if (ps.features == Features::gate) {
        // r_n ([m = n] - p_m) dlog f_n/dt = -([m = n] - p_m) g_t
        if (!em && exact)
            for (std::size_t i = 0; i < n; ++i) exact[i] += w[i] * ((same ? 1.0 : 0.0) - pm[i]) * gt[i];
        return;
    }
    if (!same) return;
    const auto term = [&](Part part) { return block.terms.col(column(part, ps.owner)); };
    const double *one = term(d1), *two = term(d2), *phi1 = term(dphi), *phi2 = term(d2phi), *mixed = term(dcross);
    const bool phi_s = ps.local == own, phi_t = pt.local == own;
    const double* hs = phi_s ? nullptr : block.d1(ps.owner, ps.local);
    const double* ht = phi_t ? nullptr : block.d1(pt.owner, pt.local);
    const double* bend = group.curved[j] >= 0 ? block.d2(ps.owner, group.curved[j]) : nullptr;
    for (std::size_t i = 0; i < n; ++i) {
        if (!(rm[i] > 0)) continue;
        // Second derivative of log f, the part of it that is used in `normal`, and the product of first derivatives.
        double second, kept, product;
        if (phi_s && phi_t) second = phi2[i], kept = std::min(second, 0.0), product = phi1[i] * phi1[i];
        else if (phi_s || phi_t) {
            const double h = phi_s ? ht[i] : hs[i];
            second = mixed[i] * h, kept = 0, product = one[i] * phi1[i] * h;
        } else {
            const double both = hs[i] * ht[i];
            second = two[i] * both, kept = std::min(two[i], 0.0) * both, product = one[i] * one[i] * both;
        }
        if (exact && bend) second += one[i] * bend[i];
        if (complete) normal[i] = -w[i] * rm[i] * kept;
        if (exact) exact[i] -= w[i] * rm[i] * (em ? second : second + product);
    }
}

}  // namespace cosmoe
