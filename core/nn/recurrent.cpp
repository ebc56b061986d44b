#include "core/nn/recurrent.h"

#include <algorithm>
#include <utility>

#include "core/nn/init.h"
#include "core/nn/pieces.h"
#include "core/ops/ops.h"

namespace trireme::nn {

namespace {

Tensor zeros_like(const Tensor& x, const Shape& shape) { return Tensor::zeros(shape, x.dtype(), x.device()); }

/// gates + weight h + bias in the dtype of the state: under Autocast products are narrower.
Tensor summed(const Tensor& gates, const Tensor& h, const Tensor& weight, const Tensor& bias) {
  return to(gates + linear(h, weight, bias), h.dtype());
}

/// Throws unless a cell can take x and each defined part of its state.
void check_cell(const char* name, const Tensor& x, const std::vector<Tensor>& state, const Tensor& weight_ih,
                const Tensor& weight_hh) {
  TRIREME_CHECK(x.defined() && x.dim() == 2 && x.size(1) == weight_ih.size(1), "{}: x is {}; needs (N,{})",
                name, x.defined() ? x.shape().to_string() : "undefined", weight_ih.size(1));
  const Shape wanted{x.size(0), weight_hh.size(1)};
  for (const Tensor& part : state)
    TRIREME_CHECK(!part.defined() || part.shape() == wanted, "{}: the state is {} for x {}; needs {}", name,
                  part.shape().to_string(), x.shape().to_string(), wanted.to_string());
}

}  // namespace

/// Tells which sequences have not ended at each step.
struct Recurrent::Time {
  std::int64_t steps = 0;
  std::int64_t shared = 0;  ///< steps that every sequence has
  Tensor lengths;           ///< (N,1), defined if some sequences end early

  Time(const char* name, const Tensor& x, const Tensor& given) : steps(x.size(0)), shared(steps) {
    TRIREME_CHECK(steps > 0, "{}: x {} has no time steps", name, x.shape().to_string());
    if (!given.defined()) return;
    TRIREME_CHECK(given.dtype() == DType::kInt64 && given.shape() == Shape({x.size(1)}),
                  "{}: lengths are {} {}; needs int64 ({})", name, name_of(given.dtype()),
                  given.shape().to_string(), x.size(1));
    for (const std::int64_t length : given.to_vector<std::int64_t>()) {
      TRIREME_CHECK(length > 0 && length <= steps, "{}: a sequence of length {} in an x of {} steps", name,
                    length, steps);
      shared = std::min(shared, length);
    }
    lengths = reshape(given, {x.size(1), 1});
  }
};

Recurrent::Recurrent(const char* name, int gates, std::int64_t input, std::int64_t hidden,
                     const RecurrentOptions& o)
    : input_size(input), hidden_size(hidden), dropout(o.dropout), options(o), name_(name) {
  TRIREME_CHECK(o.num_layers > 0 && hidden > 0, "{}: {} layers of size {}", name, o.num_layers, hidden);
  const std::int64_t rows = gates * hidden;
  for (std::int64_t layer = 0; layer < o.num_layers; ++layer)
    for (int direction = 0; direction < directions(); ++direction) {
      Weights w{default_parameter({rows, layer ? directions() * hidden : input}, hidden),
                default_parameter({rows, hidden}, hidden),
                {},
                {}};
      if (o.bias)
        w.bias_ih = default_parameter({rows}, hidden), w.bias_hh = default_parameter({rows}, hidden);
      weights.push_back(std::move(w));
    }
}

void Recurrent::visit(Visitor& v) {
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto d = static_cast<std::size_t>(directions());
    const std::string suffix = "_l" + std::to_string(i / d) + (i % d ? "_reverse" : "");
    v.parameter("weight_ih" + suffix, weights[i].ih);
    v.parameter("weight_hh" + suffix, weights[i].hh);
    v.parameter("bias_ih" + suffix, weights[i].bias_ih);
    v.parameter("bias_hh" + suffix, weights[i].bias_hh);
  }
  v.module("dropout", dropout);
}

