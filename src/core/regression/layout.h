// Where parameters and predictors lie in theta: gate columns (u_k, b_k) first, then the experts' eta_k.
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
    std::size_t local;   // number among the expert's own predictors
};

class Layout {
  public:
    Layout(std::size_t k, std::size_t dx, std::size_t dz, const Expert& expert)
        : k_(k),
          dx_(dx),
          dz_(dz),
          q_(expert.parameters(dx)) {
        for (std::size_t m = 0; m < k; ++m) predictors_.push_back({Features::gate, gate(m), m, 0});
        for (std::size_t m = 0; m < k; ++m)
            for (std::size_t a = 0; a < expert.wide(); ++a)
                predictors_.push_back({Features::expert, eta(m) + a * (dx + 1), m, a});
        for (std::size_t m = 0; m < k; ++m)
            for (std::size_t a = 0; a < expert.scalars(); ++a)
                predictors_.push_back({Features::one, eta(m) + expert.wide() * (dx + 1) + a, m, expert.wide() + a});
    }
    std::size_t k() const { return k_; }
    std::size_t dx() const { return dx_; }
    std::size_t dz() const { return dz_; }
    std::size_t q() const { return q_; }
    std::size_t size() const { return k_ * (dz_ + 1 + q_); }
    std::size_t gate(std::size_t m) const { return m * (dz_ + 1); }
    std::size_t bias(std::size_t m) const { return gate(m) + dz_; }
    std::size_t eta(std::size_t m) const { return k_ * (dz_ + 1) + m * q_; }
    // All predictors: k gates, then wide ones expert by expert, then scalars expert by expert.
    const std::vector<Predictor>& predictors() const { return predictors_; }
    std::size_t width(Features f) const { return f == Features::gate ? dz_ + 1 : f == Features::expert ? dx_ + 1 : 1; }

  private:
    std::size_t k_, dx_, dz_, q_;
    std::vector<Predictor> predictors_;
};

}  // namespace cosmoe
