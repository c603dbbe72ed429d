#include "expert/expert.h"

#include "common/errors.h"

namespace cosmoe {

Activation activation_named(const std::string& name) {
    if (name == "linear") return Activation::identity;
    if (name == "relu") return Activation::relu;
    if (name == "gelu") return Activation::gelu;
    if (name == "tanh") return Activation::tanh;
    if (name == "sigmoid") return Activation::sigmoid;
    if (name == "softplus") return Activation::softplus;
    if (name == "cubic") return Activation::cubic;
    if (name == "celu") return Activation::celu;
    throw InvalidArgument("unknown expert or activation '" + name + "'");
}

namespace {

using Pairs = std::vector<std::pair<std::size_t, std::size_t>>;

bool curves(Activation phi) { return phi != Activation::identity && phi != Activation::relu; }

// The wide predictors: those of the block, or computed into scratch.
const double* linear_predictors(const ExpertBlock& block, const double* coef, std::size_t count, Buffer& scratch) {
    if (block.predictors) return block.predictors;
    kernel::combine(block.x.col(0), block.x.rows(), block.d + 1, coef, block.d + 1, count, block.n, scratch.col(0),
                    scratch.rows());
    return scratch.col(0);
}

class ConstantExpert final : public Expert {
  public:
    std::size_t wide() const override { return 0; }
    std::size_t scalars() const override { return 1; }
    const Pairs& curved_pairs() const override { return none_; }
    void evaluate(const ExpertBlock& block, const double* eta, int derivatives, double* value, double* first, double*,
                  Buffer&) const override {
        std::fill_n(value, block.n, eta[0]);
        if (derivatives >= 1) std::fill_n(first, block.n, 1.0);
    }

  private:
    Pairs none_;
};

// phi(a'x + b)
class ActivationExpert final : public Expert {
  public:
    explicit ActivationExpert(Activation phi) : phi_(phi) {
        if (curves(phi)) pairs_ = {{0, 0}};
    }
    std::size_t wide() const override { return 1; }
    std::size_t scalars() const override { return 0; }
    const Pairs& curved_pairs() const override { return pairs_; }
    void evaluate(const ExpertBlock& block, const double* eta, int derivatives, double* value, double* first,
                  double* second, Buffer& scratch) const override {
        const double* s = linear_predictors(block, eta, 1, scratch);
        kernel::activate(phi_, s, block.n, value, derivatives >= 1 ? first : nullptr,
                         derivatives >= 2 && !pairs_.empty() ? second : nullptr);
    }

  private:
    Activation phi_;
    Pairs pairs_;
};

// (a'x + b)^degree
class PolynomialExpert final : public Expert {
  public:
    explicit PolynomialExpert(int degree) : degree_(degree) {
        if (degree < 1) throw InvalidArgument("a polynomial expert needs degree >= 1, not " + std::to_string(degree));
        if (degree > 1) pairs_ = {{0, 0}};
    }
    std::size_t wide() const override { return 1; }
    std::size_t scalars() const override { return 0; }
    const Pairs& curved_pairs() const override { return pairs_; }
    void evaluate(const ExpertBlock& block, const double* eta, int derivatives, double* value, double* first,
                  double* second, Buffer& scratch) const override {
        const double* s = linear_predictors(block, eta, 1, scratch);
        for (std::size_t i = 0; i < block.n; ++i) {
            double below2 = 0, below1 = 1, power = s[i];  // s^(q-2), s^(q-1), s^q for q = 1
            for (int q = 2; q <= degree_; ++q) below2 = below1, below1 = power, power *= s[i];
            value[i] = power;
            if (derivatives >= 1) first[i] = degree_ * below1;
            if (derivatives >= 2 && degree_ > 1) second[i] = degree_ * (degree_ - 1.0) * below2;
        }
    }