/// The outputs (N,H) of all steps of x (L,N,in), in the order of time. A sequence that is over keeps its
/// state; one that runs backward has its initial state until its own last step.
std::vector<Tensor> Recurrent::run_direction(const Tensor& x, const Weights& w, State& state,
                                             const Time& time, bool backward) const {
  const Tensor rows = reshape(x, {time.steps * x.size(1), x.size(2)});
  const std::vector<Tensor> gates = pieces(linear(rows, w.ih, w.bias_ih), 0, time.steps);
  std::vector<Tensor> outputs(gates.size());
  for (std::int64_t i = 0; i < time.steps; ++i) {
    const std::int64_t at = backward ? time.steps - 1 - i : i;
    const auto t = static_cast<std::size_t>(at);
    State next = step(gates[t], state, w);
    outputs[t] = next[0];
    if (at >= time.shared) {
      const Tensor runs = gt(time.lengths, static_cast<double>(at));
      outputs[t] = masked_fill(next[0], logical_not(runs), 0);
      for (std::size_t part = 0; part < next.size(); ++part)
        next[part] = where(runs, next[part], state[part]);
    }
    state = std::move(next);
  }
  return outputs;
}

std::vector<Recurrent::State> Recurrent::initial_states(const Tensor& x, const State& given) const {
  const auto count = static_cast<std::int64_t>(weights.size());
  std::vector<State> states(weights.size());
  for (const Tensor& part : given) {
    const Shape shape{count, x.size(1), hidden_size};
    TRIREME_CHECK(!part.defined() || part.shape() == shape, "{}: an initial state is {}; needs {}", name_,
                  part.defined() ? part.shape().to_string() : "", shape.to_string());
    for (std::int64_t i = 0; i < count; ++i)
      states[static_cast<std::size_t>(i)].push_back(part.defined() ? select(part, 0, i)
                                                                   : zeros_like(x, {x.size(1), hidden_size}));
  }
  return states;
}

Recurrent::State Recurrent::call(const Tensor& x, const State& initial, const Tensor& lengths) {
  if (!has_hooks()) return run(x, initial, lengths);
  State inputs{x};
  inputs.insert(inputs.end(), initial.begin(), initial.end());
  return with_hooks(inputs, [&](const State& in) { return run(in[0], {in.begin() + 1, in.end()}, lengths); });
}

Recurrent::State Recurrent::run(const Tensor& x, const State& initial, const Tensor& lengths) {
  TRIREME_CHECK(x.defined() && x.dim() == 3 && x.size(2) == input_size, "{}: x is {}; needs {},{})", name_,
                x.defined() ? x.shape().to_string() : "undefined", options.batch_first ? "(N,L" : "(L,N",
                input_size);
  const auto turned = [this](const Tensor& t) { return options.batch_first ? transpose(t, 0, 1) : t; };
  Tensor y = turned(x);
  const Time time(name_, y, lengths);
  std::vector<State> states = initial_states(y, initial);
  const auto per_layer = static_cast<std::size_t>(directions());
  for (std::size_t i = 0; i < weights.size(); i += per_layer) {
    // Dropout's first dimension is the sample.
    if (i > 0) y = transpose(dropout(transpose(y, 0, 1)), 0, 1);
    std::vector<Tensor> sides;
    for (std::size_t side = 0; side < per_layer; ++side)
      sides.push_back(cat(run_direction(y, weights[i + side], states[i + side], time, side == 1)));
    y = reshape(sides.size() == 1 ? sides[0] : cat(sides, 1), {time.steps, y.size(1), -1});
  }
  State results{turned(y)};
  for (std::size_t part = 0; part < initial.size(); ++part) {
    std::vector<Tensor> all;
    for (const State& state : states) all.push_back(state[part]);
    results.push_back(stack(all));
  }
  return results;
}

RNN::RNN(std::int64_t input, std::int64_t hidden, const RecurrentOptions& o, Nonlinearity n)
    : Recurrent("RNN", 1, input, hidden, o), nonlinearity(n) {}

Recurrent::State RNN::step(const Tensor& gates, const State& before, const Weights& w) const {
  const Tensor sum = summed(gates, before[0], w.hh, w.bias_hh);
  return {nonlinearity == Nonlinearity::kTanh ? trireme::tanh(sum) : trireme::relu(sum)};
}

LSTM::LSTM(std::int64_t input, std::int64_t hidden, const RecurrentOptions& o)
    : Recurrent("LSTM", 4, input, hidden, o) {}

