#include "measure/identifiability.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/errors.h"
#include "common/kernels.h"
#include "gate/gate.h"

namespace cosmoe {
namespace {

std::size_t pairs(std::size_t parameters) { return parameters * (parameters + 1) / 2; }

// h, dh/deta and d2h/deta2 (a <= b, b fastest) of one expert over a block.
struct ExpertValues {
    arma::vec value;
    arma::mat first, second;
};

class ExpertDerivatives {
  public:
    ExpertDerivatives(const Model& model, std::size_t rows)
        : expert_(*model.expert),
          differences_(static_cast<bool>(model.spec.expert.custom)),
          q_(model.layout.q()),
          slope_(rows, expert_.predictors()),
          curve_(rows, expert_.curved_pairs().size()),
          unused_(rows),
          scratch_(rows, expert_.wide() + 3) {}

    void evaluate(const ExpertBlock& block, const arma::vec& eta, int order, ExpertValues& out) {
        const arma::uword rows = slope_.n_rows;
        out.value.zeros(rows);
        out.first.zeros(rows, q_);
        out.second.zeros(rows, order < 2 ? 0 : pairs(q_));
        expert_.evaluate(block, eta.memptr(), order, out.value.memptr(), slope_.memptr(), curve_.memptr(), scratch_);
        for (std::size_t a = 0; a < q_; ++a)
            kernel::multiply(slope_.colptr(predictor(block, a)), feature(block, a), block.n, out.first.colptr(a));
        if (order < 2) return;
        if (differences_) difference(block, eta, out.second);
        else curve(block, out.second);
    }

  private:
    // Parameter a multiplies a feature of one predictor.
    std::size_t predictor(const ExpertBlock& block, std::size_t a) const {
        const std::size_t in_wide = expert_.wide() * (block.d + 1);
        return a < in_wide ? a / (block.d + 1) : expert_.wide() + (a - in_wide);
    }
    const double* feature(const ExpertBlock& block, std::size_t a) const {
        const std::size_t in_wide = expert_.wide() * (block.d + 1);
        return block.x.col(a < in_wide ? a % (block.d + 1) : block.d);
    }

    void curve(const ExpertBlock& block, arma::mat& second) const {
        const auto& curved = expert_.curved_pairs();
        for (std::size_t a = 0, column = 0; a < q_; ++a)
            for (std::size_t b = a; b < q_; ++b, ++column) {
                // Predictors come in the order of the parameters.
                const auto own = std::make_pair(predictor(block, a), predictor(block, b));
                const auto at = std::find(curved.begin(), curved.end(), own);
                if (at != curved.end())
                    kernel::multiply3(curve_.colptr(at - curved.begin()), feature(block, a), feature(block, b), block.n,
                                      second.colptr(column));
            }
    }

    // Central differences of fourth order, averaged over the two orders of differentiation.
    void difference(const ExpertBlock& block, const arma::vec& eta, arma::mat& second) {
        const double unit = std::pow(std::numeric_limits<double>::epsilon(), 0.2);
        arma::cube slopes(slope_.n_rows, q_, q_, arma::fill::zeros);
        for (std::size_t b = 0; b < q_; ++b) {
            const double step = unit * std::max(1.0, std::abs(eta[b]));
            for (const int multiple : {-2, -1, 1, 2}) {
                arma::vec moved = eta;
                moved[b] += multiple * step;
                expert_.evaluate(block, moved.memptr(), 1, unused_.memptr(), slope_.memptr(), nullptr, scratch_);
                const double weight = std::abs(multiple) == 1 ? 8 : -1;
                slopes.slice(b) += (multiple > 0 ? weight : -weight) / (12 * step) * slope_;
            }
        }
        for (std::size_t a = 0, column = 0; a < q_; ++a)
            for (std::size_t b = a; b < q_; ++b, ++column)
                second.col(column) = (slopes.slice(b).col(a) + slopes.slice(a).col(b)) / 2;
    }

