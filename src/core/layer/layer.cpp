#include "layer/layer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/chunks.h"
#include "common/errors.h"

namespace cosmoe {
namespace {

constexpr std::size_t gate_rows = 64;      // samples in a block of the gate
constexpr std::size_t block_patches = 64;  // patches in a block of an expert: data, filters and gradient in cache
constexpr std::size_t most_chunks = 16;
constexpr std::size_t least_chunk = 512;

// Asks for numbers that will be read soon.
void fetch(const double* x, std::size_t size) {
#if defined(__GNUC__)
    for (std::size_t j = 0; j < size; j += 8) __builtin_prefetch(x + j, 0, 3);
#else
    static_cast<void>(x), static_cast<void>(size);
#endif
}

}  // namespace

arma::mat layer_features(const LayerSpec& spec, const LayerData& data, const arma::mat& projection) {
    const auto router = make_router(spec.router);
    const std::size_t q = projection.is_empty() ? data.dim : projection.n_rows;
    arma::mat out(q, data.n);
    arma::vec sum(data.dim), z;
    for (std::size_t i = 0; i < data.n; ++i) {
        sum.zeros();
        const double* x = data.x + i * data.patches * data.dim;
        for (std::size_t p = 0; p < data.patches; ++p)
            for (std::size_t j = 0; j < data.dim; ++j) sum[j] += x[p * data.dim + j];
        if (projection.is_empty()) z = sum;
        else z = projection * sum;
        const double factor = router->scales_features() ? router->feature_factor(arma::norm(z)) : 1;
        for (std::size_t j = 0; j < q; ++j) out(j, i) = factor * z[j];
    }
    return out;
}

// --- working memory --------------------------------------------------------------------------------------------------

// Of one thread.
struct LayerPass::Scratch {
    Scratch(const LayerPass& pass, std::size_t block)
        : zeta(gate_rows),
          h(pass.padded_experts_, gate_rows),
          score(gate_rows, pass.spec_.experts),
          p(gate_rows, pass.spec_.experts),
          top(gate_rows, pass.spec_.router.top_k),
          number(gate_rows, pass.spec_.router.top_k),
          s(pass.padded_, block * pass.data_.patches),
          value(pass.padded_, block * pass.data_.patches),
          first(pass.padded_, block * pass.data_.patches),
          patch(block * pass.data_.patches),
          one(block * pass.data_.patches, &unit),
          sample(pass.spec_.outputs() * block),
          mixed(round_up(block, lane_multiple), pass.spec_.outputs()),
          share(mixed.rows(), pass.spec_.outputs()),
          dmixed(mixed.rows(), pass.spec_.outputs()),
          row(mixed.rows(), 3),
          position(block) {}
    static constexpr double unit = 1;
    // Of a block of the gate: features; h, or the derivative in it, by sample; by expert.
    std::vector<const double*> zeta;
    Buffer h, score, p, top, number;
    // Of a block of an expert.
    Buffer s, value, first;
    std::vector<const double*> patch, one;  // where the patches are; a 1 for each
    std::vector<double> sample;             // outputs x samples
    // Of a block of samples: F, its softmax, derivatives of the loss.
    Buffer mixed, share, dmixed, row;
    std::vector<std::size_t> position;
    // Of the chunk.
    std::vector<std::size_t> slots;  // sorted by expert
    std::vector<std::size_t> start;  // where each expert's begin
    std::vector<double> output;      // outputs of each slot
    std::vector<double> dloss;       // derivative of the loss in F, outputs x samples
};

// Of one chunk.
struct LayerPass::Sums {
    double loss = 0;
    std::size_t correct = 0;
    std::vector<std::size_t> sent;
    std::vector<double> mean_probability;  // sums of softmax(h)
    Buffer filters, gate;                  // the gradients in filters_ and u_
};

LayerPass::LayerPass(const LayerSpec& spec, const LayerData& data, std::size_t threads, const Hooks& hooks)
    : spec_(spec),
      data_(data),
      threads_(std::max<std::size_t>(1, threads)),
      hooks_(hooks),
      router_(make_router(spec.router)),
      layout_(spec, data),
      padded_(round_up(spec.filters, lane_multiple)),
      padded_experts_(round_up(spec.experts, lane_multiple)),
      block_(std::max<std::size_t>(1, block_patches / std::max<std::size_t>(1, data.patches))),
      classes_(padded_ * data.patches, spec.outputs()),
      filters_(padded_, (data.dim + 1) * spec.experts),
      u_(padded_experts_, data.gate_dim) {
    if (data.n < 1 || data.patches < 1 || data.dim < 1) throw InvalidArgument("the layer needs samples with patches");
    if (spec.experts < 1 || spec.filters < 1) throw InvalidArgument("the layer needs experts with filters");
    if (spec.router.top_k < 1 || spec.router.top_k > spec.experts)
        throw InvalidArgument("top_k must be from 1 to the number of experts");
    if (spec.filters % spec.outputs() != 0) throw InvalidArgument("filters must be a multiple of the classes");
    const std::size_t share = spec.filters / spec.outputs();
    for (std::size_t c = 0; c < spec.outputs(); ++c)
        for (std::size_t p = 0; p < data.patches; ++p)
            std::fill_n(classes_.col(c) + p * padded_ + c * share, share, 1.0);
}

LayerPass::~LayerPass() = default;

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
        number, threads_, hooks_, [this] { return std::make_unique<Scratch>(*this, block_); },
        [&](std::size_t c, std::unique_ptr<Scratch>& scratch, const auto& go_on) {
            if (go_on()) task(c, std::min(count, c * size), std::min(count, (c + 1) * size), *scratch);
        });
}