  private:
    int degree_;
    Pairs pairs_;
};

// c_0 + sum_j c_j phi(a_j'x + b_j); scalars are c_1, ..., c_H, c_0.
class NetworkExpert final : public Expert {
  public:
    NetworkExpert(std::size_t hidden, Activation phi) : hidden_(hidden), phi_(phi) {
        if (hidden < 1) throw InvalidArgument("a network expert needs at least one hidden unit");
        for (std::size_t j = 0; j < hidden; ++j) pairs_.emplace_back(j, hidden + j);
        if (curves(phi))
            for (std::size_t j = 0; j < hidden; ++j) pairs_.emplace_back(j, j);
    }
    std::size_t wide() const override { return hidden_; }
    std::size_t scalars() const override { return hidden_ + 1; }
    const Pairs& curved_pairs() const override { return pairs_; }
    void evaluate(const ExpertBlock& block, const double* eta, int derivatives, double* value, double* first,
                  double* second, Buffer& scratch) const override {
        const std::size_t ld = block.x.rows(), n = block.n;
        const double* c = eta + hidden_ * (block.d + 1);
        const double* s = linear_predictors(block, eta, hidden_, scratch);
        std::fill_n(value, n, c[hidden_]);
        double *unit = scratch.col(hidden_), *slope = scratch.col(hidden_ + 1), *curve = scratch.col(hidden_ + 2);
        for (std::size_t j = 0; j < hidden_; ++j) {
            kernel::activate(phi_, s + j * ld, n, unit, slope, curve);
            for (std::size_t i = 0; i < n; ++i) value[i] += c[j] * unit[i];
            if (derivatives >= 1)
                for (std::size_t i = 0; i < n; ++i) {
                    first[j * ld + i] = c[j] * slope[i];
                    first[(hidden_ + j) * ld + i] = unit[i];
                }
            if (derivatives >= 2) {
                std::copy_n(slope, n, second + j * ld);
                if (curves(phi_))
                    for (std::size_t i = 0; i < n; ++i) second[(hidden_ + j) * ld + i] = c[j] * curve[i];
            }
        }
        if (derivatives >= 1) std::fill_n(first + 2 * hidden_ * ld, n, 1.0);
    }

  private:
    std::size_t hidden_;
    Activation phi_;
    Pairs pairs_;
};

// Second derivatives of a host's function are taken as zero: the solver then works with the Gauss-Newton part.
class CustomExpert final : public Expert {
  public:
    CustomExpert(std::size_t n_par, CustomFunction function) : n_par_(n_par), function_(std::move(function)) {}
    std::size_t wide() const override { return 0; }
    std::size_t scalars() const override { return n_par_; }
    const Pairs& curved_pairs() const override { return none_; }
    bool thread_safe() const override { return false; }
    void evaluate(const ExpertBlock& block, const double* eta, int derivatives, double* value, double* first, double*,
                  Buffer&) const override {
        const std::size_t ld = block.x.rows();
        function_(block.x.col(0), ld, block.valid, block.d, eta, value, derivatives >= 1 ? first : nullptr, ld);
        for (std::size_t i = block.valid; i < block.n; ++i) {
            value[i] = 0;
            if (derivatives >= 1)
                for (std::size_t j = 0; j < n_par_; ++j) first[j * ld + i] = 0;
        }
    }

  private:
    std::size_t n_par_;
    CustomFunction function_;
    Pairs none_;
};

}  // namespace

std::unique_ptr<const Expert> make_expert(const ExpertSpec& spec) {
    if (spec.name == "constant") return std::make_unique<ConstantExpert>();
    if (spec.name == "polynomial") return std::make_unique<PolynomialExpert>(spec.degree);
    if (spec.name == "network") return std::make_unique<NetworkExpert>(spec.hidden, activation_named(spec.activation));
    if (spec.name == "custom") return std::make_unique<CustomExpert>(spec.n_par, spec.custom);
    return std::make_unique<ActivationExpert>(activation_named(spec.name));
}

}  // namespace cosmoe