    const Expert& expert_;
    const bool differences_;
    const std::size_t q_;
    arma::mat slope_, curve_;  // in the predictors
    arma::vec unused_;
    Buffer scratch_;
};

// The triangular factor of a matrix that comes in blocks of rows.
class TriangularFactor {
  public:
    explicit TriangularFactor(std::size_t columns) : r_(columns, columns, arma::fill::zeros) {}
    void add(const arma::mat& block) {
        // LAPACK would not say what is wrong with numbers that are none.
        if (!block.is_finite()) throw Error("derivatives are not finite at these points and parameters");
        arma::mat q, r;
        if (!arma::qr_econ(q, r, arma::join_cols(r_, block))) throw Error("the QR decomposition failed");
        r_ = r;
    }
    const arma::mat& get() const { return r_; }

  private:
    arma::mat r_;
};

class Blocks {
  public:
    Blocks(const Model& model, const Rows& rows, const Atoms& atoms, int order)
        : model_(model),
          rows_(rows),
          atoms_(atoms),
          order_(order),
          k_(model.layout.k()),
          dz_(model.layout.dz()),
          q_(model.layout.q()),
          functions_(dz_ + q_ + (order < 2 ? 0 : pairs(dz_ + q_))),
          // Tall blocks: each costs a QR decomposition of its rows and the factor's.
          block_rows_(round_up(std::min(rows.n, std::max<std::size_t>(256, 2 * k_ * functions_)))),
          u_(model.router->to_gate(atoms.beta)),
          chart_(chart_jacobians(*model.router, atoms.beta)),
          x_(block_rows_, rows.dx + 1),
          zeta_(block_rows_, dz_ + 1),
          logit_(block_rows_, k_),
          mask_(block_rows_, k_),
          gate_(block_rows_, k_),
          expert_(model, block_rows_),
          experts_(k_) {
        for (std::size_t i = 0; i < k_; ++i) curvature_.push_back(model.router->curvature(atoms.beta.col(i)));
    }

    DerivativeFactors factors(const Hooks& hooks) {
        TriangularFactor functions(k_ * functions_), regression(k_ * (1 + dz_ + q_));
        const arma::vec top = largest_scores();
        for (std::size_t first = 0; first < rows_.n; first += block_rows_) {
            if (hooks.stop_requested()) throw Interrupted();
            load(first);
            for (std::size_t i = 0; i < k_; ++i)
                expert_.evaluate({x_, rows_.dx, padded_, count_}, atoms_.eta.col(i), order_, experts_[i]);
            functions.add(function_values(top));
            regression.add(jacobian());
        }
        return {functions.get(), regression.get()};
    }

  private:
    static std::size_t round_up(std::size_t n) { return (n + lane_multiple - 1) / lane_multiple * lane_multiple; }

    void load(std::size_t first) {
        count_ = std::min(block_rows_, rows_.n - first);
        padded_ = round_up(count_);
        load_block(rows_, *model_.router, first, count_, padded_, nullptr, x_, zeta_);
        features_ = columns(zeta_, dz_);
        scores_ = features_ * u_;
    }

    arma::mat columns(const Buffer& buffer, std::size_t number) const {
        arma::mat out(count_, number);
        for (std::size_t j = 0; j < number; ++j) std::copy_n(buffer.col(j), count_, out.colptr(j));
        return out;
    }

    arma::vec largest_scores() {
        arma::rowvec top(k_);
        top.fill(-std::numeric_limits<double>::infinity());
        for (std::size_t first = 0; first < rows_.n; first += block_rows_) {
            load(first);
            top = arma::max(top, arma::max(scores_, 0));
        }
        return top.t();
    }

    // d score / d beta_1a and d2 score / dbeta_1a dbeta_1b over the block.
    arma::mat score_slopes(std::size_t i) const { return features_ * chart_.slice(i); }
    arma::vec score_curve(std::size_t i, std::size_t a, std::size_t b) const {
        return features_ * arma::vec(curvature_[i].tube(a, b));
    }

