#include "regression/pass.h"

#include <cmath>
#include <map>

#include "common/chunks.h"
#include "common/errors.h"
#include "common/kernels.h"
#include "gate/gate.h"

namespace cosmoe {
namespace {

constexpr std::size_t most_chunks = 32;
constexpr std::size_t least_chunk = 4 * block_rows;

std::size_t chunks(std::size_t rows) { return std::max<std::size_t>(1, std::min(most_chunks, rows / least_chunk)); }

// Rounded up: the last chunks may be smaller, or empty.
std::size_t chunk_size(std::size_t rows, std::size_t chunks) {
    return round_up((rows + chunks - 1) / chunks, block_rows);
}

// The first column of a feature set; the single feature 1 is the last column of x.
const double* start_of(const Block& block, Features f, std::size_t dx) {
    return f == Features::gate ? block.zeta.col(0) : f == Features::expert ? block.x.col(0) : block.x.col(dx);
}

// Of sets of `chosen` among k experts, or `enough`.
std::size_t number_of_sets(std::size_t k, std::size_t chosen, std::size_t enough) {
    double sets = 1;
    for (std::size_t j = 0; j < chosen; ++j) sets = sets * static_cast<double>(k - j) / static_cast<double>(j + 1);
    return sets < static_cast<double>(enough) ? static_cast<std::size_t>(sets + 0.5) : enough;
}

bool is_sparse(const Model& model) { return model.spec.router.top_k > 0 && model.spec.router.top_k < model.layout.k(); }

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
    std::vector<double> pairs;     // group after group

    Sums(std::size_t gradients, std::size_t of_pairs) : gradient(gradients, 0.0), pairs(of_pairs, 0.0) {}
    void clear() {
        value = 0;
        std::fill(gradient.begin(), gradient.end(), 0.0);
        std::fill(pairs.begin(), pairs.end(), 0.0);
    }
    void add(const Sums& other) {
        value += other.value;
        for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += other.gradient[i];
        for (std::size_t i = 0; i < pairs.size(); ++i) pairs[i] += other.pairs[i];
    }
};

// Sums of chunks that are done before their turn wait: mostly no more than there are threads.
struct Pass::Total {
    explicit Total(const Sums& zero) : sums(zero) {}

    // Takes the sums of a chunk and leaves zeros in their place.
    void take(std::size_t chunk, Sums& part) {
        const std::lock_guard<std::mutex> lock(guard);
        if (chunk != next) {
            Sums zero(part.gradient.size(), part.pairs.size());
            waiting.emplace(chunk, std::exchange(part, std::move(zero)));
            return;
        }
        sums.add(part);
        part.clear();
        for (++next; !waiting.empty() && waiting.begin()->first == next; ++next) {
            sums.add(waiting.begin()->second);
            waiting.erase(waiting.begin());
        }
    }

