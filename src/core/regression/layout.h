// Where parameters and predictors lie in theta: gate columns (u_k, b_k) first, then the experts' eta_k, then the
// logarithms of the dispersions of a likelihood (none for least squares, one for all experts, or one for each).
#pragma once

#include <cstddef>
#include <vector>

#include "expert/expert.h"

namespace cosmoe {

enum class Features { gate, expert, one };  // (zeta, 1), (x, 1), 1

struct Predictor {
    Features features;
    std::size_t offset;  // first parameter in theta
    std::size_t owner;   // gate or expert k
    std::size_t local;   // number among the expert's own predictors; past them, the dispersion
    bool dispersion = false;
};

class Layout {
  public:
    Layout(std::size_t k, std::size_t dx, std::size_t dz, const Expert& expert, std::size_t dispersions = 0)
        : k_(k),
          dx_(dx),
          dz_(dz),
          q_(expert.parameters(dx)),
          wide_(expert.wide()),
          scalars_(expert.scalars()),
          dispersions_(dispersions) {
        for (std::size_t m = 0; m < k; ++m) predictors_.push_back({Features::gate, gate(m), m, 0});
        for (std::size_t m = 0; m < k; ++m)
            for (std::size_t a = 0; a < expert.wide(); ++a)
                predictors_.push_back({Features::expert, eta(m) + a * (dx + 1), m, a});
        for (std::size_t m = 0; m < k; ++m)
            for (std::size_t a = 0; a < expert.scalars(); ++a)
                predictors_.push_back({Features::one, eta(m) + expert.wide() * (dx + 1) + a, m, expert.wide() + a});
        for (std::size_t m = 0; dispersions > 0 && m < k; ++m)
            predictors_.push_back({Features::one, dispersion(m), m, expert.predictors(), true});
    }
    std::size_t k() const { return k_; }
    std::size_t dx() const { return dx_; }
    std::size_t dz() const { return dz_; }
    std::size_t q() const { return q_; }
    std::size_t dispersions() const { return dispersions_; }
    std::size_t size() const { return k_ * (dz_ + 1 + q_) + dispersions_; }
    std::size_t gate(std::size_t m) const { return m * (dz_ + 1); }
    std::size_t bias(std::size_t m) const { return gate(m) + dz_; }
    std::size_t eta(std::size_t m) const { return k_ * (dz_ + 1) + m * q_; }
    std::size_t dispersion(std::size_t m) const { return eta(k_) + (dispersions_ > 1 ? m : 0); }
    // All predictors: k gates, then wide ones expert by expert, then scalars expert by expert, then k dispersions (which
    // may share one parameter).
    const std::vector<Predictor>& predictors() const { return predictors_; }
    // The column of expert m's predictor `local` among all predictors.
    std::size_t predictor(std::size_t m, std::size_t local) const {
        if (local < wide_) return k_ + m * wide_ + local;
        if (local < wide_ + scalars_) return k_ + k_ * wide_ + m * scalars_ + (local - wide_);
        return k_ + k_ * (wide_ + scalars_) + m;
    }
    std::size_t width(Features f) const { return f == Features::gate ? dz_ + 1 : f == Features::expert ? dx_ + 1 : 1; }

  private:
    std::size_t k_, dx_, dz_, q_, wide_, scalars_, dispersions_;
    std::vector<Predictor> predictors_;
};

}  // namespace cosmoe