    arma::mat function_values(const arma::vec& top) const {
        arma::mat out(count_, k_ * functions_);
        for (std::size_t i = 0; i < k_; ++i) {
            const arma::mat s = score_slopes(i);
            const arma::vec h = experts_[i].value.head(count_);
            const auto slope = experts_[i].first.head_rows(count_), curve = experts_[i].second.head_rows(count_);
            const std::size_t start = i * functions_, all = dz_ + q_;
            for (std::size_t a = 0; a < dz_; ++a) out.col(start + a) = s.col(a) % h;
            for (std::size_t a = 0; a < q_; ++a) out.col(start + dz_ + a) = slope.col(a);
            for (std::size_t a = 0, c = start + all, own = 0; order_ > 1 && a < all; ++a)
                for (std::size_t b = a; b < all; ++b, ++c) {
                    if (b < dz_) out.col(c) = (s.col(a) % s.col(b) + score_curve(i, a, b)) % h;
                    else if (a < dz_) out.col(c) = s.col(a) % slope.col(b - dz_);
                    else out.col(c) = curve.col(own++);
                }
            const arma::vec factor = arma::exp(scores_.col(i) - top[i]);
            out.cols(start, start + functions_ - 1).each_col() %= factor;
        }
        return out;
    }

    arma::mat jacobian() {
        for (std::size_t i = 0; i < k_; ++i) std::copy_n(scores_.colptr(i), count_, logit_.col(i));
        gate_probabilities(logit_, atoms_.bias.memptr(), k_, padded_, model_.spec.router.top_k, mask_, gate_);
        const arma::mat p = columns(gate_, k_);
        arma::vec f(count_, arma::fill::zeros);
        for (std::size_t i = 0; i < k_; ++i) f += p.col(i) % experts_[i].value.head(count_);
        arma::mat out(count_, k_ * (1 + dz_ + q_));
        for (std::size_t i = 0, c = 0; i < k_; ++i) {
            const arma::vec gate = p.col(i) % (experts_[i].value.head(count_) - f);
            const arma::mat s = score_slopes(i);
            out.col(c++) = gate;
            for (std::size_t a = 0; a < dz_; ++a) out.col(c++) = gate % s.col(a);
            for (std::size_t a = 0; a < q_; ++a) out.col(c++) = p.col(i) % experts_[i].first.col(a).head(count_);
        }
        return out;
    }

    const Model& model_;
    const Rows& rows_;
    const Atoms& atoms_;
    const int order_;
    const std::size_t k_, dz_, q_, functions_, block_rows_;
    const arma::mat u_;
    const arma::cube chart_;
    std::vector<arma::cube> curvature_;
    Buffer x_, zeta_, logit_, mask_, gate_;
    ExpertDerivatives expert_;
    std::vector<ExpertValues> experts_;
    std::size_t count_ = 0, padded_ = 0;
    arma::mat features_, scores_;
};

}  // namespace

DerivativeFactors derivative_factors(const Model& model, const Rows& rows, const Atoms& atoms, int order,
                                     const Hooks& hooks) {
    const Layout& layout = model.layout;
    if (atoms.beta.n_rows != layout.dz() || atoms.beta.n_cols != layout.k() || atoms.bias.n_elem != layout.k() ||
        atoms.eta.n_rows != layout.q() || atoms.eta.n_cols != layout.k())
        throw InvalidArgument("parameters do not have the shape of the model");
    if (order != 1 && order != 2) throw InvalidArgument("the order of derivatives must be 1 or 2");
    return Blocks(model, rows, atoms, order).factors(hooks);
}

arma::cube chart_jacobians(const Router& router, const arma::mat& beta1) {
    const arma::uword d = beta1.n_rows;
    arma::cube out(d, d, beta1.n_cols);
    for (arma::uword i = 0; i < beta1.n_cols; ++i)
        out.slice(i) = router.pull_back(arma::repmat(beta1.col(i), 1, d), arma::eye(d, d)).t();
    return out;
}

}  // namespace cosmoe