Recurrent::State LSTM::step(const Tensor& gates, const State& before, const Weights& w) const {
  const LstmState next = lstm_cell(summed(gates, before[0], w.hh, w.bias_hh), before[1]);
  return {next.h, next.c};
}

GRU::GRU(std::int64_t input, std::int64_t hidden, const RecurrentOptions& o)
    : Recurrent("GRU", 3, input, hidden, o) {}

Recurrent::State GRU::step(const Tensor& gates, const State& before, const Weights& w) const {
  const Tensor &h = before[0], of_h = linear(h, w.hh, w.bias_hh);
  return {gru_cell(to(gates, h.dtype()), to(of_h, h.dtype()), h)};
}

RecurrentOutput RNN::operator()(const Tensor& x, const Tensor& h, const Tensor& lengths) {
  const State out = call(x, {h}, lengths);
  return {out[0], out[1]};
}

RecurrentOutput GRU::operator()(const Tensor& x, const Tensor& h, const Tensor& lengths) {
  const State out = call(x, {h}, lengths);
  return {out[0], out[1]};
}

LstmOutput LSTM::operator()(const Tensor& x, const LstmState& state, const Tensor& lengths) {
  const State out = call(x, {state.h, state.c}, lengths);
  return {out[0], {out[1], out[2]}};
}

LSTMCell::LSTMCell(std::int64_t input, std::int64_t hidden, bool with_bias)
    : weight_ih(default_parameter({4 * hidden, input}, hidden)),
      weight_hh(default_parameter({4 * hidden, hidden}, hidden)) {
  if (!with_bias) return;
  bias_ih = default_parameter({4 * hidden}, hidden);
  bias_hh = default_parameter({4 * hidden}, hidden);
}

LstmState LSTMCell::operator()(const Tensor& x, const LstmState& state) {
  const auto call = [&](const std::vector<Tensor>& in) {
    check_cell("LSTMCell", in[0], {in[1], in[2]}, weight_ih, weight_hh);
    const auto ready = [&](const Tensor& t) {
      return t.defined() ? t : zeros_like(in[0], {in[0].size(0), weight_hh.size(1)});
    };
    const Tensor h = ready(in[1]);
    const LstmState next =
        lstm_cell(summed(linear(in[0], weight_ih, bias_ih), h, weight_hh, bias_hh), ready(in[2]));
    return std::vector{next.h, next.c};
  };
  const std::vector<Tensor> in{x, state.h, state.c};
  const std::vector<Tensor> out = has_hooks() ? with_hooks(in, call) : call(in);
  return {out[0], out[1]};
}

void LSTMCell::visit(Visitor& v) {
  v.parameter("weight_ih", weight_ih);
  v.parameter("weight_hh", weight_hh);
  v.parameter("bias_ih", bias_ih);
  v.parameter("bias_hh", bias_hh);
}

GRUCell::GRUCell(std::int64_t input, std::int64_t hidden, bool with_bias)
    : weight_ih(default_parameter({3 * hidden, input}, hidden)),
      weight_hh(default_parameter({3 * hidden, hidden}, hidden)) {
  if (!with_bias) return;
  bias_ih = default_parameter({3 * hidden}, hidden);
  bias_hh = default_parameter({3 * hidden}, hidden);
}

Tensor GRUCell::operator()(const Tensor& x, const Tensor& h) {
  const auto call = [&](const std::vector<Tensor>& in) {
    check_cell("GRUCell", in[0], {in[1]}, weight_ih, weight_hh);
    const Tensor before = in[1].defined() ? in[1] : zeros_like(in[0], {in[0].size(0), weight_hh.size(1)});
    const Tensor of_x = linear(in[0], weight_ih, bias_ih), of_h = linear(before, weight_hh, bias_hh);
    return std::vector{gru_cell(to(of_x, before.dtype()), to(of_h, before.dtype()), before)};
  };
  return (has_hooks() ? with_hooks({x, h}, call) : call({x, h}))[0];
}

void GRUCell::visit(Visitor& v) {
  v.parameter("weight_ih", weight_ih);
  v.parameter("weight_hh", weight_hh);
  v.parameter("bias_ih", bias_ih);
  v.parameter("bias_hh", bias_hh);
}

}  // namespace trireme::nn
