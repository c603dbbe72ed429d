// The sparse mixture-of-experts layer for classification: loss, gradient and prediction. Chen, Deng, Wu, Gu and Li
// (2022), arXiv:2208.02813. A sample is P patches of d numbers; expert m has J filters:
//     f_mc(x) = sum_{j of class c} sum_p phi(w_mj'x_p + b_mj)          (second layer fixed at one)
//     h_m(x)  = u_m'zeta(x),  zeta the router's feature map of sum_p x_p
// The top_k experts with the largest h_m + r_m (r: routing noise) see the sample; nothing else is computed.
//     F_c = sum over these of g_m f_mc
// Protocol `paper`: g = softmax of h over all experts, logistic loss (cross-entropy of softmax(F) with classes).
// Protocol `notebook`: g_m = h_m + r_m, cross-entropy of softmax(softmax(F)).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/armadillo.h"
#include "common/buffer.h"
#include "common/hooks.h"
#include "common/kernels.h"
#include "gate/router.h"
#include "layer/counter.h"

namespace cosmoe {

enum class Protocol { paper, notebook };
enum class Noise { none, uniform, gaussian };

struct LayerSpec {
    RouterSpec router;  // top_k: the experts a sample is sent to, at least 1
    Activation activation = Activation::cubic;
    Protocol protocol = Protocol::paper;
    Noise noise = Noise::uniform;  // uniform on [0, 1), or standard normal
    bool fresh_noise = true;       // false: the noise of step 0 in every step
    std::size_t experts = 8, filters = 16, classes = 2;
    double balance = 0;  // weight of Switch's balance loss, experts * sum_m (share sent to m) (mean softmax(h)_m)
    std::uint64_t seed = 0;

    bool has_bias() const { return protocol == Protocol::notebook; }
    bool has_gate() const { return experts > 1; }
    // Two classes need one output, F > 0, under the logistic loss.
    std::size_t outputs() const { return protocol == Protocol::paper && classes == 2 ? 1 : classes; }
};

// Points into the host's memory.
struct LayerData {
    const double* x = nullptr;     // d x P x n
    const double* zeta = nullptr;  // q x n, the router's features (layer_features())
    const int* y = nullptr;        // class of each sample, from 0
    const int* cluster = nullptr;  // cluster of each sample, from 0, for counts; may be null
    std::size_t n = 0, patches = 0, dim = 0, gate_dim = 0, clusters = 1;
};

// Features zeta (q x n) of the summed patches; `projection` (q x d) comes before the router's map unless it is empty.
arma::mat layer_features(const LayerSpec& spec, const LayerData& data, const arma::mat& projection);

// Where the parameters lie in theta: filters J x d for each expert, then biases (J for each expert) if the protocol has
// them, then the gate's beta (q for each expert) if there is a choice.
class LayerLayout {
  public:
    LayerLayout(const LayerSpec& spec, const LayerData& data)
        : filters_(spec.filters * data.dim),
          biases_(spec.has_bias() ? spec.filters : 0),
          gate_(spec.has_gate() ? data.gate_dim : 0),
          experts_(spec.experts) {}
    std::size_t filter_size() const { return filters_; }
    std::size_t bias_size() const { return biases_; }
    std::size_t gate_size() const { return gate_; }
    std::size_t filter(std::size_t m) const { return m * filters_; }
    std::size_t bias(std::size_t m) const { return experts_ * filters_ + m * biases_; }
    std::size_t gate(std::size_t m) const { return experts_ * (filters_ + biases_) + m * gate_; }
    std::size_t size() const { return gate(experts_); }

  private:
    std::size_t filters_, biases_, gate_, experts_;
};

struct LayerEvaluation {
    double loss = 0;                // mean over the batch, with the balance loss
    std::size_t correct = 0;        // samples whose class is right
    std::vector<std::size_t> sent;  // clusters x experts
    arma::vec gradient;             // of the loss in theta; empty without y
};

// What a prediction fills; any pointer may be null. Rows are samples.
struct LayerPrediction {
    double* output = nullptr;  // n x outputs: F
    int* expert = nullptr;     // n x top_k, from 0
    double* gate = nullptr;    // n x experts: softmax of h
};

class LayerPass {
  public:
    LayerPass(const LayerSpec& spec, const LayerData& data, std::size_t threads, const Hooks& hooks);
    ~LayerPass();

    // Loss and gradient over the samples index[0 .. count - 1] (null: the first count). Noise is that of `counter`.
    // With `route` (top_k x count experts) the choice is given instead of computed.
    LayerEvaluation evaluate(const arma::vec& theta, const Counter& counter, const std::size_t* index,
                             std::size_t count, const int* route = nullptr);

    void predict(const arma::vec& theta, const Counter& counter, const LayerPrediction& out);

    const LayerLayout& layout() const { return layout_; }
    const LayerSpec& spec() const { return spec_; }
    const LayerData& data() const { return data_; }
    const Hooks& hooks() const { return hooks_; }

  private:
    struct Scratch;
    struct Sums;
    std::size_t chunks(std::size_t count) const;
    template <class Task>
    void for_each_chunk(std::size_t count, Task task);
    void list_features(std::size_t b, std::size_t rows, std::size_t last, Scratch& scratch) const;
    void load_parameters(const arma::vec& theta);
    void add_noise(const Counter& counter, std::size_t b, std::size_t rows, Scratch& scratch) const;
    void route_samples(const Counter& counter, std::size_t first, std::size_t last, const int* route, Scratch& scratch,
                       Sums& sums);
    void fetch_samples(const std::size_t* slots, std::size_t count) const;
    void forward(std::size_t expert, const std::size_t* slots, std::size_t count, std::size_t chunk_first,
                 Scratch& scratch) const;
    void mix_samples(const std::size_t* positions, std::size_t count, std::size_t chunk_first, Scratch& scratch,
                     Sums& sums) const;
    void backward(std::size_t expert, const std::size_t* slots, std::size_t count, std::size_t chunk_first,
                  Scratch& scratch, Sums& sums);
    void sort_by_expert(std::size_t first, std::size_t last, Scratch& scratch) const;
    template <class Task>
    void for_each_block(std::size_t first, std::size_t last, Task task) const;
    void add_experts(std::size_t first, std::size_t last, bool learn, Scratch& scratch, Sums& sums);
    template <class Then>
    void mix_chunk(std::size_t first, std::size_t last, Scratch& scratch, Sums& sums, Then then) const;
    void add_gate(std::size_t first, std::size_t last, const std::vector<double>& share, Scratch& scratch,
                  Sums& sums) const;
    std::size_t sample(std::size_t position) const { return index_ ? index_[position] : position; }

    LayerSpec spec_;
    LayerData data_;
    std::size_t threads_;
    const Hooks& hooks_;
    std::unique_ptr<const Router> router_;
    LayerLayout layout_;
    std::size_t padded_;  // filters, rounded up to whole vector registers
    std::size_t padded_experts_;
    std::size_t block_;  // samples in a block of an expert
    Buffer classes_;     // padded patches x outputs: 1 where a filter is one of the output
    Buffer filters_;     // padded x (d + 1) for each expert in turn; the last column is the bias, or 0
    Buffer u_;           // padded experts x q

    // The batch at hand.
    const std::size_t* index_ = nullptr;
    std::size_t count_ = 0;
    std::vector<int> route_;           // top_k x count
    std::vector<double> weight_;       // top_k x count: g
    std::vector<double> probability_;  // experts x count: softmax(h), where it is needed
    bool keep_probability_ = false;
};

}  // namespace cosmoe
