#include "regression/pass.h"

#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "common/errors.h"
#include "common/kernels.h"
#include "gate/gate.h"

namespace cosmoe {
namespace {

constexpr std::size_t block_rows = 256;
constexpr std::size_t most_chunks = 32;
constexpr std::size_t least_chunk = 4 * block_rows;

std::size_t chunks(std::size_t rows) { return std::max<std::size_t>(1, std::min(most_chunks, rows / least_chunk)); }

std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

Model::Model(const ModelSpec& model_spec, std::size_t dx, std::size_t dz)
    : spec(model_spec),
      router(make_router(spec.router)),
      expert(make_expert(spec.expert)),
      layout(spec.k, dx, dz, *expert) {
    if (spec.k < 1) throw InvalidArgument("a model needs at least one expert");
    const GateConstraint gate = router->constraint();
    for (std::size_t m = 0; m < spec.k && gate.kind != ConstraintKind::free && dz > 0; ++m)
        constraints.push_back(
            {gate.kind, static_cast<arma::uword>(layout.gate(m)), static_cast<arma::uword>(dz), gate.radius});
    for (std::size_t m = 0; m < spec.k && std::isfinite(spec.expert.bound_expert); ++m)
        constraints.push_back({ConstraintKind::ball, static_cast<arma::uword>(layout.eta(m)),
                               static_cast<arma::uword>(layout.q()), spec.expert.bound_expert});
}

// All pairs of predictors whose features are (first, second), with their sums' layout: a row of `sums` per pair and
// slice, a column per pair of features. Same-feature groups hold the upper triangle of feature pairs only.
struct Pass::Group {
    Features first, second;
    std::vector<std::pair<std::size_t, std::size_t>> pairs;
    std::vector<int> curved;  // for two predictors of one expert: column of its second derivatives, or -1
    std::size_t columns = 0;
    std::size_t start = 0;  // in Sums::pairs