void LayerPass::load_parameters(const arma::vec& theta) {
    const std::size_t J = spec_.filters, d = data_.dim;
    for (std::size_t m = 0; m < spec_.experts; ++m) {
        const double* w = theta.memptr() + layout_.filter(m);
        for (std::size_t j = 0; j < d; ++j) std::copy_n(w + j * J, J, filters_.col(m * (d + 1) + j));
        if (spec_.has_bias()) std::copy_n(theta.memptr() + layout_.bias(m), J, filters_.col(m * (d + 1) + d));
    }
    if (!spec_.has_gate()) return;
    const arma::mat u = router_->to_gate(arma::mat(theta.memptr() + layout_.gate(0), data_.gate_dim, spec_.experts));
    for (std::size_t m = 0; m < spec_.experts; ++m)
        for (std::size_t j = 0; j < data_.gate_dim; ++j) u_.col(j)[m] = u(j, m);
}

// --- the gate --------------------------------------------------------------------------------------------------------

// Where the features of some samples are; those of the next ones are asked for.
void LayerPass::list_features(std::size_t b, std::size_t rows, std::size_t last, Scratch& scratch) const {
    const std::size_t q = data_.gate_dim;
    for (std::size_t r = 0; r < rows; ++r) {
        scratch.zeta[r] = data_.zeta + sample(b + r) * q;
        if (b + rows + r < last) fetch(data_.zeta + sample(b + rows + r) * q, q);
    }
}

// The scores of a block of samples get their noise.
void LayerPass::add_noise(const Counter& counter, std::size_t b, std::size_t rows, Scratch& scratch) const {
    const std::size_t M = spec_.experts;
    const auto draw = [&](std::size_t r, std::size_t m) { return static_cast<std::uint64_t>(sample(b + r)) * M + m; };
    for (std::size_t m = 0; m < M; ++m) {
        double* score = scratch.score.col(m);
        if (spec_.noise == Noise::uniform)
            for (std::size_t r = 0; r < rows; ++r) score[r] += counter.uniform(draw(r, m));
        if (spec_.noise == Noise::gaussian)
            for (std::size_t r = 0; r < rows; ++r) score[r] += counter.normal(draw(r, m));
    }
}