    Sums sums;
    std::mutex guard;
    std::size_t next = 0;
    std::map<std::size_t, Sums> waiting;
};

Pass::Pass(const Model& model, const Rows& rows, std::size_t threads, const Hooks& hooks, const Criterion& criterion)
    : model_(model),
      rows_(rows),
      threads_(model.expert->thread_safe() ? std::max<std::size_t>(1, threads) : 1),
      hooks_(hooks),
      criterion_(criterion),
      aliased_(rows.shared() && !model.router->scales_features()) {
    const auto& predictors = model.layout.predictors();
    const auto& curved = model.expert->curved_pairs();
    const Features kinds[] = {Features::gate, Features::expert, Features::one};
    place_.resize(predictors.size() * predictors.size());
    for (std::size_t a = 0; a < 3; ++a)
        for (std::size_t b = a; b < 3; ++b) {
            PairGroup group;
            group.first = kinds[a], group.second = kinds[b];
            for (std::size_t s = 0; s < predictors.size(); ++s)
                for (std::size_t t = a == b ? s : 0; t < predictors.size(); ++t) {
                    const Predictor &ps = predictors[s], &pt = predictors[t];
                    if (features_of(ps) != kinds[a] || features_of(pt) != kinds[b]) continue;
                    int column = -1;
                    if (ps.features != Features::gate && ps.owner == pt.owner)
                        for (std::size_t c = 0; c < curved.size(); ++c)
                            if (curved[c] == std::make_pair(ps.local, pt.local)) column = static_cast<int>(c);
                    place_[s + t * predictors.size()] = {groups_.size(), group.pairs.size()};
                    group.pairs.emplace_back(s, t);
                    group.curved.push_back(column);
                    const auto row = [&](bool exact, std::size_t& count) {
                        return criterion.vanishes(ps, pt, exact) ? -1 : static_cast<int>(count++);
                    };
                    group.normal.push_back(row(false, group.normals));
                    group.exact.push_back(row(true, group.exacts));
                }
            if (group.pairs.empty()) continue;
            const std::size_t da = model.layout.width(kinds[a]), db = model.layout.width(kinds[b]);
            group.columns = a == b ? da * (da + 1) / 2 : da * db;
            groups_.push_back(std::move(group));
        }
    // Experts are a set of bits below. With an anchor rows would have one set there and one here.
    if (!is_sparse(model) || model.layout.k() > 64 || criterion.anchor()) return;
    ModelSpec few = model.spec;
    few.k = few.router.top_k;
    few.router.top_k = 0;
    if (few.dispersions > 1) few.dispersions = few.k;
    few_model_ = std::make_unique<Model>(few, model.layout.dx(), model.layout.dz());
    few_ = std::make_unique<Pass>(*few_model_, rows, 1, hooks, criterion);
    // An expert is its one predictor: nothing else depends on which one a row is sent to.
    scatters_ = model.expert->wide() == 1 && model.expert->scalars() == 0 && model.spec.dispersions <= 1;
}

std::shared_ptr<Block> Pass::lend_block() const {
    const auto give_back = [this](Block* block) {
        const std::lock_guard<std::mutex> lock(guard_);
        spare_.emplace_back(block);
    };
    {
        const std::lock_guard<std::mutex> lock(guard_);
        if (!spare_.empty()) {
            std::unique_ptr<Block> block = std::move(spare_.back());
            spare_.pop_back();
            return {block.release(), give_back};
        }
    }
    std::size_t most_rows = 1;
    for (const PairGroup& group : groups_) most_rows = std::max(most_rows, group.height(Order::hessian));
    const Expert& expert = *model_.expert;
    return {new Block(model_.layout, expert.predictors(), expert.curved_pairs().size(), expert.wide(),
                      criterion_.columns(model_.layout.k()), most_rows),
            give_back};
}

// Runs task(first row, number of rows) for the blocks of rows first, ..., last - 1.
template <class Task>
void Pass::for_each_block(std::size_t first, std::size_t last, Task task) const {
    for (; first < last; first += block_rows) task(first, std::min(block_rows, last - first));
}

// Runs task(first row, number of rows, block) for every block of every chunk.
template <class Task>
void Pass::for_each_chunk(std::size_t rows, Task task) const {
    const std::size_t size = chunk_size(rows, chunks(rows));
    run_chunks(
        chunks(rows), threads_, hooks_, [this] { return lend_block(); },
        [&](std::size_t c, std::shared_ptr<Block>& block, const auto& go_on) {
            for_each_block(c * size, std::min(rows, (c + 1) * size), [&](std::size_t first, std::size_t count) {
                if (go_on()) task(first, count, *block);
            });
        });
}

void Pass::load_features(std::size_t first, std::size_t count, const std::size_t* index, Block& block) const {
    block.n = round_up(count, lane_multiple), block.valid = count;
    if (aliased_) load_experts(rows_, first, count, block.n, index, block.x);
    else load_block(rows_, *model_.router, first, count, block.n, index, block.x, block.zeta);
}

// Fills logit, p, h, f and, with derivatives, first and second.
void Pass::forward(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta,
                   int derivatives, Block& block) const {
    const Layout& layout = model_.layout;
    const std::size_t k = layout.k(), n = round_up(count, lane_multiple), ld = block_rows;
    const std::size_t wide = model_.expert->wide(), dx = layout.dx(), dz = layout.dz();
    load_features(first, count, index, block);
    const double* zeta = aliased_ ? block.x.col(0) : block.zeta.col(0);
    const bool sparse = is_sparse(model_);
    // A column of theta holds a gate's bias last, as the features hold ones.
    kernel::combine(zeta, ld, sparse ? dz : dz + 1, theta.memptr(), dz + 1, k, n, block.logit.col(0), ld);
    std::vector<double> bias(sparse ? k : 0);
    for (std::size_t m = 0; m < bias.size(); ++m) bias[m] = theta[layout.bias(m)];
    gate_probabilities(block.logit, sparse ? bias.data() : nullptr, k, n, model_.spec.router.top_k, block.mask, block.p,
                       &block.norm);

    const double* eta = theta.memptr() + layout.eta(0);
    if (wide == 1) kernel::combine(block.x.col(0), ld, dx + 1, eta, layout.q(), k, n, block.wide.col(0), ld);
    for (std::size_t m = 0; wide > 1 && m < k; ++m)
        kernel::combine(block.x.col(0), ld, dx + 1, eta + m * layout.q(), dx + 1, wide, n, block.wide.col(m * wide),
                        ld);
    evaluate_experts(eta, derivatives, block);
}

// h, f, first and second from the wide predictors and the gate.
void Pass::evaluate_experts(const double* eta, int derivatives, Block& block) const {
    const Layout& layout = model_.layout;
    const std::size_t k = layout.k(), n = block.n, ld = block_rows;
    const std::size_t own = block.predictors, curved = block.curved, wide = model_.expert->wide();
    for (std::size_t m = 0; m < k; ++m) {
        const ExpertBlock rows{block.x, layout.dx(), n, block.valid, block.wide.col(m * wide)};
        model_.expert->evaluate(rows, eta + m * layout.q(), derivatives, block.h.col(m), block.first.col(m * own),
                                block.second.col(m * curved), block.scratch);
        // An expert without weight must not turn an overflow of its own into NaN.
        const double* p = block.p.col(m);
        if (derivatives == 0 || kernel::all_positive(p, n)) continue;
        for (std::size_t a = 0; a < own; ++a) kernel::clear_where_zero(p, n, block.first.col(m * own + a));
        for (std::size_t c = 0; derivatives >= 2 && c < curved; ++c)
            kernel::clear_where_zero(p, n, block.second.col(m * curved + c));
    }
    kernel::mix(block.p.col(0), ld, block.h.col(0), ld, k, n, block.f.col(0));
}

void Pass::add_group(const PairGroup& group, Order order, Block& block, double* sums) const {
    const Layout& layout = model_.layout;
    const std::size_t n = block.n, ld = block_rows, height = group.height(order);
    if (height == 0) return;
    const auto column = [&](int row, std::size_t from) {
        return row < 0 ? nullptr : block.coef.col(from + static_cast<std::size_t>(row));
    };
    for (std::size_t j = 0; j < group.pairs.size(); ++j) {
        double* normal = column(group.normal[j], 0);
        double* exact = order == Order::hessian ? column(group.exact[j], group.normals) : nullptr;
        if (normal || exact) criterion_.pair(layout, group, j, block, normal, exact);
    }
    const std::size_t da = layout.width(group.first), db = layout.width(group.second);
    const double* first = start_of(block, group.first, layout.dx());
    const double* second = start_of(block, group.second, layout.dx());
    std::size_t waiting = 0;
    const auto flush = [&] {
        kernel::cross_product(block.coef.col(0), ld, height, block.features.col(0), ld, waiting, n, sums, height);
        sums += height * waiting;
        waiting = 0;
    };
    for (std::size_t a = 0; a < da; ++a)
        for (std::size_t b = group.symmetric() ? a : 0; b < db; ++b) {
            kernel::multiply(first + a * ld, second + b * ld, n, block.features.col(waiting++));
            if (waiting == feature_columns) flush();
        }
    flush();
}

// Responses, weights, offsets and trials; rows of weight zero do not count, whatever their response.
void Pass::load_rows(std::size_t first, std::size_t count, const std::size_t* index, Block& block) const {
    const auto load = [&](const double* column, Buffer& into) {
        if (!column) return;
        double* out = into.col(0);
        if (index)
            for (std::size_t i = 0; i < count; ++i) out[i] = column[index[first + i]];
        else std::copy_n(column + first, count, out);
        std::fill(out + count, out + block.n, 0.0);
    };
    load(rows_.y, block.y);
    load(rows_.offset, block.offset);
    load(rows_.trials, block.trials);
    double* w = block.w.col(0);
    load(rows_.w, block.w);
    if (rows_.w) return kernel::clear_where_zero(w, block.n, block.y.col(0));
    std::fill(w, w + count, 1.0);
    std::fill(w + count, w + block.n, 0.0);
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

    // Runs of predictors over the same features share one product.
    for (std::size_t s = 0; s < predictors.size();) {
        const Features kind = features_of(predictors[s]);
        std::size_t t = s;
        while (t < predictors.size() && features_of(predictors[t]) == kind) ++t;
        kernel::cross_product(start_of(block, kind, layout.dx()), block_rows, layout.width(kind), block.weighted.col(s),
                              block_rows, t - s, block.n, sums.gradient.data() + s * widest(), widest());
        s = t;
    }
    for (std::size_t g = 0; order >= Order::normal && g < groups_.size(); ++g)
        add_group(groups_[g], order, block, sums.pairs.data() + start_of_group(g, order));
}

std::size_t Pass::start_of_group(std::size_t g, Order order) const {
    std::size_t start = 0;
    for (std::size_t h = 0; h < g; ++h) start += groups_[h].height(order) * groups_[h].columns;
    return start;
}

arma::mat Pass::unpack(const Sums& sums, Order order, bool exact) const {
    const Layout& layout = model_.layout;
    const auto& predictors = layout.predictors();
    arma::mat out(layout.size(), layout.size(), arma::fill::zeros);
    for (std::size_t g = 0; g < groups_.size(); ++g) {
        const PairGroup& group = groups_[g];
        const std::size_t da = layout.width(group.first), db = layout.width(group.second);
        const std::size_t height = group.height(order);
        for (std::size_t j = 0; j < group.pairs.size(); ++j) {
            const int at = exact ? group.exact[j] : group.normal[j];
            if (at < 0) continue;
            const auto [s, t] = group.pairs[j];
            const std::size_t row = predictors[s].offset, col = predictors[t].offset;
            const double* value = sums.pairs.data() + start_of_group(g, order) + (exact ? group.normals : 0) + at;
            // Predictors may share a parameter: everything is added.
            const auto add = [&](std::size_t i, std::size_t l) {
                out(row + i, col + l) += *value;
                if (s != t) out(col + l, row + i) += *value;
            };
            for (std::size_t a = 0; a < da; ++a)
                for (std::size_t b = group.symmetric() ? a : 0; b < db; ++b, value += height) {
                    add(a, b);
                    if (group.symmetric() && a != b) add(b, a);
                }
        }
    }
    return out;
}

Evaluation Pass::evaluate(const arma::vec& theta, Order order, const std::size_t* index, std::size_t count) const {
    // Sorted rows are best in few chunks, since each has every set of experts once; but threads need some.
    std::size_t parts = chunks(count);
    bool sort = false, scatter = false;
    if (few_ && theta.is_finite()) {
        const std::size_t sets = number_of_sets(model_.layout.k(), few_model_->layout.k(), count);
        const std::size_t few =
            std::max(std::min<std::size_t>(parts, 8), count / (16 * std::max<std::size_t>(1, sets)));
        sort = worth_sorting(std::min(count, chunk_size(count, std::min(parts, few))));
        scatter = sort && scatters_ && order < Order::normal;
        if (sort && !scatter) parts = std::min(parts, few);
    }
    const std::size_t size = chunk_size(count, parts);
    const Sums zero(order == Order::value ? 0 : widest() * model_.layout.predictors().size(),
                    start_of_group(groups_.size(), order));
    Total total(zero);
    struct Scratch {
        std::shared_ptr<Block> block;
        Sums sums;
    };
    run_chunks(
        parts, threads_, hooks_,
        [&] {
            return Scratch{lend_block(), zero};
        },
        [&](std::size_t c, Scratch& scratch, const auto& go_on) {
            const std::size_t from = std::min(count, c * size), to = std::min(count, from + size);
            if (scatter) add_scattered(from, to, index, theta, order, go_on, *scratch.block, scratch.sums);
            else if (sort) add_sorted(from, to, index, theta, order, go_on, *scratch.block, scratch.sums);
            else
                for_each_block(from, to, [&](std::size_t first, std::size_t rows) {
                    if (go_on()) add_block(first, rows, index, theta, order, *scratch.block, scratch.sums);
                });
            if (go_on()) total.take(c, scratch.sums);
        });
    Evaluation out;
    out.value = total.sums.value;
    if (order == Order::value) return out;
    out.gradient = unpack_gradient(total.sums.gradient.data());
    if (order >= Order::normal) out.normal = unpack(total.sums, order, false);
    if (order >= Order::hessian) out.hessian = unpack(total.sums, order, true);
    return out;
}

// ---- sparse gates ----------------------------------------------------------------------------------------------------

// The work of a pass with matrices, in rows times experts squared: every set of experts fills lanes with empty rows, and
// costs about as much again as 32 rows.
bool Pass::worth_sorting(std::size_t rows) const {
    if (!few_ || rows == 0) return false;
    const std::size_t k = model_.layout.k(), chosen = few_model_->layout.k();
    const std::size_t sets = number_of_sets(k, chosen, rows);
    return sets * (round_up((rows + sets - 1) / sets, lane_multiple) + 32) * chosen * chosen < rows * k * k;
}

// The largest scores of a block's rows into `p`, their experts into `mask`: of k columns, both are free for that.
void Pass::choose(const arma::vec& theta, std::size_t n, Block& block) const {
    const Layout& layout = model_.layout;
    const double* zeta = aliased_ ? block.x.col(0) : block.zeta.col(0);
    kernel::combine(zeta, block_rows, layout.dz(), theta.memptr(), layout.dz() + 1, layout.k(), n, block.logit.col(0),
                    block_rows);
    largest_scores(block.logit, layout.k(), n, few_model_->layout.k(), block.p, block.mask);
}

// Appends the rows of a block, each with the set of its experts.
void Pass::route(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta, Block& block,
                 std::vector<std::pair<std::uint64_t, std::size_t>>& rows) const {
    const std::size_t chosen = few_model_->layout.k(), n = round_up(count, lane_multiple);
    if (aliased_) load_experts(rows_, first, count, n, index, block.x);
    else load_gates(rows_, *model_.router, first, count, n, index, block.zeta);
    choose(theta, n, block);
    for (std::size_t i = 0; i < count; ++i) {
        std::uint64_t set = 0;
        for (std::size_t j = 0; j < chosen; ++j) set |= std::uint64_t{1} << static_cast<int>(block.mask.col(j)[i]);
        rows.emplace_back(set, index ? index[first + i] : first + i);
    }
}

template <class GoOn>
void Pass::add_sorted(std::size_t first, std::size_t last, const std::size_t* index, const arma::vec& theta,
                      Order order, const GoOn& go_on, Block& block, Sums& sums) const {
    const Layout &all = model_.layout, &layout = few_model_->layout;
    std::vector<std::pair<std::uint64_t, std::size_t>> rows;
    rows.reserve(last - first);
    for_each_block(first, last, [&](std::size_t from, std::size_t count) {
        if (go_on()) route(from, count, index, theta, block, rows);
    });
    std::sort(rows.begin(), rows.end());
    std::vector<std::size_t> numbers(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) numbers[i] = rows[i].second;

    const std::shared_ptr<Block> few_block = few_->lend_block();
    Sums few(order == Order::value ? 0 : few_->widest() * layout.predictors().size(),
             few_->start_of_group(few_->groups_.size(), order));
    arma::vec few_theta(layout.size());
    std::vector<std::size_t> experts(layout.k());
    for (std::size_t from = 0, to = 0; from < rows.size(); from = to) {
        while (to < rows.size() && rows[to].first == rows[from].first) ++to;
        for (std::size_t m = 0, j = 0; m < all.k(); ++m)
            if (rows[from].first >> m & 1) experts[j++] = m;
        for (std::size_t j = 0; j < experts.size(); ++j) {
            const auto copy = [&](std::size_t source, std::size_t count, std::size_t target) {
                std::copy_n(theta.memptr() + source, count, few_theta.memptr() + target);
            };
            copy(all.gate(experts[j]), all.dz() + 1, layout.gate(j));
            copy(all.eta(experts[j]), all.q(), layout.eta(j));
            if (all.dispersions() > 0) copy(all.dispersion(experts[j]), 1, layout.dispersion(j));
        }
        few.clear();
        for_each_block(from, to, [&](std::size_t start, std::size_t count) {
            if (!go_on()) return;
            few_->add_block(start, count, numbers.data(), few_theta, order, *few_block, few);
        });
        add_few(experts, few, order, sums);
    }
}

// Without matrices there are few products for each expert of a row: rows stay where they are, as experts 1, 2, ... of a
// dense model, and what is sent to an expert is added row by row, on lanes across the features.
template <class GoOn>
void Pass::add_scattered(std::size_t first, std::size_t last, const std::size_t* index, const arma::vec& theta,
                         Order order, const GoOn& go_on, Block& block, Sums& sums) const {
    const Layout &all = model_.layout, &layout = few_model_->layout;
    const std::size_t chosen = layout.k(), wide = widest();
    const int derivatives = order == Order::value ? 0 : 1;
    const std::shared_ptr<Block> few = few_->lend_block();
    arma::vec few_theta(layout.size(), arma::fill::zeros);
    if (all.dispersions() > 0) few_theta[layout.dispersion(0)] = theta[all.dispersion(0)];
    Buffer eta(wide, all.k()), x(wide, block_rows), zeta(wide, aliased_ ? 0 : block_rows);
    for (std::size_t m = 0; m < all.k(); ++m) std::copy_n(theta.memptr() + all.eta(m), all.q(), eta.col(m));
    Buffer gradient(wide, order == Order::value ? 0 : model_.layout.predictors().size());  // on whole cache lines
    std::vector<std::size_t> expert(block_rows * chosen);
    std::vector<const double*> from(block_rows);
    std::vector<double*> to(block_rows);
    for_each_block(first, last, [&](std::size_t start, std::size_t count) {
        if (!go_on()) return;
        load_features(start, count, index, block);
        const std::size_t n = few->n = block.n;
        few->valid = count;
        choose(theta, n, block);
        kernel::transpose(block.x.col(0), block_rows, all.dx() + 1, n, x.col(0), wide);
        for (std::size_t j = 0; j < chosen; ++j) {
            for (std::size_t i = 0; i < n; ++i) {
                const std::size_t m = expert[j * block_rows + i] = static_cast<std::size_t>(block.mask.col(j)[i]);
                few->logit.col(j)[i] = block.p.col(j)[i] + theta[all.bias(m)];
                from[i] = eta.col(m);
            }
            kernel::dot_listed(x.col(0), wide, wide, from.data(), n, few->wide.col(j));
        }
        gate_probabilities(few->logit, nullptr, chosen, n, 0, few->mask, few->p, &few->norm);
        few_->evaluate_experts(few_theta.memptr() + layout.eta(0), derivatives, *few);
        few_->load_rows(start, count, index, *few);
        sums.value += criterion_.add_rows(layout, few_theta, derivatives, *few);
        if (order == Order::value) return;
        if (!aliased_) kernel::transpose(block.zeta.col(0), block_rows, all.dz() + 1, n, zeta.col(0), wide);
        for (std::size_t s = 0; s < layout.predictors().size(); ++s) {
            const Predictor& p = layout.predictors()[s];
            const bool gate = p.features == Features::gate;
            for (std::size_t i = 0; i < n; ++i) {
                const std::size_t m = expert[p.owner * block_rows + i];
                to[i] = gradient.col(gate ? m : all.predictor(m, p.local));
            }
            const double* weighted = few->weighted.col(s);
            for (std::size_t i = 0; p.dispersion && i < n; ++i) *to[i] += weighted[i];
            if (!p.dispersion)
                kernel::add_listed(gate && !aliased_ ? zeta.col(0) : x.col(0), wide, wide, weighted, n, to.data());
        }
    });
    for (std::size_t i = 0; i < gradient.rows() * gradient.cols(); ++i) sums.gradient[i] += gradient.col(0)[i];
}

// Adds sums over `experts` to those over all.
void Pass::add_few(const std::vector<std::size_t>& experts, const Sums& few, Order order, Sums& sums) const {
    sums.value += few.value;
    if (order == Order::value) return;
    const auto& predictors = few_model_->layout.predictors();
    const std::size_t number = model_.layout.predictors().size(), wide = widest();
    const auto among_all = [&](const Predictor& p) {
        const std::size_t m = experts[p.owner];
        return p.features == Features::gate ? m : model_.layout.predictor(m, p.local);
    };
    for (std::size_t s = 0; s < predictors.size(); ++s)
        for (std::size_t a = 0; a < wide; ++a)
            sums.gradient[among_all(predictors[s]) * wide + a] += few.gradient[s * wide + a];
    for (std::size_t g = 0; order >= Order::normal && g < few_->groups_.size(); ++g) {
        const PairGroup& group = few_->groups_[g];
        const double* from = few.pairs.data() + few_->start_of_group(g, order);
        for (std::size_t j = 0; j < group.pairs.size(); ++j) {
            const std::size_t s = among_all(predictors[group.pairs[j].first]);
            const std::size_t t = among_all(predictors[group.pairs[j].second]);
            const auto [all, pair] = place_[s + t * number];
            const PairGroup& whole = groups_[all];
            double* to = sums.pairs.data() + start_of_group(all, order);
            const auto add = [&](int row_from, int row_to) {
                if (row_from < 0) return;
                for (std::size_t c = 0; c < group.columns; ++c)
                    to[static_cast<std::size_t>(row_to) + c * whole.height(order)] +=
                        from[static_cast<std::size_t>(row_from) + c * group.height(order)];
            };
            add(group.normal[j], whole.normal[pair]);
            if (order == Order::hessian && group.exact[j] >= 0)
                add(static_cast<int>(group.normals) + group.exact[j],
                    static_cast<int>(whole.normals) + whole.exact[pair]);
        }
    }
}

arma::vec Pass::unpack_gradient(const double* sums) const {
    const Layout& layout = model_.layout;
    const auto& predictors = layout.predictors();
    arma::vec gradient(layout.size(), arma::fill::zeros);
    for (std::size_t s = 0; s < predictors.size(); ++s)
        for (std::size_t a = 0; a < layout.width(predictors[s].features); ++a)
            gradient[predictors[s].offset + a] += sums[s * widest() + a];
    return gradient;
}

void Pass::predict(const arma::vec& theta, const Prediction& out, std::size_t first, std::size_t count) const {
    const std::size_t k = model_.layout.k();
    for_each_chunk(count, [&](std::size_t from, std::size_t rows, Block& block) {
        forward(first + from, rows, nullptr, theta, 0, block);
        const auto copy = [&](const Buffer& values, std::size_t columns, double* to) {
            for (std::size_t m = 0; to && m < columns; ++m) std::copy_n(values.col(m), rows, to + m * count + from);
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
    for_each_chunk(rows_.n, [&](std::size_t first, std::size_t count, Block& block) {
        forward(first, count, nullptr, theta, 1, block);
        load_rows(first, count, nullptr, block);
        criterion_.add_rows(layout, theta, 1, block);
        for (std::size_t s = 0; s < predictors.size(); ++s) {
            const double* features = start_of(block, features_of(predictors[s]), layout.dx());
            const double* slope = block.slope.col(s);
            for (std::size_t a = 0; a < layout.width(predictors[s].features); ++a) {
                double* column = out + (predictors[s].offset + a) * rows_.n + first;
                for (std::size_t i = 0; i < count; ++i) column[i] += slope[i] * features[a * block_rows + i];
            }
        }
    });
}

}  // namespace cosmoe
