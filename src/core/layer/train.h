// Training of the layer: normalised gradient descent for each expert with plain gradient descent for the gate, or Adam.
#pragma once

#include <string>
#include <vector>

#include "layer/layer.h"

namespace cosmoe {

enum class LayerOptimizer { ngd, adam };

struct TrainSettings {
    LayerOptimizer optimizer = LayerOptimizer::ngd;
    double expert_rate = 0.001, gate_rate = 0.1;
    double weight_decay = 0;  // this times the parameters is added to the gradient
    std::size_t steps = 1;    // more steps to take
    std::size_t batch = 0;    // samples of a step; 0: all
    double stop_loss = 0;     // stop where the loss is at most this
    double stop_rise = 0;     // stop where the loss exceeds its minimum by this; 0: never
    double diverged = 1000;   // stop where the loss exceeds this many times the first one
};

// Everything the next step depends on, beside data and settings.
struct TrainState {
    arma::vec theta;
    arma::vec first, second;  // Adam's moments; empty for gradient descent
    std::size_t step = 0;
    double first_loss = 0, lowest_loss = 0;
    arma::vec lowest;  // theta at the lowest loss
};

enum class TrainStatus { steps, stop_loss, stop_rise, diverged, overflow, interrupted };

// A row for each step that was looked at, the last one possibly without a move.
struct TrainHistory {
    std::vector<double> step, loss, accuracy;
    std::vector<double> sent;  // clusters x experts for each row
};

struct TrainResult {
    TrainStatus status = TrainStatus::steps;
    TrainHistory history;
};

// Advances `state`. The loss of a step is that before its move; a run that stops for its loss does not move. After
// divergence `state.theta` is the one with the lowest loss.
TrainResult train_layer(LayerPass& pass, const TrainSettings& settings, TrainState& state);

}  // namespace cosmoe
