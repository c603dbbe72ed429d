// The criteria of the mixture likelihood sum_k p_k(z) f(y | h_k(x) + offset, phi_k): the observed one, and the expected
// one of complete data that EM maximises.
#pragma once

#include "regression/criterion.h"
#include "regression/family.h"

namespace cosmoe {

// What the normal matrix of the observed likelihood is: the cross product of the scores, or the information of the
// complete data, whose steps are those of EM.
enum class Information { scores, complete };

// - sum w log sum_k p_k f_k; with an anchor, - sum w sum_k r_k log(p_k f_k), r_k the responsibilities at the anchor.
class LikelihoodCriterion final : public Criterion {
  public:
    explicit LikelihoodCriterion(const Family& family, Information information = Information::scores)
        : family_(family),
          information_(information) {}
    LikelihoodCriterion(const Family& family, const arma::vec& anchor)
        : family_(family),
          information_(Information::complete),
          anchor_(&anchor) {}
    std::size_t columns(std::size_t k) const override { return parts * k + 3; }
    const arma::vec* anchor() const override { return anchor_; }
    void remember(const Layout& layout, Block& block) const override;
    double add_rows(const Layout& layout, const arma::vec& theta, int derivatives, Block& block) const override;
    bool vanishes(const Predictor& s, const Predictor& t, bool exact) const override;
    void pair(const Layout& layout, const PairGroup& group, std::size_t j, const Block& block, double* normal,
              double* exact) const override;

  private:
    // Columns of terms for each expert; three more are scratch. What is done to the derivatives: kernel::weigh_density().
    enum Part { log_density, share, d1, d2, dphi, d2phi, dcross, kept, kept_phi, parts };
    static std::size_t column(Part part, std::size_t m) { return parts * m + part; }
    void densities(const Layout& layout, const arma::vec& theta, Block& block) const;
    double shares(const Layout& layout, Block& block) const;

    const Family& family_;
    Information information_;
    const arma::vec* anchor_ = nullptr;
};

}  // namespace cosmoe
