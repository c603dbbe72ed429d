#include "layer/layer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/chunks.h"
#include "common/errors.h"

namespace cosmoe {
namespace {

constexpr std::size_t gate_rows = 256;     // samples in a block of the gate
constexpr std::size_t block_patches = 64;  // patches in a block of an expert: data, filters and gradient in cache
constexpr std::size_t most_chunks = 16;
constexpr std::size_t least_chunk = 512;

// log(1 + exp(-m)) and its derivative in m.
double logistic_loss(double margin, double* slope) {
    const double e = std::exp(-std::abs(margin));
    *slope = margin > 0 ? -e / (1 + e) : -1 / (1 + e);
    return std::log1p(e) + (margin > 0 ? 0 : -margin);
}

void softmax(const double* v, std::size_t n, double* p) {
    const double top = *std::max_element(v, v + n);
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += p[i] = std::exp(v[i] - top);
    for (std::size_t i = 0; i < n; ++i) p[i] /= sum;
}

// -log softmax(v)_y and its gradient.
double cross_entropy(const double* v, std::size_t n, std::size_t y, double* gradient) {
    const double top = *std::max_element(v, v + n);
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += gradient[i] = std::exp(v[i] - top);
    for (std::size_t i = 0; i < n; ++i) gradient[i] /= sum;
    gradient[y] -= 1;
    return std::log(sum) + top - v[y];
}

}  // namespace

arma::mat layer_features(const LayerSpec& spec, const LayerData& data, const arma::mat& projection) {
    const auto router = make_router(spec.router);
    const std::size_t q = projection.is_empty() ? data.dim : projection.n_rows;
    arma::mat out(data.n, q);
    arma::vec sum(data.dim), z;
    for (std::size_t i = 0; i < data.n; ++i) {
        sum.zeros();
        const double* x = data.x + i * data.patches * data.dim;
        for (std::size_t p = 0; p < data.patches; ++p)
            for (std::size_t j = 0; j < data.dim; ++j) sum[j] += x[p * data.dim + j];
        if (projection.is_empty()) z = sum;
        else z = projection * sum;
        const double factor = router->scales_features() ? router->feature_factor(arma::norm(z)) : 1;
        for (std::size_t j = 0; j < q; ++j) out(i, j) = factor * z[j];
    }
    return out;
}

// --- working memory --------------------------------------------------------------------------------------------------

// Of one thread.
struct LayerPass::Scratch {
    Scratch(std::size_t q, std::size_t experts, std::size_t dim, std::size_t block, std::size_t padded,
            std::size_t outputs, std::size_t classes)
        : zeta(gate_rows, std::max<std::size_t>(q, 1)),
          score(gate_rows, experts),
          p(gate_rows, experts),
          slope(gate_rows, experts),
          x(dim, block),
          s(padded, block),
          value(padded, block),
          first(padded, block),
          gradient(std::max(outputs, classes)) {}
    Buffer zeta, score, p, slope;                      // of the gate
    Buffer x, s, value, first;                         // of an expert's block
    std::vector<std::size_t> slots;                    // slots of the chunk, sorted by expert
    std::vector<std::size_t> start;                    // where each expert's begin
    std::vector<double> output;                        // outputs of each slot of the chunk
    std::vector<double> dloss;                         // derivative of the loss in F, outputs x samples of the chunk
    std::vector<double> gradient, probability, mixed;  // of one sample
};

// Of one chunk.
struct LayerPass::Sums {
    double loss = 0;
    std::size_t correct = 0;
    std::vector<std::size_t> sent;
    std::vector<double> mean_probability;  // sums of softmax(h)
    std::vector<Buffer> filters;           // padded x inputs for each expert that saw a sample
    std::vector<double> gate;              // q x experts
};

LayerPass::LayerPass(const LayerSpec& spec, const LayerData& data, std::size_t threads, const Hooks& hooks)
    : spec_(spec),
      data_(data),
      threads_(std::max<std::size_t>(1, threads)),
      hooks_(hooks),
      router_(make_router(spec.router)),
      layout_(spec, data),
      padded_(round_up(spec.filters, lane_multiple)),
      inputs_(data.dim + (spec.has_bias() ? 1 : 0)) {
    if (data.n < 1 || data.patches < 1 || data.dim < 1) throw InvalidArgument("the layer needs samples with patches");
    if (spec.experts < 1 || spec.filters < 1) throw InvalidArgument("the layer needs experts with filters");
    if (spec.router.top_k < 1 || spec.router.top_k > spec.experts)
        throw InvalidArgument("top_k must be from 1 to the number of experts");
    if (spec.filters % spec.outputs() != 0) throw InvalidArgument("filters must be a multiple of the classes");
    for (std::size_t m = 0; m < spec.experts; ++m) filters_.emplace_back(padded_, inputs_);
}

LayerPass::~LayerPass() = default;

std::unique_ptr<LayerPass::Scratch> LayerPass::new_scratch() const {
    const std::size_t block = std::max(block_patches, data_.patches);
    auto out = std::make_unique<Scratch>(data_.gate_dim, spec_.experts, inputs_, block, padded_, spec_.outputs(),
                                         spec_.classes);
    for (std::size_t p = 0; spec_.has_bias() && p < block; ++p) out->x.col(p)[data_.dim] = 1;
    return out;
}

// By the sizes alone. Each chunk has a gradient of its own: few chunks when it is large beside the data.
std::size_t LayerPass::chunks(std::size_t count) const {
    const std::size_t affordable = data_.n * data_.patches * data_.dim / (2 * layout_.size()) + 1;
    return std::max<std::size_t>(1, std::min({most_chunks, count / least_chunk, affordable}));
}

// task(chunk, first position, last position, scratch)
template <class Task>
void LayerPass::for_each_chunk(std::size_t count, Task task) {
    const std::size_t number = chunks(count), size = (count + number - 1) / number;
    run_chunks(
        number, threads_, hooks_, [this] { return new_scratch(); },
        [&](std::size_t c, std::unique_ptr<Scratch>& scratch, const auto& go_on) {
            if (go_on()) task(c, std::min(count, c * size), std::min(count, (c + 1) * size), *scratch);
        });
}

void LayerPass::load_parameters(const arma::vec& theta) {
    const std::size_t J = spec_.filters, d = data_.dim;
    for (std::size_t m = 0; m < spec_.experts; ++m) {
        const double* w = theta.memptr() + layout_.filter(m);
        for (std::size_t j = 0; j < d; ++j) std::copy_n(w + j * J, J, filters_[m].col(j));
        if (spec_.has_bias()) std::copy_n(theta.memptr() + layout_.bias(m), J, filters_[m].col(d));
    }
    if (spec_.has_gate())
        u_ = router_->to_gate(arma::mat(theta.memptr() + layout_.gate(0), layout_.gate_size(), spec_.experts));
}

// --- the gate --------------------------------------------------------------------------------------------------------

// Whole blocks of consecutive samples are read where they are; others are gathered and padded with zeros.
LayerPass::Features LayerPass::features(std::size_t b, std::size_t rows, Scratch& scratch) const {
    if (!index_ && rows % lane_multiple == 0) return {data_.zeta + b, data_.n};
    for (std::size_t j = 0; j < data_.gate_dim; ++j) {
        double* to = scratch.zeta.col(j);
        for (std::size_t r = 0; r < rows; ++r) to[r] = data_.zeta[j * data_.n + sample(b + r)];
        std::fill(to + rows, to + round_up(rows, lane_multiple), 0.0);
    }
    return {scratch.zeta.col(0), gate_rows};
}

void LayerPass::route_samples(const Counter& counter, std::size_t first, std::size_t last, const int* route,
                              Scratch& scratch, Sums& sums) {
    const std::size_t M = spec_.experts, K = spec_.router.top_k, q = data_.gate_dim;
    sums.sent.assign(data_.clusters * M, 0);
    if (keep_probability_) sums.mean_probability.assign(M, 0.0);
    std::vector<double> noisy(M);
    for (std::size_t b = first; b < last; b += gate_rows) {
        const std::size_t rows = std::min(gate_rows, last - b), n = round_up(rows, lane_multiple);
        if (spec_.has_gate()) {
            const Features zeta = features(b, rows, scratch);
            kernel::combine(zeta.first, zeta.ld, q, u_.memptr(), q, M, n, scratch.score.col(0), gate_rows);
            if (keep_probability_) kernel::softmax(scratch.score.col(0), gate_rows, M, n, nullptr, scratch.p.col(0));
        }
        for (std::size_t r = 0; r < rows; ++r) {
            const std::size_t i = sample(b + r);
            int* chosen = route_.data() + (b + r) * K;
            double* weight = weight_.data() + (b + r) * K;
            if (!spec_.has_gate()) {
                chosen[0] = 0, weight[0] = 1;
            } else {
                for (std::size_t m = 0; m < M; ++m) {
                    const std::uint64_t draw = static_cast<std::uint64_t>(i) * M + m;
                    noisy[m] = scratch.score.col(m)[r];
                    if (spec_.noise == Noise::uniform) noisy[m] += counter.uniform(draw);
                    if (spec_.noise == Noise::gaussian) noisy[m] += counter.normal(draw);
                }
                for (std::size_t k = 0; k < K; ++k) {
                    if (route) {
                        chosen[k] = route[(b + r) * K + k];
                        continue;
                    }
                    std::size_t best = M;
                    for (std::size_t m = 0; m < M; ++m)
                        if ((best == M || noisy[m] > noisy[best]) &&
                            std::find(chosen, chosen + k, static_cast<int>(m)) == chosen + k)
                            best = m;
                    chosen[k] = static_cast<int>(best);
                }
                for (std::size_t k = 0; k < K; ++k) {
                    const auto m = static_cast<std::size_t>(chosen[k]);
                    weight[k] = spec_.protocol == Protocol::notebook ? noisy[m] : scratch.p.col(m)[r];
                }
                for (std::size_t m = 0; keep_probability_ && m < M; ++m) {
                    probability_[(b + r) * M + m] = scratch.p.col(m)[r];
                    sums.mean_probability[m] += scratch.p.col(m)[r];
                }
            }
            const std::size_t cluster = data_.cluster ? static_cast<std::size_t>(data_.cluster[i]) : 0;
            for (std::size_t k = 0; k < K; ++k)
                ++sums.sent[cluster + data_.clusters * static_cast<std::size_t>(chosen[k])];
        }
    }
}

// dloss/dh of each sample, from dloss/dg (which backward() has left in weight_), and with it the gradient in u.
void LayerPass::add_gate(std::size_t first, std::size_t last, const std::vector<double>& share, Scratch& scratch,
                         Sums& sums) const {
    const std::size_t M = spec_.experts, K = spec_.router.top_k, q = data_.gate_dim;
    sums.gate.assign(q * M, 0.0);
    const double balance = spec_.balance * static_cast<double>(M) / static_cast<double>(count_);
    for (std::size_t b = first; b < last; b += gate_rows) {
        const std::size_t rows = std::min(gate_rows, last - b), n = round_up(rows, lane_multiple);
        for (std::size_t m = 0; m < M; ++m) std::fill_n(scratch.slope.col(m), n, 0.0);
        for (std::size_t r = 0; r < rows; ++r) {
            const double* slope = weight_.data() + (b + r) * K;
            const int* chosen = route_.data() + (b + r) * K;
            const double* p = keep_probability_ ? probability_.data() + (b + r) * M : nullptr;
            double mean = 0;
            for (std::size_t k = 0; k < K; ++k) {
                const auto m = static_cast<std::size_t>(chosen[k]);
                // The derivative of a softmax: p_m ([m = l] - p_l).
                const double part = spec_.protocol == Protocol::paper ? slope[k] * p[m] : slope[k];
                scratch.slope.col(m)[r] += part;
                mean += part;
            }
            if (spec_.protocol == Protocol::paper)
                for (std::size_t m = 0; m < M; ++m) scratch.slope.col(m)[r] -= mean * p[m];
            if (spec_.balance > 0) {
                double mean_share = 0;
                for (std::size_t m = 0; m < M; ++m) mean_share += share[m] * p[m];
                for (std::size_t m = 0; m < M; ++m) scratch.slope.col(m)[r] += balance * p[m] * (share[m] - mean_share);
            }
        }
        const Features zeta = features(b, rows, scratch);
        kernel::cross_product(zeta.first, zeta.ld, q, scratch.slope.col(0), gate_rows, M, n, sums.gate.data(), q);
    }
}

// --- the experts -----------------------------------------------------------------------------------------------------

// A slot is position * top_k + rank.
void LayerPass::sort_by_expert(std::size_t first, std::size_t last, Scratch& scratch) const {
    const std::size_t K = spec_.router.top_k, M = spec_.experts;
    scratch.start.assign(M + 1, 0);
    for (std::size_t s = first * K; s < last * K; ++s) ++scratch.start[static_cast<std::size_t>(route_[s]) + 1];
    for (std::size_t m = 0; m < M; ++m) scratch.start[m + 1] += scratch.start[m];
    scratch.slots.resize((last - first) * K);
    std::vector<std::size_t> at(scratch.start.begin(), scratch.start.end() - 1);
    for (std::size_t s = first * K; s < last * K; ++s) scratch.slots[at[static_cast<std::size_t>(route_[s])]++] = s;
}

// Asks for the data of the next block while this one is computed: samples of one expert are strewn over the memory.
void LayerPass::fetch(const std::size_t* slots, std::size_t count) const {
#if defined(__GNUC__)
    const std::size_t size = data_.patches * data_.dim;
    for (std::size_t s = 0; s < count; ++s) {
        const double* x = data_.x + sample(slots[s] / spec_.router.top_k) * size;
        for (std::size_t j = 0; j < size; j += 8) __builtin_prefetch(x + j, 0, 2);
    }
#else
    static_cast<void>(slots), static_cast<void>(count);
#endif
}

// Values and first derivatives of the activation for the patches of some slots.
void LayerPass::forward(std::size_t expert, const std::size_t* slots, std::size_t count, Scratch& scratch) const {
    const std::size_t P = data_.patches, d = data_.dim, K = spec_.router.top_k;
    for (std::size_t s = 0; s < count; ++s)
        for (std::size_t p = 0; p < P; ++p)
            std::copy_n(data_.x + (sample(slots[s] / K) * P + p) * d, d, scratch.x.col(s * P + p));
    kernel::combine(filters_[expert].col(0), padded_, inputs_, scratch.x.col(0), inputs_, count * P, padded_,
                    scratch.s.col(0), padded_);
    kernel::activate(spec_.activation, scratch.s.col(0), padded_ * count * P, scratch.value.col(0),
                     scratch.first.col(0), nullptr);
}

// F of a sample and what follows from it: loss, class, derivative.
void LayerPass::mix_sample(std::size_t position, std::size_t chunk_first, Scratch& scratch, Sums& sums) const {
    const std::size_t K = spec_.router.top_k, C = spec_.outputs();
    scratch.mixed.assign(C, 0.0);
    for (std::size_t k = 0; k < K; ++k)
        for (std::size_t c = 0; c < C; ++c)
            scratch.mixed[c] += weight_[position * K + k] * scratch.output[((position - chunk_first) * K + k) * C + c];
    if (!data_.y) return;
    const double* F = scratch.mixed.data();
    const auto y = static_cast<std::size_t>(data_.y[sample(position)]);
    double* dloss = scratch.dloss.data() + (position - chunk_first) * C;
    const double scale = 1 / static_cast<double>(count_);
    if (C == 1) {
        const double sign = y == 1 ? 1 : -1;
        sums.loss += logistic_loss(sign * F[0], dloss);
        dloss[0] *= sign * scale;
        sums.correct += (F[0] > 0) == (y == 1);
        return;
    }
    sums.correct += static_cast<std::size_t>(std::max_element(F, F + C) - F) == y;
    double* t = scratch.gradient.data();
    if (spec_.protocol == Protocol::paper) {
        sums.loss += cross_entropy(F, C, y, t);
    } else {
        scratch.probability.resize(C);
        double* p = scratch.probability.data();
        softmax(F, C, p);
        sums.loss += cross_entropy(p, C, y, t);
        double mean = 0;
        for (std::size_t c = 0; c < C; ++c) mean += p[c] * t[c];
        for (std::size_t c = 0; c < C; ++c) t[c] = p[c] * (t[c] - mean);
    }
    for (std::size_t c = 0; c < C; ++c) dloss[c] = scale * t[c];
}

// Adds a block's part of the gradient in its expert. weight_ becomes the derivative of the loss in the weight.
void LayerPass::backward(std::size_t expert, const std::size_t* slots, std::size_t count, std::size_t chunk_first,
                         Scratch& scratch, Sums& sums) const {
    const std::size_t P = data_.patches, K = spec_.router.top_k, C = spec_.outputs(), share = spec_.filters / C;
    for (std::size_t s = 0; s < count; ++s) {
        const double* dloss = scratch.dloss.data() + (slots[s] / K - chunk_first) * C;
        const double weight = weight_[slots[s]];
        for (std::size_t p = s * P; p < (s + 1) * P; ++p) {
            double* first = scratch.first.col(p);
            for (std::size_t c = 0; c < C; ++c) {
                const double factor = weight * dloss[c];
                for (std::size_t j = c * share; j < (c + 1) * share; ++j) first[j] *= factor;
            }
        }
    }
    Buffer& gradient = sums.filters[expert];
    if (gradient.rows() == 0) gradient = Buffer(padded_, inputs_);
    kernel::outer_product(scratch.first.col(0), padded_, count * P, scratch.x.col(0), inputs_, inputs_, padded_,
                          gradient.col(0), padded_);
}

// All experts over the samples of a chunk. With one expert a sample, values and gradient come from the same visit.
void LayerPass::add_experts(std::size_t first, std::size_t last, bool learn, Scratch& scratch, Sums& sums) {
    const std::size_t K = spec_.router.top_k, C = spec_.outputs(), P = data_.patches, share = spec_.filters / C;
    const std::size_t block = std::max<std::size_t>(1, block_patches / P);
    sort_by_expert(first, last, scratch);
    scratch.output.resize((last - first) * K * C);
    scratch.dloss.resize((last - first) * C);
    if (learn) sums.filters.resize(spec_.experts);
    const auto visit = [&](bool values, bool gradients) {
        for (std::size_t m = 0; m < spec_.experts; ++m)
            for (std::size_t s = scratch.start[m]; s < scratch.start[m + 1]; s += block) {
                const std::size_t count = std::min(block, scratch.start[m + 1] - s);
                const std::size_t* slots = scratch.slots.data() + s;
                fetch(slots + count, std::min(block, scratch.start[m + 1] - s - count));
                forward(m, slots, count, scratch);
                for (std::size_t t = 0; values && t < count; ++t) {
                    // Over the patches first: sums that do not wait for each other.
                    double* sum = scratch.value.col(t * P);
                    for (std::size_t p = 1; p < P; ++p)
                        for (std::size_t j = 0; j < padded_; ++j) sum[j] += sum[p * padded_ + j];
                    double* f = scratch.output.data() + (slots[t] - first * K) * C;
                    for (std::size_t c = 0; c < C; ++c)
                        f[c] = std::accumulate(sum + c * share, sum + (c + 1) * share, 0.0);
                    if (gradients) mix_sample(slots[t], first, scratch, sums);
                }
                if (!gradients) continue;
                backward(m, slots, count, first, scratch, sums);
                for (std::size_t t = 0; t < count; ++t) {
                    const double* f = scratch.output.data() + (slots[t] - first * K) * C;
                    const double* dloss = scratch.dloss.data() + (slots[t] / K - first) * C;
                    double slope = 0;
                    for (std::size_t c = 0; c < C; ++c) slope += dloss[c] * f[c];
                    weight_[slots[t]] = slope;
                }
            }
    };
    if (learn && K == 1) return visit(true, true);
    visit(true, false);
    if (!learn) return;
    for (std::size_t b = first; b < last; ++b) mix_sample(b, first, scratch, sums);
    visit(false, true);
}

// --- the batch -------------------------------------------------------------------------------------------------------

LayerEvaluation LayerPass::evaluate(const arma::vec& theta, const Counter& counter, const std::size_t* index,
                                    std::size_t count, const int* route) {
    const std::size_t M = spec_.experts, K = spec_.router.top_k;
    index_ = index, count_ = count;
    route_.resize(count * K), weight_.resize(count * K);
    keep_probability_ = spec_.has_gate() && (spec_.protocol == Protocol::paper || spec_.balance > 0);
    if (keep_probability_) probability_.resize(count * M);
    load_parameters(theta);

    std::vector<Sums> parts(chunks(count));
    for_each_chunk(count, [&](std::size_t c, std::size_t first, std::size_t last, Scratch& scratch) {
        route_samples(counter, first, last, route, scratch, parts[c]);
    });
    LayerEvaluation out;
    out.sent.assign(data_.clusters * M, 0);
    std::vector<double> share(M, 0.0), mean_probability(M, 0.0);
    for (const Sums& part : parts)
        for (std::size_t s = 0; s < part.sent.size(); ++s) {
            out.sent[s] += part.sent[s];
            share[s / data_.clusters] += static_cast<double>(part.sent[s]) / static_cast<double>(count * K);
        }
    for (const Sums& part : parts)
        for (std::size_t m = 0; m < part.mean_probability.size(); ++m)
            mean_probability[m] += part.mean_probability[m] / static_cast<double>(count);

    for_each_chunk(count, [&](std::size_t c, std::size_t first, std::size_t last, Scratch& scratch) {
        add_experts(first, last, true, scratch, parts[c]);
        if (spec_.has_gate()) add_gate(first, last, share, scratch, parts[c]);
    });
    out.gradient.zeros(layout_.size());
    arma::mat gradient_u(layout_.gate_size(), M, arma::fill::zeros);
    for (const Sums& part : parts) {
        out.loss += part.loss / static_cast<double>(count);
        out.correct += part.correct;
        for (std::size_t m = 0; m < M; ++m) {
            if (part.filters[m].rows() == 0) continue;
            double* to = out.gradient.memptr() + layout_.filter(m);
            for (std::size_t j = 0; j < data_.dim; ++j)
                for (std::size_t i = 0; i < spec_.filters; ++i) to[j * spec_.filters + i] += part.filters[m].col(j)[i];
            double* bias = out.gradient.memptr() + layout_.bias(m);
            for (std::size_t i = 0; i < layout_.bias_size(); ++i) bias[i] += part.filters[m].col(data_.dim)[i];
        }
        for (std::size_t i = 0; i < part.gate.size(); ++i) gradient_u[i] += part.gate[i];
    }
    for (std::size_t m = 0; spec_.balance > 0 && spec_.has_gate() && m < M; ++m)
        out.loss += spec_.balance * static_cast<double>(M) * share[m] * mean_probability[m];
    if (spec_.has_gate()) {
        const arma::mat beta(theta.memptr() + layout_.gate(0), layout_.gate_size(), M);
        const arma::mat pulled = router_->pull_back(beta, gradient_u);
        std::copy_n(pulled.memptr(), pulled.n_elem, out.gradient.memptr() + layout_.gate(0));
    }
    return out;
}

void LayerPass::predict(const arma::vec& theta, const Counter& counter, const LayerPrediction& out) {
    const std::size_t M = spec_.experts, K = spec_.router.top_k, C = spec_.outputs(), n = data_.n;
    index_ = nullptr, count_ = n;
    route_.resize(n * K), weight_.resize(n * K);
    keep_probability_ = spec_.has_gate();
    if (keep_probability_) probability_.resize(n * M);
    load_parameters(theta);
    std::vector<Sums> parts(chunks(n));
    for_each_chunk(n, [&](std::size_t c, std::size_t first, std::size_t last, Scratch& scratch) {
        route_samples(counter, first, last, nullptr, scratch, parts[c]);
        add_experts(first, last, false, scratch, parts[c]);
        for (std::size_t b = first; b < last; ++b) {
            mix_sample(b, first, scratch, parts[c]);
            for (std::size_t o = 0; out.output && o < C; ++o) out.output[b + o * n] = scratch.mixed[o];
            for (std::size_t k = 0; out.expert && k < K; ++k) out.expert[b + k * n] = route_[b * K + k];
            for (std::size_t m = 0; out.gate && m < M; ++m)
                out.gate[b + m * n] = keep_probability_ ? probability_[b * M + m] : 1.0;
        }
    });
}

}  // namespace cosmoe
