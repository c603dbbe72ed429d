#include "layer/train.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/errors.h"

namespace cosmoe {
namespace {

// Every expert moves by `rate` in the direction of its gradient, whose norm is norm(filters) + norm(biases); an expert
// that saw no sample has none and stays.
void step_normalised(const LayerPass& pass, const TrainSettings& settings, const arma::vec& gradient,
                     arma::vec& theta) {
    const LayerLayout& layout = pass.layout();
    const auto part = [](std::size_t first, std::size_t size) {
        return arma::span(static_cast<arma::uword>(first), static_cast<arma::uword>(first + size - 1));
    };
    for (std::size_t m = 0; m < pass.spec().experts; ++m) {
        const auto filters = part(layout.filter(m), layout.filter_size());
        double norm = arma::norm(gradient(filters));
        if (layout.bias_size() > 0) norm += arma::norm(gradient(part(layout.bias(m), layout.bias_size())));
        if (norm == 0) continue;
        theta(filters) -= settings.expert_rate / norm * gradient(filters);
        if (layout.bias_size() == 0) continue;
        const auto biases = part(layout.bias(m), layout.bias_size());
        theta(biases) -= settings.expert_rate / norm * gradient(biases);
    }
    if (layout.gate_size() == 0) return;
    const auto gate = part(layout.gate(0), layout.size() - layout.gate(0));
    theta(gate) -= settings.gate_rate * gradient(gate);
}

// Kingma and Ba (2015).
void step_adam(const LayerPass& pass, const TrainSettings& settings, const arma::vec& gradient, TrainState& state) {
    constexpr double keep_first = 0.9, keep_second = 0.999, guard = 1e-8;
    const std::size_t size = gradient.n_elem, gate = pass.layout().gate(0);
    if (state.first.is_empty()) state.first.zeros(size), state.second.zeros(size);
    const double t = static_cast<double>(state.step + 1);
    const double first_scale = 1 - std::pow(keep_first, t), second_scale = std::sqrt(1 - std::pow(keep_second, t));
    for (std::size_t i = 0; i < size; ++i) {
        const double g = gradient[i];
        state.first[i] = keep_first * state.first[i] + (1 - keep_first) * g;
        state.second[i] = keep_second * state.second[i] + (1 - keep_second) * g * g;
        const double rate = i < gate ? settings.expert_rate : settings.gate_rate;
        state.theta[i] -= rate * (state.first[i] / first_scale) / (std::sqrt(state.second[i]) / second_scale + guard);
    }
}

// The samples of an epoch in random order, by Fisher and Yates' method.
void shuffle(std::uint64_t seed, std::size_t epoch, std::vector<std::size_t>& order) {
    const Counter counter(seed, Stream::batches, epoch);
    std::iota(order.begin(), order.end(), 0);
    for (std::size_t i = order.size(); i-- > 1;)
        std::swap(order[i], order[static_cast<std::size_t>(counter.uniform(i) * static_cast<double>(i + 1))]);
}

}  // namespace

TrainResult train_layer(LayerPass& pass, const TrainSettings& settings, TrainState& state) {
    const std::size_t n = pass.data().n, batch = settings.batch == 0 ? n : std::min(settings.batch, n);
    const std::size_t per_epoch = (n + batch - 1) / batch;
    const std::size_t end = state.step + settings.steps;
    const std::uint64_t seed = pass.spec().seed;
    std::vector<std::size_t> order(batch < n ? n : 0);
    TrainResult out;
    std::size_t shuffled = per_epoch == 0 ? 0 : static_cast<std::size_t>(-1);
    try {
        while (state.step < end) {
            if (pass.hooks().stop_requested()) throw Interrupted();
            const std::size_t epoch = state.step / per_epoch, first = state.step % per_epoch * batch;
            if (batch < n && epoch != shuffled) shuffle(seed, epoch, order), shuffled = epoch;
            const std::size_t count = std::min(batch, n - first);
            const Counter counter(seed, Stream::training, pass.spec().fresh_noise ? state.step : 0);
            LayerEvaluation e = pass.evaluate(state.theta, counter, batch < n ? order.data() + first : nullptr, count);
            if (!std::isfinite(e.loss) || !e.gradient.is_finite()) {
                out.status = state.step == 0 ? TrainStatus::overflow : TrainStatus::diverged;
            } else {
                out.history.step.push_back(static_cast<double>(state.step));
                out.history.loss.push_back(e.loss);
                out.history.accuracy.push_back(static_cast<double>(e.correct) / static_cast<double>(count));
                out.history.sent.insert(out.history.sent.end(), e.sent.begin(), e.sent.end());
                if (state.step == 0) state.first_loss = e.loss;
                if (state.step == 0 || e.loss < state.lowest_loss)
                    state.lowest_loss = e.loss, state.lowest = state.theta;
                if (e.loss > settings.diverged * state.first_loss) out.status = TrainStatus::diverged;
                else if (e.loss <= settings.stop_loss) out.status = TrainStatus::stop_loss;
                else if (settings.stop_rise > 0 && e.loss > state.lowest_loss + settings.stop_rise)
                    out.status = TrainStatus::stop_rise;
            }
            if (out.status == TrainStatus::diverged) state.theta = state.lowest;
            if (out.status != TrainStatus::steps) return out;
            if (settings.weight_decay > 0) e.gradient += settings.weight_decay * state.theta;
            if (settings.optimizer == LayerOptimizer::adam) step_adam(pass, settings, e.gradient, state);
            else step_normalised(pass, settings, e.gradient, state.theta);
            ++state.step;
        }
    } catch (const Interrupted&) {
        out.status = TrainStatus::interrupted;
    }
    return out;
}

}  // namespace cosmoe
