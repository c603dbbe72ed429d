#include "regression/pass.h"

#include <cmath>

#include "common/chunks.h"
#include "common/errors.h"
#include "common/kernels.h"
#include "gate/gate.h"

namespace cosmoe {
namespace {

constexpr std::size_t most_chunks = 32;
constexpr std::size_t least_chunk = 4 * block_rows;

std::size_t chunks(std::size_t rows) { return std::max<std::size_t>(1, std::min(most_chunks, rows / least_chunk)); }

// The first column of a feature set; the single feature 1 is the last column of x.
const double* start_of(const Block& block, Features f, std::size_t dx) {
    return f == Features::gate ? block.zeta.col(0) : f == Features::expert ? block.x.col(0) : block.x.col(dx);
}

}  // namespace

Model::Model(const ModelSpec& model_spec, std::size_t dx, std::size_t dz)
    : spec(model_spec),
      router(make_router(spec.router)),
      expert(make_expert(spec.expert)),
      layout(spec.k, dx, dz, *expert, spec.dispersions) {
    if (spec.k < 1) throw InvalidArgument("a model needs at least one expert");
    const GateConstraint gate = router->constraint();
    for (std::size_t m = 0; m < spec.k && gate.kind != ConstraintKind::free && dz > 0; ++m)
        constraints.push_back(
            {gate.kind, static_cast<arma::uword>(layout.gate(m)), static_cast<arma::uword>(dz), gate.radius});
    for (std::size_t m = 0; m < spec.k && std::isfinite(spec.expert.bound_expert); ++m)
        constraints.push_back({ConstraintKind::ball, static_cast<arma::uword>(layout.eta(m)),
                               static_cast<arma::uword>(layout.q()), spec.expert.bound_expert});
    for (std::size_t m = 0; m < spec.dispersions; ++m)
        constraints.push_back(
            {ConstraintKind::ball, static_cast<arma::uword>(layout.dispersion(m)), 1, spec.dispersion_bound});
}

const Criterion& least_squares_criterion() {
    static const LeastSquaresCriterion criterion;
    return criterion;
}

struct Pass::Sums {
    double value = 0;
    std::vector<double> gradient;  // one column a predictor, as wide as the widest feature set
    std::vector<double> pairs;
};

Pass::Pass(const Model& model, const Rows& rows, std::size_t threads, const Hooks& hooks, const Criterion& criterion)
    : model_(model),
      rows_(rows),
      threads_(model.expert->thread_safe() ? std::max<std::size_t>(1, threads) : 1),
      hooks_(hooks),
      criterion_(criterion) {
    const auto& predictors = model.layout.predictors();
    const auto& curved = model.expert->curved_pairs();
    const Features kinds[] = {Features::gate, Features::expert, Features::one};
    std::size_t start = 0;
    for (std::size_t a = 0; a < 3; ++a)
        for (std::size_t b = a; b < 3; ++b) {
            PairGroup group{kinds[a], kinds[b], {}, {}, 0, start};
            for (std::size_t s = 0; s < predictors.size(); ++s)
                for (std::size_t t = a == b ? s : 0; t < predictors.size(); ++t) {
                    const Predictor &ps = predictors[s], &pt = predictors[t];
                    if (ps.features != kinds[a] || pt.features != kinds[b]) continue;
                    int column = -1;
                    if (kinds[a] != Features::gate && ps.owner == pt.owner)
                        for (std::size_t c = 0; c < curved.size(); ++c)
                            if (curved[c] == std::make_pair(ps.local, pt.local)) column = static_cast<int>(c);
                    group.pairs.emplace_back(s, t);
                    group.curved.push_back(column);
                }
            if (group.pairs.empty()) continue;
            const std::size_t da = model.layout.width(kinds[a]), db = model.layout.width(kinds[b]);
            group.columns = a == b ? da * (da + 1) / 2 : da * db;
            start += 2 * group.pairs.size() * group.columns;
            most_pairs_ = std::max(most_pairs_, group.pairs.size());
            groups_.push_back(std::move(group));
        }
}

std::unique_ptr<Block> Pass::take_block() const {
    const std::lock_guard<std::mutex> lock(guard_);
    if (!spare_.empty()) {
        std::unique_ptr<Block> block = std::move(spare_.back());
        spare_.pop_back();
        return block;
    }
    const Expert& expert = *model_.expert;
    return std::make_unique<Block>(model_.layout, expert.predictors(), expert.curved_pairs().size(), expert.wide(),
                                   criterion_.columns(model_.layout.k()), most_pairs_);
}

void Pass::give_back(std::unique_ptr<Block> block) const {
    const std::lock_guard<std::mutex> lock(guard_);
    spare_.push_back(std::move(block));
}

// Runs task(chunk, first row, number of rows, block) for every block of every chunk.
template <class Task>
void Pass::for_each_chunk(std::size_t rows, Task task) const {
    const std::size_t count = chunks(rows);
    const std::size_t size = round_up((rows + count - 1) / count, block_rows);
    const auto lend = [this] {
        return std::shared_ptr<Block>(take_block().release(),
                                      [this](Block* block) { give_back(std::unique_ptr<Block>(block)); });
    };
    run_chunks(count, threads_, hooks_, lend, [&](std::size_t c, std::shared_ptr<Block>& block, const auto& go_on) {
        const std::size_t last = std::min(rows, (c + 1) * size);
        for (std::size_t first = c * size; first < last && go_on(); first += block_rows)
            task(c, first, std::min(block_rows, last - first), *block);
    });
}

// Fills logit, p, h, f and, with derivatives, first and second.
void Pass::forward(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta,
                   int derivatives, Block& block) const {
    const Layout& layout = model_.layout;
    const std::size_t k = layout.k(), n = round_up(count, lane_multiple), ld = block_rows;
    const std::size_t own = block.predictors, curved = block.curved;
    block.n = n, block.valid = count;
    load_block(rows_, *model_.router, first, count, n, index, block.x, block.zeta);

    std::vector<double> bias(k);
    for (std::size_t m = 0; m < k; ++m) bias[m] = theta[layout.bias(m)];
    kernel::combine(block.zeta.col(0), ld, layout.dz(), theta.memptr(), layout.dz() + 1, k, n, block.logit.col(0), ld);
    gate_probabilities(block.logit, bias.data(), k, n, model_.spec.router.top_k, block.mask, block.p, &block.norm);

    double* f = block.f.col(0);
    std::fill_n(f, n, 0.0);
    const ExpertBlock rows{block.x, layout.dx(), n, count};
    for (std::size_t m = 0; m < k; ++m) {
        model_.expert->evaluate(rows, theta.memptr() + layout.eta(m), derivatives, block.h.col(m),
                                block.first.col(m * own), block.second.col(m * curved), block.scratch);
        const double *p = block.p.col(m), *h = block.h.col(m);
        // An expert without weight must not turn an overflow of its own into NaN.
        for (std::size_t i = 0; i < n; ++i) f[i] += p[i] > 0 ? p[i] * h[i] : 0.0;
        for (std::size_t i = 0; derivatives >= 1 && i < n; ++i) {
            if (p[i] > 0) continue;
            for (std::size_t a = 0; a < own; ++a) block.first.col(m * own + a)[i] = 0;
            for (std::size_t c = 0; derivatives >= 2 && c < curved; ++c) block.second.col(m * curved + c)[i] = 0;
        }
    }
}

void Pass::add_group(const PairGroup& group, Order order, Block& block, std::vector<double>& sums) const {
    const Layout& layout = model_.layout;
    const std::size_t n = block.n, ld = block_rows, count = group.pairs.size();
    for (std::size_t j = 0; j < count; ++j)
        criterion_.pair(layout, group, j, block, block.coef.col(j),
                        order == Order::hessian ? block.coef.col(count + j) : nullptr);
    const std::size_t used = (order == Order::hessian ? 2 : 1) * group.pairs.size(), height = 2 * group.pairs.size();
    const std::size_t da = layout.width(group.first), db = layout.width(group.second);
    const double* first = start_of(block, group.first, layout.dx());
    const double* second = start_of(block, group.second, layout.dx());
    double* out = sums.data() + group.start;
    for (std::size_t a = 0; a < da; ++a) {
        const std::size_t from = group.symmetric() ? a : 0;
        for (std::size_t b = from; b < db; ++b)
            kernel::multiply(first + a * ld, second + b * ld, n, block.features.col(b - from));
        kernel::cross_product(block.coef.col(0), ld, used, block.features.col(0), ld, db - from, n, out, height);
        out += height * (db - from);
    }
}

// Responses, weights, offsets and trials; rows of weight zero do not count, whatever their response.
void Pass::load_rows(std::size_t first, std::size_t count, const std::size_t* index, Block& block) const {
    double *y = block.y.col(0), *w = block.w.col(0), *offset = block.offset.col(0), *trials = block.trials.col(0);
    for (std::size_t i = 0; i < block.n; ++i) {
        const std::size_t row = i < count ? (index ? index[first + i] : first + i) : 0;
        w[i] = i < count ? (rows_.w ? rows_.w[row] : 1.0) : 0.0;
        y[i] = rows_.y && w[i] > 0 ? rows_.y[row] : 0.0;
        offset[i] = rows_.offset ? rows_.offset[row] : 0.0;
        trials[i] = rows_.trials ? rows_.trials[row] : 1.0;
    }
}

void Pass::add_block(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta,
                     Order order, Block& block, Sums& sums) const {
    const Layout& layout = model_.layout;
    const auto& predictors = layout.predictors();
    const int derivatives = order == Order::value ? 0 : order == Order::hessian ? 2 : 1;
    if (criterion_.anchor()) {
        forward(first, count, index, *criterion_.anchor(), 0, block);
        load_rows(first, count, index, block);
        criterion_.remember(layout, block);
    }
    forward(first, count, index, theta, derivatives, block);
    load_rows(first, count, index, block);
    sums.value += criterion_.add_rows(layout, theta, derivatives, block);
    if (order == Order::value) return;

    const std::size_t widest = std::max(layout.dx(), layout.dz()) + 1, ld = block_rows;
    // Runs of predictors over the same features share one product.
    for (std::size_t s = 0; s < predictors.size();) {
        std::size_t t = s;
        while (t < predictors.size() && predictors[t].features == predictors[s].features) ++t;
        const Features kind = predictors[s].features;
        kernel::cross_product(start_of(block, kind, layout.dx()), ld, layout.width(kind), block.weighted.col(s), ld,
                              t - s, block.n, sums.gradient.data() + s * widest, widest);
        s = t;
    }
    if (order == Order::gradient) return;
    for (const PairGroup& group : groups_) add_group(group, order, block, sums.pairs);
}

arma::mat Pass::unpack(const Sums& sums, std::size_t slice) const {
    const Layout& layout = model_.layout;
    const auto& predictors = layout.predictors();
    arma::mat out(layout.size(), layout.size(), arma::fill::zeros);
    for (const PairGroup& group : groups_) {
        const std::size_t da = layout.width(group.first), db = layout.width(group.second);
        const std::size_t count = group.pairs.size();
        for (std::size_t j = 0; j < count; ++j) {
            const auto [s, t] = group.pairs[j];
            const std::size_t row = predictors[s].offset, col = predictors[t].offset;
            const double* value = sums.pairs.data() + group.start + slice * count + j;
            // Predictors may share a parameter: everything is added.
            const auto add = [&](std::size_t i, std::size_t l) {
                out(row + i, col + l) += *value;
                if (s != t) out(col + l, row + i) += *value;
            };
            for (std::size_t a = 0; a < da; ++a)
                for (std::size_t b = group.symmetric() ? a : 0; b < db; ++b, value += 2 * count) {
                    add(a, b);
                    if (group.symmetric() && a != b) add(b, a);
                }
        }
    }
    return out;
}

Evaluation Pass::evaluate(const arma::vec& theta, Order order, const std::size_t* index, std::size_t count) const {
    const Layout& layout = model_.layout;
    const std::size_t widest = std::max(layout.dx(), layout.dz()) + 1;
    std::size_t pair_size = 0;
    if (order >= Order::normal)
        for (const PairGroup& group : groups_) pair_size += 2 * group.pairs.size() * group.columns;
    std::vector<Sums> parts(chunks(count));
    for (Sums& part : parts) {
        part.gradient.assign(widest * layout.predictors().size(), 0.0);
        part.pairs.assign(pair_size, 0.0);
    }
    for_each_chunk(count, [&](std::size_t c, std::size_t first, std::size_t rows, Block& block) {
        add_block(first, rows, index, theta, order, block, parts[c]);
    });
    Sums& total = parts[0];
    for (std::size_t c = 1; c < parts.size(); ++c) {
        total.value += parts[c].value;
        for (std::size_t i = 0; i < total.gradient.size(); ++i) total.gradient[i] += parts[c].gradient[i];
        for (std::size_t i = 0; i < total.pairs.size(); ++i) total.pairs[i] += parts[c].pairs[i];
    }
    Evaluation out;
    out.value = total.value;
    if (order == Order::value) return out;
    out.gradient = unpack_gradient(total.gradient.data());
    if (order >= Order::normal) out.normal = unpack(total, 0);
    if (order >= Order::hessian) out.hessian = unpack(total, 1);
    return out;
}

arma::vec Pass::unpack_gradient(const double* sums) const {
    const Layout& layout = model_.layout;
    const auto& predictors = layout.predictors();
    const std::size_t widest = std::max(layout.dx(), layout.dz()) + 1;
    arma::vec gradient(layout.size(), arma::fill::zeros);
    for (std::size_t s = 0; s < predictors.size(); ++s)
        for (std::size_t a = 0; a < layout.width(predictors[s].features); ++a)
            gradient[predictors[s].offset + a] += sums[s * widest + a];
    return gradient;
}

void Pass::predict(const arma::vec& theta, const Prediction& out) const {
    const std::size_t k = model_.layout.k(), n = rows_.n;
    for_each_chunk(n, [&](std::size_t, std::size_t first, std::size_t count, Block& block) {
        forward(first, count, nullptr, theta, 0, block);
        const auto copy = [&](const Buffer& from, std::size_t columns, double* to) {
            for (std::size_t m = 0; to && m < columns; ++m) std::copy_n(from.col(m), count, to + m * n + first);
        };
        copy(block.f, 1, out.f);
        copy(block.p, k, out.gate);
        copy(block.h, k, out.expert);
        copy(block.logit, k, out.logit);
    });
}

void Pass::jacobian(const arma::vec& theta, double* out) const {
    const Layout& layout = model_.layout;
    const auto& predictors = layout.predictors();
    for_each_chunk(rows_.n, [&](std::size_t, std::size_t first, std::size_t count, Block& block) {
        forward(first, count, nullptr, theta, 1, block);
        load_rows(first, count, nullptr, block);
        criterion_.add_rows(layout, theta, 1, block);
        for (std::size_t s = 0; s < predictors.size(); ++s) {
            const double* features = start_of(block, predictors[s].features, layout.dx());
            const double* slope = block.slope.col(s);
            for (std::size_t a = 0; a < layout.width(predictors[s].features); ++a) {
                double* column = out + (predictors[s].offset + a) * rows_.n + first;
                for (std::size_t i = 0; i < count; ++i) column[i] += slope[i] * features[a * block_rows + i];
            }
        }
    });
}

}  // namespace cosmoe
