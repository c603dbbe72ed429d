// One pass over the data: f and its derivatives for a block of rows at a time, summed into objective, gradient,
// Gauss-Newton matrix and exact Hessian. Rows are cut into chunks by their number alone and chunk sums are added in
// order, so results do not depend on the number of threads.
#pragma once

#include <memory>
#include <vector>

#include "common/hooks.h"
#include "expert/expert.h"
#include "gate/router.h"
#include "regression/layout.h"
#include "regression/rows.h"
#include "solver/objective.h"

namespace cosmoe {

struct ModelSpec {
    RouterSpec router;
    ExpertSpec expert;
    std::size_t k = 2;
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

class Pass {
  public:
    Pass(const Model& model, const Rows& rows, std::size_t threads, const Hooks& hooks);

    // sum w (y - f)^2 / 2 and derivatives, over all rows or over rows index[0], ..., index[count - 1].
    Evaluation evaluate(const arma::vec& theta, Order order) const { return evaluate(theta, order, nullptr, rows_.n); }
    Evaluation evaluate(const arma::vec& theta, Order order, const std::size_t* index, std::size_t count) const;

    void predict(const arma::vec& theta, const Prediction& out) const;

    // df/dtheta for every row: n x parameters, column major.
    void jacobian(const arma::vec& theta, double* out) const;

    ~Pass();

  private:
    struct Group;      // pairs of predictors over the same two feature sets
    struct Workspace;  // a thread's block
    struct Sums;       // a chunk's totals
    void forward(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta,
                 int derivatives, Workspace& work) const;
    void add_block(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta, Order order,
                   Workspace& work, Sums& sums) const;
    void add_group(const Group& group, Order order, Workspace& work, std::vector<double>& sums) const;
    void pair_coefficients(const Group& group, Order order, Workspace& work) const;
    arma::mat unpack(const Sums& sums, std::size_t slice) const;
    arma::vec unpack_gradient(const double* sums) const;
    template <class Task>
    void for_each_chunk(std::size_t rows, Task task) const;

    const Model& model_;
    const Rows& rows_;
    std::size_t threads_;
    const Hooks& hooks_;
    std::vector<Group> groups_;
};

}  // namespace cosmoe
