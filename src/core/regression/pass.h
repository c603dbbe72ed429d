// One pass over the data: f and its derivatives for a block of rows at a time, summed into objective, gradient,
// Gauss-Newton matrix and exact Hessian. Rows are cut into chunks by model and number alone and chunk sums are added in
// order, so results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "common/chunks.h"
#include "common/hooks.h"
#include "expert/expert.h"
#include "gate/router.h"
#include "regression/criterion.h"
#include "regression/layout.h"
#include "regression/rows.h"
#include "solver/objective.h"

namespace cosmoe {

struct ModelSpec {
    RouterSpec router;
    ExpertSpec expert;
    std::size_t k = 2;
    std::size_t dispersions = 0;   // 0, 1 or k
    double dispersion_bound = 10;  // of the logarithms' absolute values
};

struct Model {
    Model(const ModelSpec& spec, std::size_t dx, std::size_t dz);
    ModelSpec spec;
    std::unique_ptr<const Router> router;
    std::unique_ptr<const Expert> expert;
    Layout layout;
    Constraints constraints;  // of theta
};

// n-row results of a prediction, column major; null pointers are skipped.
struct Prediction {
    double* f = nullptr;
    double* gate = nullptr;
    double* expert = nullptr;
    double* logit = nullptr;
};

const Criterion& least_squares_criterion();

class Pass {
  public:
    // The criterion must outlive the pass; least squares by default.
    Pass(const Model& model, const Rows& rows, std::size_t threads, const Hooks& hooks,
         const Criterion& criterion = least_squares_criterion());

    // The criterion and derivatives, over all rows or over rows index[0], ..., index[count - 1].
    Evaluation evaluate(const arma::vec& theta, Order order) const { return evaluate(theta, order, nullptr, rows_.n); }
    Evaluation evaluate(const arma::vec& theta, Order order, const std::size_t* index, std::size_t count) const;

    void predict(const arma::vec& theta, const Prediction& out) const { predict(theta, out, 0, rows_.n); }
    // Of rows first, ..., first + count - 1 alone.
    void predict(const arma::vec& theta, const Prediction& out, std::size_t first, std::size_t count) const;

    // The rows' derivatives in theta, df/dtheta for least squares, minus the scores for a likelihood: added to n x
    // parameters numbers, column major.
    void jacobian(const arma::vec& theta, double* out) const;

  private:
    struct Sums;   // a chunk's totals
    struct Total;  // adds them in order
    std::shared_ptr<Block> lend_block() const;
    void load_rows(std::size_t first, std::size_t count, const std::size_t* index, Block& block) const;
    void load_features(std::size_t first, std::size_t count, const std::size_t* index, Block& block) const;
    void forward(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta,
                 int derivatives, Block& block) const;
    void evaluate_experts(const double* eta, int derivatives, Block& block) const;
    void add_block(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta, Order order,
                   Block& block, Sums& sums) const;
    void add_group(const PairGroup& group, Order order, Block& block, double* sums) const;
    template <class Task>
    void for_each_block(std::size_t first, std::size_t last, Task task) const;
    template <class Task>
    void for_each_chunk(std::size_t rows, Task task) const;

    // Rows with a sparse gate: those that are sent to the same experts are a dense model of these experts alone.
    bool worth_sorting(std::size_t rows) const;
    template <class GoOn>
    void add_sorted(std::size_t first, std::size_t last, const std::size_t* index, const arma::vec& theta, Order order,
                    const GoOn& go_on, Block& block, Sums& sums) const;
    template <class GoOn>
    void add_scattered(std::size_t first, std::size_t last, const std::size_t* index, const arma::vec& theta,
                       Order order, const GoOn& go_on, Block& block, Sums& sums) const;
    void choose(const arma::vec& theta, std::size_t n, Block& block) const;
    void route(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta, Block& block,
               std::vector<std::pair<std::uint64_t, std::size_t>>& rows) const;
    void add_few(const std::vector<std::size_t>& experts, const Sums& few, Order order, Sums& sums) const;

    // Features of a predictor at most, on whole lanes.
    std::size_t widest() const { return round_up(std::max(model_.layout.dx(), model_.layout.dz()) + 1, lane_multiple); }
    // The features of a predictor, under one name where gate and experts have the same.
    Features features_of(const Predictor& predictor) const {
        return aliased_ && predictor.features == Features::gate ? Features::expert : predictor.features;
    }
    arma::mat unpack(const Sums& sums, Order order, bool exact) const;
    arma::vec unpack_gradient(const double* sums) const;
    // The number of sums of the groups before group g.
    std::size_t start_of_group(std::size_t g, Order order) const;

    const Model& model_;
    const Rows& rows_;
    std::size_t threads_;
    const Hooks& hooks_;
    const Criterion& criterion_;
    const bool aliased_;  // the gate's features are the experts' covariates
    std::vector<PairGroup> groups_;
    std::vector<std::pair<std::size_t, std::size_t>> place_;  // group and number of the pair s, t at s + t * predictors
    mutable std::mutex guard_;
    mutable std::vector<std::unique_ptr<Block>> spare_;  // from one evaluation to the next
    std::unique_ptr<const Model> few_model_;             // a dense model of top_k experts
    std::unique_ptr<const Pass> few_;
    bool scatters_ = false;  // whether passes without matrices can do without sorting
};

}  // namespace cosmoe
