#include "regression/criterion.h"

#include "common/kernels.h"

namespace cosmoe {

// slope = df/dpredictor; weighted = -w r df/dpredictor; the one column of terms is -w r.
double LeastSquaresCriterion::add_rows(const Layout& layout, const arma::vec&, int derivatives, Block& block) const {
    const std::size_t k = layout.k(), n = block.n, own = block.predictors;
    const double *f = block.f.col(0), *w = block.w.col(0), *y = block.y.col(0);
    double* minus_wr = block.terms.col(0);
    const double value = kernel::residuals(w, y, f, n, minus_wr);
    if (derivatives < 1) return value;
    for (std::size_t m = 0; m < k; ++m) {
        const double* p = block.p.col(m);
        kernel::multiply_difference(p, block.h.col(m), f, n, block.slope.col(m));
        for (std::size_t a = 0; a < own; ++a)
            kernel::multiply(p, block.d1(m, a), n, block.slope.col(layout.predictor(m, a)));
    }
    for (std::size_t s = 0; s < layout.predictors().size(); ++s)
        kernel::multiply(minus_wr, block.slope.col(s), n, block.weighted.col(s));
    return value;
}

// w g_s g_t, and for the exact Hessian w (g_s g_t - r d2f/ds dt), with
//   d2f/dl_k dl_m   = [k = m] c_k - p_m c_k - p_k c_m,   c_k = df/dl_k = p_k (h_k - f)
//   d2f/dl_m ds_k   = ([k = m] - p_m) g_k                g_k = df/ds_k = p_k dh_k/ds
//   d2f/ds_k dt_k   = p_k d2h_k/ds dt
void LeastSquaresCriterion::pair(const Layout& layout, const PairGroup& group, std::size_t j, const Block& block,
                                 double* normal, double* exact) const {
    const auto [s, t] = group.pairs[j];
    const Predictor &ps = layout.predictors()[s], &pt = layout.predictors()[t];
    const double *gs = block.slope.col(s), *gt = block.slope.col(t);
    const double *w = block.w.col(0), *minus_wr = block.terms.col(0);
    const std::size_t n = block.n;
    kernel::multiply3(w, gs, gt, n, normal);
    if (!exact) return;
    std::copy_n(normal, n, exact);
    if (ps.features == Features::gate) {
        const double *pm = block.p.col(ps.owner), *ws = block.weighted.col(s), *wt = block.weighted.col(t);
        if (ps.owner == pt.owner) kernel::add(wt, n, exact);
        kernel::subtract_product(pm, wt, n, exact);
        if (pt.features == Features::gate) kernel::subtract_product(block.p.col(pt.owner), ws, n, exact);
    } else if (group.curved[j] >= 0) {
        kernel::add_product3(minus_wr, block.p.col(ps.owner), block.d2(ps.owner, group.curved[j]), n, exact);
    }
}

}  // namespace cosmoe