void LayerPass::route_samples(const Counter& counter, std::size_t first, std::size_t last, const int* route,
                              Scratch& scratch, Sums& sums) {
    const std::size_t M = spec_.experts, K = spec_.router.top_k, q = data_.gate_dim;
    sums.sent.assign(data_.clusters * M, 0);
    if (keep_probability_) sums.mean_probability.assign(M, 0.0);
    if (!spec_.has_gate()) {
        std::fill_n(route_.data() + first, last - first, 0);
        std::fill_n(weight_.data() + first, last - first, 1.0);
    }
    for (std::size_t b = first; b < last && spec_.has_gate(); b += gate_rows) {
        const std::size_t rows = std::min(gate_rows, last - b), n = round_up(rows, lane_multiple);
        list_features(b, rows, last, scratch);
        kernel::combine_listed(u_.col(0), padded_experts_, q, nullptr, scratch.zeta.data(), rows, padded_experts_,
                               scratch.h.col(0), padded_experts_);
        for (std::size_t m = 0; m < M; ++m)
            for (std::size_t r = 0; r < rows; ++r) scratch.score.col(m)[r] = scratch.h.col(r)[m];
        if (keep_probability_) kernel::softmax(scratch.score.col(0), gate_rows, M, n, nullptr, scratch.p.col(0));
        add_noise(counter, b, rows, scratch);
        if (!route)
            kernel::largest(scratch.score.col(0), gate_rows, M, n, K, scratch.top.col(0), scratch.number.col(0),
                            gate_rows);
        const Buffer& weight = spec_.protocol == Protocol::notebook ? scratch.score : scratch.p;
        for (std::size_t k = 0; k < K; ++k)
            for (std::size_t r = 0; r < rows; ++r) {
                const std::size_t slot = (b + r) * K + k;
                route_[slot] = route ? route[slot] : static_cast<int>(scratch.number.col(k)[r]);
                weight_[slot] = weight.col(static_cast<std::size_t>(route_[slot]))[r];
            }
        for (std::size_t m = 0; keep_probability_ && m < M; ++m)
            for (std::size_t r = 0; r < rows; ++r) {
                probability_[(b + r) * M + m] = scratch.p.col(m)[r];
                sums.mean_probability[m] += scratch.p.col(m)[r];
            }
    }
    for (std::size_t slot = first * K; slot < last * K; ++slot) {
        const std::size_t cluster = data_.cluster ? static_cast<std::size_t>(data_.cluster[sample(slot / K)]) : 0;
        ++sums.sent[cluster + data_.clusters * static_cast<std::size_t>(route_[slot])];
    }
}

