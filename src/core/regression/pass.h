// One pass over the data: f and its derivatives for a block of rows at a time, summed into objective, gradient,
// Gauss-Newton matrix and exact Hessian. Rows are cut into chunks by their number alone and chunk sums are added in
// order, so results do not depend on the number of threads.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

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

    void predict(const arma::vec& theta, const Prediction& out) const;

    // The rows' derivatives in theta, df/dtheta for least squares, minus the scores for a likelihood: added to n x
    // parameters numbers, column major.
    void jacobian(const arma::vec& theta, double* out) const;

  private:
    struct Sums;  // a chunk's totals
    std::unique_ptr<Block> take_block() const;
    void give_back(std::unique_ptr<Block> block) const;
    void forward(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta,
                 int derivatives, Block& block) const;
    void load_rows(std::size_t first, std::size_t count, const std::size_t* index, Block& block) const;
    void add_block(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta, Order order,
                   Block& block, Sums& sums) const;
    void add_group(const PairGroup& group, Order order, Block& block, std::vector<double>& sums) const;
    arma::mat unpack(const Sums& sums, std::size_t slice) const;
    arma::vec unpack_gradient(const double* sums) const;
    template <class Task>
    void for_each_chunk(std::size_t rows, Task task) const;

    const Model& model_;
    const Rows& rows_;
    std::size_t threads_;
    const Hooks& hooks_;
    const Criterion& criterion_;
    std::vector<PairGroup> groups_;
    std::size_t most_pairs_ = 1;
    mutable std::mutex guard_;
    mutable std::vector<std::unique_ptr<Block>> spare_;  // from one evaluation to the next
};

}  // namespace cosmoe