    bool symmetric() const { return first == second; }
};

struct Pass::Workspace {
    Workspace(const Model& model, std::size_t most_pairs)
        : x(block_rows, model.layout.dx() + 1),
          zeta(block_rows, model.layout.dz() + 1),
          logit(block_rows, model.layout.k()),
          mask(block_rows, model.layout.k()),
          p(block_rows, model.layout.k()),
          h(block_rows, model.layout.k()),
          first(block_rows, model.layout.k() * model.expert->predictors()),
          second(block_rows, model.layout.k() * model.expert->curved_pairs().size()),
          slope(block_rows, model.layout.predictors().size()),
          weighted(block_rows, model.layout.predictors().size()),
          rows(block_rows, 4),
          coef(block_rows, 2 * most_pairs),
          features(block_rows, std::max(model.layout.dx(), model.layout.dz()) + 1),
          scratch(block_rows, std::max<std::size_t>(1, model.expert->wide())) {}
    Buffer x, zeta, logit, mask, p, h, first, second;
    Buffer slope;     // df/dpredictor
    Buffer weighted;  // w df/dpredictor, then -w r df/dpredictor
    Buffer rows;      // columns f, r, w, -w r
    Buffer coef, features, scratch;
    std::size_t n = 0, valid = 0;
    // The first column of a feature set; the single feature 1 is the last column of x.
    const double* start_of(Features f, std::size_t dx) const {
        return f == Features::gate ? zeta.col(0) : f == Features::expert ? x.col(0) : x.col(dx);
    }
};

struct Pass::Sums {
    double value = 0;
    std::vector<double> gradient;  // one column a predictor, as wide as the widest feature set
    std::vector<double> pairs;
};

Pass::Pass(const Model& model, const Rows& rows, std::size_t threads, const Hooks& hooks)
    : model_(model),
      rows_(rows),
      threads_(model.expert->thread_safe() ? std::max<std::size_t>(1, threads) : 1),
      hooks_(hooks) {
    const auto& predictors = model.layout.predictors();
    const auto& curved = model.expert->curved_pairs();
    const Features kinds[] = {Features::gate, Features::expert, Features::one};
    std::size_t start = 0;
    for (std::size_t a = 0; a < 3; ++a)
        for (std::size_t b = a; b < 3; ++b) {
            Group group{kinds[a], kinds[b], {}, {}, 0, start};
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
            groups_.push_back(std::move(group));
        }
}

Pass::~Pass() = default;

// Runs task(chunk, first row, number of rows, workspace) for every block of every chunk, on threads_ threads. Only
// the calling thread talks to the host; an exception or an interrupt drains the others before it is thrown here.
template <class Task>
void Pass::for_each_chunk(std::size_t rows, Task task) const {
    std::size_t most_pairs = 1;
    for (const Group& group : groups_) most_pairs = std::max(most_pairs, group.pairs.size());
    const std::size_t count = chunks(rows);
    const std::size_t size = round_up((rows + count - 1) / count, block_rows);
    std::atomic<std::size_t> next{0};
    std::atomic<bool> stop{false};
    std::exception_ptr failure;
    std::mutex guard;
    const auto work_off = [&](bool main_thread) {
        try {
            if (main_thread && hooks_.stop_requested()) throw Interrupted();
            Workspace work(model_, most_pairs);
            for (std::size_t c = next++; c < count; c = next++) {
                const std::size_t last = std::min(rows, (c + 1) * size);
                for (std::size_t first = c * size; first < last; first += block_rows) {
                    if (main_thread && hooks_.stop_requested()) throw Interrupted();
                    if (stop) return;
                    task(c, first, std::min(block_rows, last - first), work);
                }
            }
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            if (!failure) failure = std::current_exception();
            stop = true;
        }
    };
    std::vector<std::thread> workers;
    try {
        for (std::size_t t = 1; t < std::min(threads_, count); ++t) workers.emplace_back(work_off, false);
    } catch (const std::system_error&) {
        // As many as the system grants: the result does not depend on their number.
    }
    work_off(true);
    for (std::thread& worker : workers) worker.join();
    if (failure) std::rethrow_exception(failure);
}

// Fills logit, p, h, f and, with derivatives, first, second and slope.
void Pass::forward(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta,
                   int derivatives, Workspace& work) const {
    const Layout& layout = model_.layout;
    const std::size_t k = layout.k(), n = round_up(count, lane_multiple), ld = block_rows;
    const std::size_t own = model_.expert->predictors(), wide = model_.expert->wide();
    const std::size_t curved = model_.expert->curved_pairs().size();
    work.n = n, work.valid = count;
    load_block(rows_, *model_.router, first, count, n, index, work.x, work.zeta);

    std::vector<double> bias(k);
    for (std::size_t m = 0; m < k; ++m) bias[m] = theta[layout.bias(m)];
    kernel::combine(work.zeta.col(0), ld, layout.dz(), theta.memptr(), layout.dz() + 1, k, n, work.logit.col(0), ld);
    gate_probabilities(work.logit, bias.data(), k, n, model_.spec.router.top_k, work.mask, work.p);

    double* f = work.rows.col(0);
    std::fill_n(f, n, 0.0);
    const ExpertBlock block{work.x, layout.dx(), n, count};
    for (std::size_t m = 0; m < k; ++m) {
        model_.expert->evaluate(block, theta.memptr() + layout.eta(m), derivatives, work.h.col(m),
                                work.first.col(m * own), work.second.col(m * curved), work.scratch);
        const double *p = work.p.col(m), *h = work.h.col(m);
        // An expert without weight must not turn an overflow of its own into NaN.
        for (std::size_t i = 0; i < n; ++i) f[i] += p[i] > 0 ? p[i] * h[i] : 0.0;
    }
    if (derivatives < 1) return;
    for (std::size_t m = 0; m < k; ++m) {
        const double *p = work.p.col(m), *h = work.h.col(m);
        double* slope = work.slope.col(m);
        for (std::size_t i = 0; i < n; ++i) slope[i] = p[i] > 0 ? p[i] * (h[i] - f[i]) : 0.0;
        for (std::size_t i = 0; i < n; ++i) {
            if (p[i] > 0) continue;
            for (std::size_t a = 0; a < own; ++a) work.first.col(m * own + a)[i] = 0;
            for (std::size_t c = 0; derivatives >= 2 && c < curved; ++c) work.second.col(m * curved + c)[i] = 0;
        }
        for (std::size_t a = 0; a < own; ++a) {
            const std::size_t s = a < wide ? k + m * wide + a : k + k * wide + m * (own - wide) + (a - wide);
            kernel::multiply(p, work.first.col(m * own + a), n, work.slope.col(s));
        }
    }
}

// Coefficients of the pairs of one group: w g_s g_t, and for the exact Hessian also w (g_s g_t - r d2f/ds dt), with
//   d2f/dl_k dl_m   = [k = m] c_k - p_m c_k - p_k c_m,   c_k = df/dl_k = p_k (h_k - f)
//   d2f/dl_m ds_k   = ([k = m] - p_m) g_k                g_k = df/ds_k = p_k dh_k/ds
//   d2f/ds_k dt_k   = p_k d2h_k/ds dt
void Pass::pair_coefficients(const Group& group, Order order, Workspace& work) const {
    const auto& predictors = model_.layout.predictors();
    const std::size_t n = work.n, count = group.pairs.size();
    const std::size_t curved = model_.expert->curved_pairs().size();
    const double *w = work.rows.col(2), *minus_wr = work.rows.col(3);
    for (std::size_t j = 0; j < count; ++j) {
        const auto [s, t] = group.pairs[j];
        const Predictor &ps = predictors[s], &pt = predictors[t];
        const double *gs = work.slope.col(s), *gt = work.slope.col(t);
        double* normal = work.coef.col(j);
        kernel::multiply3(w, gs, gt, n, normal);
        if (order != Order::hessian) continue;
        double* exact = work.coef.col(count + j);
        std::copy_n(normal, n, exact);
        if (group.first == Features::gate) {
            const double* pm = work.p.col(ps.owner);
            const bool same = ps.owner == pt.owner;
            if (group.second == Features::gate) {
                const double* pk = work.p.col(pt.owner);
                for (std::size_t i = 0; i < n; ++i)
                    exact[i] += minus_wr[i] * ((same ? gt[i] : 0.0) - pm[i] * gt[i] - pk[i] * gs[i]);
            } else {
                for (std::size_t i = 0; i < n; ++i) exact[i] += minus_wr[i] * ((same ? 1.0 : 0.0) - pm[i]) * gt[i];
            }
        } else if (group.curved[j] >= 0) {
            const double* d2 = work.second.col(ps.owner * curved + static_cast<std::size_t>(group.curved[j]));
            const double* p = work.p.col(ps.owner);
            for (std::size_t i = 0; i < n; ++i) exact[i] += minus_wr[i] * p[i] * d2[i];
        }
    }
}

void Pass::add_group(const Group& group, Order order, Workspace& work, std::vector<double>& sums) const {
    pair_coefficients(group, order, work);
    const Layout& layout = model_.layout;
    const std::size_t n = work.n, ld = block_rows;
    const std::size_t used = (order == Order::hessian ? 2 : 1) * group.pairs.size(), height = 2 * group.pairs.size();
    const std::size_t da = layout.width(group.first), db = layout.width(group.second);
    const double* first = work.start_of(group.first, layout.dx());
    const double* second = work.start_of(group.second, layout.dx());
    double* out = sums.data() + group.start;
    for (std::size_t a = 0; a < da; ++a) {
        const std::size_t from = group.symmetric() ? a : 0;
        for (std::size_t b = from; b < db; ++b)
            kernel::multiply(first + a * ld, second + b * ld, n, work.features.col(b - from));
        kernel::cross_product(work.coef.col(0), ld, used, work.features.col(0), ld, db - from, n, out, height);
        out += height * (db - from);
    }
}

void Pass::add_block(std::size_t first, std::size_t count, const std::size_t* index, const arma::vec& theta,
                     Order order, Workspace& work, Sums& sums) const {
    const Layout& layout = model_.layout;
    const auto& predictors = layout.predictors();
    const int derivatives = order == Order::value ? 0 : order == Order::hessian ? 2 : 1;
    forward(first, count, index, theta, derivatives, work);
    const std::size_t n = work.n, ld = block_rows;
    double *f = work.rows.col(0), *r = work.rows.col(1), *w = work.rows.col(2), *minus_wr = work.rows.col(3);
    for (std::size_t i = 0; i < n; ++i) {
        const std::size_t row = i < count ? (index ? index[first + i] : first + i) : 0;
        w[i] = i < count ? (rows_.w ? rows_.w[row] : 1.0) : 0.0;
        r[i] = w[i] > 0 ? rows_.y[row] - f[i] : 0.0;
        minus_wr[i] = -w[i] * r[i];
    }
    for (std::size_t i = 0; i < n; ++i) sums.value += 0.5 * w[i] * r[i] * r[i];
    if (order == Order::value) return;

    const std::size_t widest = std::max(layout.dx(), layout.dz()) + 1;
    for (std::size_t s = 0; s < predictors.size(); ++s)
        kernel::multiply(minus_wr, work.slope.col(s), n, work.weighted.col(s));
    // Runs of predictors over the same features share one product.
    for (std::size_t s = 0; s < predictors.size();) {
        std::size_t t = s;
        while (t < predictors.size() && predictors[t].features == predictors[s].features) ++t;
        const Features kind = predictors[s].features;
        kernel::cross_product(work.start_of(kind, layout.dx()), ld, layout.width(kind), work.weighted.col(s), ld, t - s,
                              n, sums.gradient.data() + s * widest, widest);
        s = t;
    }
    if (order == Order::gradient) return;
    for (const Group& group : groups_) add_group(group, order, work, sums.pairs);
}

arma::mat Pass::unpack(const Sums& sums, std::size_t slice) const {
    const Layout& layout = model_.layout;
    const auto& predictors = layout.predictors();
    arma::mat out(layout.size(), layout.size(), arma::fill::zeros);
    for (const Group& group : groups_) {
        const std::size_t da = layout.width(group.first), db = layout.width(group.second);
        const std::size_t count = group.pairs.size();
        for (std::size_t j = 0; j < count; ++j) {
            const std::size_t row = predictors[group.pairs[j].first].offset;
            const std::size_t col = predictors[group.pairs[j].second].offset;
            const double* value = sums.pairs.data() + group.start + slice * count + j;
            for (std::size_t a = 0; a < da; ++a)
                for (std::size_t b = group.symmetric() ? a : 0; b < db; ++b, value += 2 * count) {
                    out(row + a, col + b) = out(col + b, row + a) = *value;
                    if (group.symmetric()) out(row + b, col + a) = out(col + a, row + b) = *value;
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
        for (const Group& group : groups_) pair_size += 2 * group.pairs.size() * group.columns;
    std::vector<Sums> parts(chunks(count));
    for (Sums& part : parts) {
        part.gradient.assign(widest * layout.predictors().size(), 0.0);
        part.pairs.assign(pair_size, 0.0);
    }
    for_each_chunk(count, [&](std::size_t c, std::size_t first, std::size_t rows, Workspace& work) {
        add_block(first, rows, index, theta, order, work, parts[c]);
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
    arma::vec gradient(layout.size());
    for (std::size_t s = 0; s < predictors.size(); ++s)
        for (std::size_t a = 0; a < layout.width(predictors[s].features); ++a)
            gradient[predictors[s].offset + a] = sums[s * widest + a];
    return gradient;
}

void Pass::predict(const arma::vec& theta, const Prediction& out) const {
    const std::size_t k = model_.layout.k(), n = rows_.n;
    for_each_chunk(n, [&](std::size_t, std::size_t first, std::size_t count, Workspace& work) {
        forward(first, count, nullptr, theta, 0, work);
        const auto copy = [&](const Buffer& from, std::size_t columns, double* to) {
            for (std::size_t m = 0; to && m < columns; ++m) std::copy_n(from.col(m), count, to + m * n + first);
        };
        copy(work.rows, 1, out.f);
        copy(work.p, k, out.gate);
        copy(work.h, k, out.expert);
        copy(work.logit, k, out.logit);
    });
}

void Pass::jacobian(const arma::vec& theta, double* out) const {
    const Layout& layout = model_.layout;
    const auto& predictors = layout.predictors();
    for_each_chunk(rows_.n, [&](std::size_t, std::size_t first, std::size_t count, Workspace& work) {
        forward(first, count, nullptr, theta, 1, work);
        for (std::size_t s = 0; s < predictors.size(); ++s) {
            const double* features = work.start_of(predictors[s].features, layout.dx());
            const double* slope = work.slope.col(s);
            for (std::size_t a = 0; a < layout.width(predictors[s].features); ++a) {
                double* column = out + (predictors[s].offset + a) * rows_.n + first;
                for (std::size_t i = 0; i < count; ++i) column[i] = slope[i] * features[a * block_rows + i];
            }
        }
    });
}

}  // namespace cosmoe