// dloss/dh of each sample, from dloss/dg (which backward() has left in weight_), and with it the gradient in u.
void LayerPass::add_gate(std::size_t first, std::size_t last, const std::vector<double>& share, Scratch& scratch,
                         Sums& sums) const {
    const std::size_t M = spec_.experts, K = spec_.router.top_k, q = data_.gate_dim;
    sums.gate = Buffer(u_.rows(), u_.cols());
    const double balance = spec_.balance * static_cast<double>(M) / static_cast<double>(count_);
    for (std::size_t b = first; b < last; b += gate_rows) {
        const std::size_t rows = std::min(gate_rows, last - b);
        std::fill_n(scratch.h.col(0), padded_experts_ * rows, 0.0);
        for (std::size_t r = 0; r < rows; ++r) {
            double* dh = scratch.h.col(r);
            const double* slope = weight_.data() + (b + r) * K;
            const int* chosen = route_.data() + (b + r) * K;
            const double* p = keep_probability_ ? probability_.data() + (b + r) * M : nullptr;
            double mean = 0;
            for (std::size_t k = 0; k < K; ++k) {
                const auto m = static_cast<std::size_t>(chosen[k]);
                // The derivative of a softmax: p_m ([m = l] - p_l).
                const double part = spec_.protocol == Protocol::paper ? slope[k] * p[m] : slope[k];
                dh[m] += part;
                mean += part;
            }
            if (spec_.protocol == Protocol::paper)
                for (std::size_t m = 0; m < M; ++m) dh[m] -= mean * p[m];
            if (spec_.balance > 0) {
                double mean_share = 0;
                for (std::size_t m = 0; m < M; ++m) mean_share += share[m] * p[m];
                for (std::size_t m = 0; m < M; ++m) dh[m] += balance * p[m] * (share[m] - mean_share);
            }
        }
        list_features(b, rows, last, scratch);
        kernel::outer_product(scratch.h.col(0), padded_experts_, rows, scratch.zeta.data(), q, padded_experts_,
                              sums.gate.col(0), padded_experts_);
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
void LayerPass::fetch_samples(const std::size_t* slots, std::size_t count) const {
    const std::size_t size = data_.patches * data_.dim;
    for (std::size_t t = 0; t < count; ++t) fetch(data_.x + sample(slots[t] / spec_.router.top_k) * size, size);
}

// Values and first derivatives of the activation for the patches of some slots, and the outputs of the slots.
void LayerPass::forward(std::size_t expert, const std::size_t* slots, std::size_t count, std::size_t chunk_first,
                        Scratch& scratch) const {
    const std::size_t P = data_.patches, d = data_.dim, K = spec_.router.top_k, C = spec_.outputs();
    const double* filters = filters_.col(expert * (d + 1));
    for (std::size_t t = 0; t < count; ++t)
        for (std::size_t p = 0; p < P; ++p) scratch.patch[t * P + p] = data_.x + (sample(slots[t] / K) * P + p) * d;
    kernel::combine_listed(filters, padded_, d, filters + d * padded_, scratch.patch.data(), count * P, padded_,
                           scratch.s.col(0), padded_);
    kernel::activate(spec_.activation, scratch.s.col(0), padded_ * count * P, scratch.value.col(0),
                     scratch.first.col(0), nullptr);
    std::fill_n(scratch.sample.data(), C * count, 0.0);
    kernel::cross_product(classes_.col(0), padded_ * P, C, scratch.value.col(0), padded_ * P, count, padded_ * P,
                          scratch.sample.data(), C);
    for (std::size_t t = 0; t < count; ++t)
        std::copy_n(scratch.sample.data() + t * C, C, scratch.output.data() + (slots[t] - chunk_first * K) * C);
}

// F of up to block_ samples and what follows from it: loss, class, derivative.
void LayerPass::mix_samples(const std::size_t* positions, std::size_t count, std::size_t chunk_first, Scratch& scratch,
                            Sums& sums) const {
    const std::size_t K = spec_.router.top_k, C = spec_.outputs(), n = round_up(count, lane_multiple);
    Buffer &F = scratch.mixed, &p = scratch.share, &t = scratch.dmixed;
    const std::size_t ld = F.rows();
    for (std::size_t c = 0; c < C; ++c) {
        for (std::size_t r = 0; r < count; ++r) {
            const std::size_t slot = positions[r] * K;
            double sum = 0;
            for (std::size_t k = 0; k < K; ++k)
                sum += weight_[slot + k] * scratch.output[(slot - chunk_first * K + k) * C + c];
            F.col(c)[r] = sum;
        }
        std::fill(F.col(c) + count, F.col(c) + n, 0.0);
    }
    if (!data_.y) return;
    const double scale = 1 / static_cast<double>(count_);
    double *top = scratch.row.col(0), *sum = scratch.row.col(1), *mean = scratch.row.col(2);
    const auto label = [&](std::size_t r) { return static_cast<std::size_t>(data_.y[sample(positions[r])]); };
    const auto dloss = [&](std::size_t r) { return scratch.dloss.data() + (positions[r] - chunk_first) * C; };
    if (C == 1) {
        // log(1 + exp(-yF))
        for (std::size_t r = 0; r < count; ++r) top[r] = label(r) == 1 ? -F.col(0)[r] : F.col(0)[r];
        std::fill(top + count, top + n, 0.0);
        kernel::activate(Activation::softplus, top, n, sum, t.col(0), nullptr);
        for (std::size_t r = 0; r < count; ++r) {
            sums.loss += sum[r];
            sums.correct += (F.col(0)[r] > 0) == (label(r) == 1);
            *dloss(r) = (label(r) == 1 ? -scale : scale) * t.col(0)[r];
        }
        return;
    }
    // Cross-entropy of softmax(v), v = F or softmax(F), and its derivative in F.
    const bool twice = spec_.protocol == Protocol::notebook;
    if (twice) kernel::softmax(F.col(0), ld, C, n, nullptr, p.col(0));
    const Buffer& v = twice ? p : F;
    kernel::softmax(v.col(0), ld, C, n, nullptr, t.col(0), top, sum);
    kernel::logarithm(sum, n, sum);
    for (std::size_t r = 0; r < count; ++r) {
        const std::size_t y = label(r);
        std::size_t best = 0;
        for (std::size_t c = 1; c < C; ++c) best = F.col(c)[r] > F.col(best)[r] ? c : best;
        sums.correct += best == y;
        sums.loss += sum[r] + top[r] - v.col(y)[r];
        t.col(y)[r] -= 1;
    }
    if (twice) {
        kernel::mix(p.col(0), ld, t.col(0), ld, C, n, mean);
        for (std::size_t c = 0; c < C; ++c) kernel::multiply_difference(p.col(c), t.col(c), mean, n, t.col(c));
    }
    for (std::size_t r = 0; r < count; ++r)
        for (std::size_t c = 0; c < C; ++c) dloss(r)[c] = scale * t.col(c)[r];
}

// Adds a block's part of the gradient in its expert. weight_ becomes the derivative of the loss in the weight.
void LayerPass::backward(std::size_t expert, const std::size_t* slots, std::size_t count, std::size_t chunk_first,
                         Scratch& scratch, Sums& sums) {
    const std::size_t P = data_.patches, d = data_.dim, K = spec_.router.top_k, C = spec_.outputs();
    for (std::size_t t = 0; t < count; ++t) {
        const double* dloss = scratch.dloss.data() + (slots[t] / K - chunk_first) * C;
        const double* f = scratch.output.data() + (slots[t] - chunk_first * K) * C;
        double slope = 0;
        for (std::size_t c = 0; c < C; ++c) {
            slope += dloss[c] * f[c];
            scratch.sample[t * C + c] = weight_[slots[t]] * dloss[c];
        }
        weight_[slots[t]] = slope;
    }
    // Every filter of a sample by the derivative of its class.
    kernel::combine(classes_.col(0), padded_ * P, C, scratch.sample.data(), C, count, padded_ * P, scratch.s.col(0),
                    padded_ * P);
    kernel::multiply(scratch.first.col(0), scratch.s.col(0), padded_ * P * count, scratch.first.col(0));
    double* gradient = sums.filters.col(expert * (d + 1));
    kernel::outer_product(scratch.first.col(0), padded_, count * P, scratch.patch.data(), d, padded_, gradient,
                          padded_);
    if (spec_.has_bias())
        kernel::outer_product(scratch.first.col(0), padded_, count * P, scratch.one.data(), 1, padded_,
                              gradient + d * padded_, padded_);
}

// task(first, count) for the blocks of some consecutive samples
template <class Task>
void LayerPass::for_each_block(std::size_t first, std::size_t last, Task task) const {
    for (std::size_t b = first; b < last; b += block_) task(b, std::min(block_, last - b));
}

// All experts over the samples of a chunk. With one expert a sample, values and gradient come from the same visit.
void LayerPass::add_experts(std::size_t first, std::size_t last, bool learn, Scratch& scratch, Sums& sums) {
    const std::size_t K = spec_.router.top_k, C = spec_.outputs();
    sort_by_expert(first, last, scratch);
    scratch.output.resize((last - first) * K * C);
    scratch.dloss.resize((last - first) * C);
    if (learn) sums.filters = Buffer(filters_.rows(), filters_.cols());
    const auto visit = [&](bool mix, bool gradients) {
        for (std::size_t m = 0; m < spec_.experts; ++m)
            for_each_block(scratch.start[m], scratch.start[m + 1], [&](std::size_t s, std::size_t count) {
                const std::size_t* slots = scratch.slots.data() + s;
                fetch_samples(slots + count, std::min(block_, scratch.start[m + 1] - s - count));
                forward(m, slots, count, first, scratch);
                if (mix) mix_samples(slots, count, first, scratch, sums);  // a slot is a position
                if (gradients) backward(m, slots, count, first, scratch, sums);
            });
    };
    if (learn && K == 1) return visit(true, true);
    visit(false, false);
    if (!learn) return;
    mix_chunk(first, last, scratch, sums, [](std::size_t, std::size_t) {});
    visit(false, true);
}

// Mixes the samples of a chunk in blocks; then(first, count) after each.
template <class Then>
void LayerPass::mix_chunk(std::size_t first, std::size_t last, Scratch& scratch, Sums& sums, Then then) const {
    for_each_block(first, last, [&](std::size_t b, std::size_t count) {
        std::iota(scratch.position.begin(), scratch.position.end(), b);
        mix_samples(scratch.position.data(), count, first, scratch, sums);
        then(b, count);
    });
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
    for (const Sums& part : parts) {
        out.loss += part.loss / static_cast<double>(count);
        out.correct += part.correct;
        if (&part == &parts[0]) continue;
        kernel::add(part.filters.col(0), filters_.rows() * filters_.cols(), parts[0].filters.col(0));
        if (spec_.has_gate()) kernel::add(part.gate.col(0), u_.rows() * u_.cols(), parts[0].gate.col(0));
    }
    out.gradient.set_size(layout_.size());
    for (std::size_t m = 0; m < M; ++m) {
        const double* filters = parts[0].filters.col(m * (data_.dim + 1));
        double* to = out.gradient.memptr() + layout_.filter(m);
        for (std::size_t j = 0; j < data_.dim; ++j)
            std::copy_n(filters + j * padded_, spec_.filters, to + j * spec_.filters);
        std::copy_n(filters + data_.dim * padded_, layout_.bias_size(), out.gradient.memptr() + layout_.bias(m));
    }
    for (std::size_t m = 0; spec_.balance > 0 && spec_.has_gate() && m < M; ++m)
        out.loss += spec_.balance * static_cast<double>(M) * share[m] * mean_probability[m];
    if (spec_.has_gate()) {
        const arma::mat beta(theta.memptr() + layout_.gate(0), data_.gate_dim, M);
        arma::mat gradient_u(data_.gate_dim, M);
        for (std::size_t j = 0; j < data_.gate_dim; ++j)
            for (std::size_t m = 0; m < M; ++m) gradient_u(j, m) = parts[0].gate.col(j)[m];
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
        mix_chunk(first, last, scratch, parts[c], [&](std::size_t b, std::size_t count) {
            for (std::size_t o = 0; out.output && o < C; ++o)
                std::copy_n(scratch.mixed.col(o), count, out.output + b + o * n);
        });
        for (std::size_t b = first; b < last; ++b) {
            for (std::size_t k = 0; out.expert && k < K; ++k) out.expert[b + k * n] = route_[b * K + k];
            for (std::size_t m = 0; out.gate && m < M; ++m)
                out.gate[b + m * n] = keep_probability_ ? probability_[b * M + m] : 1.0;
        }
    });
}

}  // namespace cosmoe
