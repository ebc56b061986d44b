#include "core/nn/recurrent.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/nn/layers.h"
#include "tests/support/errors.h"
#include "tests/unit/core/nn_check.h"

namespace trireme::nn {
namespace {

using test::error_of;
using test::expect_holds;
using test::expect_near;
using test::Names;
using test::names_of;
using test::numbers;
using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;

enum class Kind { kTanh, kRelu, kLstm, kGru };
constexpr Kind kKinds[] = {Kind::kTanh, Kind::kRelu, Kind::kLstm, Kind::kGru};

/// Computes w x + b in plain loops.
Vector affine(const Tensor& w, const Vector& x, const Tensor& b) {
  const Vector weight = w.to_vector<double>();
  Vector y = b.defined() ? b.to_vector<double>() : Vector(static_cast<std::size_t>(w.size(0)));
  for (std::size_t i = 0; i < y.size(); ++i)
    for (std::size_t j = 0; j < x.size(); ++j) y[i] += weight[i * x.size() + j] * x[j];
  return y;
}

double sigma(double v) { return 1 / (1 + std::exp(-v)); }

void reference_step(Kind kind, const Recurrent::Weights& w, const Vector& x, Vector& h, Vector& c) {
  const Vector a = affine(w.ih, x, w.bias_ih), b = affine(w.hh, h, w.bias_hh);
  const std::size_t n = h.size();
  for (std::size_t i = 0; i < n; ++i) {
    const auto both = [&](std::size_t gate) { return a[gate * n + i] + b[gate * n + i]; };
    if (kind == Kind::kTanh) h[i] = std::tanh(both(0));
    if (kind == Kind::kRelu) h[i] = std::max(0.0, both(0));
    if (kind == Kind::kLstm) {
      c[i] = sigma(both(1)) * c[i] + sigma(both(0)) * std::tanh(both(2));
      h[i] = sigma(both(3)) * std::tanh(c[i]);
    }
    if (kind == Kind::kGru) {
      const double z = sigma(both(1));
      h[i] = (1 - z) * std::tanh(a[2 * n + i] + sigma(both(0)) * b[2 * n + i]) + z * h[i];
    }
  }
}

struct Expected {
  Matrix outputs;  ///< the output of each step
  Matrix h, c;     ///< the final state of each layer and direction
};

/// Runs one sequence through all layers. h and c hold the initial states.
Expected reference(Kind kind, const Recurrent& net, Matrix x, Matrix h, Matrix c) {
  const std::size_t directions = net.options.bidirectional ? 2 : 1;
  for (std::size_t i = 0; i < net.weights.size(); i += directions) {
    Matrix joined(x.size());
    for (std::size_t d = 0; d < directions; ++d) {
      Matrix out(x.size());
      for (std::size_t step = 0; step < x.size(); ++step) {
        const std::size_t t = d ? x.size() - 1 - step : step;
        reference_step(kind, net.weights[i + d], x[t], h[i + d], c[i + d]);
        out[t] = h[i + d];
      }
      for (std::size_t t = 0; t < x.size(); ++t)
        joined[t].insert(joined[t].end(), out[t].begin(), out[t].end());
    }
    x = joined;
  }
  return {x, h, c};
}

std::unique_ptr<Recurrent> make(Kind kind, const RecurrentOptions& options) {
  std::unique_ptr<Recurrent> net;
  if (kind == Kind::kLstm)
    net = std::make_unique<LSTM>(3, 4, options);
  else if (kind == Kind::kGru)
    net = std::make_unique<GRU>(3, 4, options);
  else
    net = std::make_unique<RNN>(3, 4, options,
                                kind == Kind::kTanh ? RNN::Nonlinearity::kTanh : RNN::Nonlinearity::kRelu);
  to(*net, DType::kFloat64);
  return net;
}

struct Result {
  Tensor output, h, c;
};

Result call(Recurrent& net, const Tensor& x, const Tensor& h, const Tensor& c, const Tensor& lengths) {
  if (auto* lstm = dynamic_cast<LSTM*>(&net)) {
    const LstmOutput out = (*lstm)(x, {h, c}, lengths);
    return {out.output, out.state.h, out.state.c};
  }
  if (auto* gru = dynamic_cast<GRU*>(&net)) {
    const RecurrentOutput out = (*gru)(x, h, lengths);
    return {out.output, out.h, {}};
  }
  const RecurrentOutput out = dynamic_cast<RNN&>(net)(x, h, lengths);
  return {out.output, out.h, {}};
}

Vector at(const Tensor& t, std::int64_t i, std::int64_t j) {
  return select(select(t, 0, i), 0, j).to_vector<double>();
}

Tensor lengths_of(const std::vector<std::int64_t>& lengths) {
  return Tensor::from(lengths, {static_cast<std::int64_t>(lengths.size())});
}

/// Compares a layer with plain loops over each sequence.
void expect_like_reference(Kind kind, const RecurrentOptions& options, bool with_state,
                           const Tensor& lengths) {
  const auto net = make(kind, options);
  const auto states = static_cast<std::int64_t>(net->weights.size());
  const Tensor x = numbers({5, 3, 3}, 1), h = numbers({states, 3, 4}, 2), c = numbers({states, 3, 4}, 3);
  const Tensor laid = options.batch_first ? transpose(x, 0, 1) : x;
  const Result y = call(*net, laid, with_state ? h : Tensor(), with_state ? c : Tensor(), lengths);
  const Tensor output = options.batch_first ? transpose(y.output, 0, 1) : y.output;
  for (std::int64_t n = 0; n < 3; ++n) {
    const std::int64_t length =
        lengths.defined() ? lengths.to_vector<std::int64_t>()[static_cast<std::size_t>(n)] : 5;
    Matrix steps, h0, c0;
    for (std::int64_t t = 0; t < length; ++t) steps.push_back(at(x, t, n));
    for (std::int64_t i = 0; i < states; ++i) {
      h0.push_back(with_state ? at(h, i, n) : Vector(4));
      c0.push_back(with_state ? at(c, i, n) : Vector(4));
    }
    const Expected expected = reference(kind, *net, steps, h0, c0);
    const Vector silence(options.bidirectional ? 8 : 4);
    for (std::int64_t t = 0; t < 5; ++t)
      expect_near(select(select(output, 0, t), 0, n),
                  t < length ? expected.outputs[static_cast<std::size_t>(t)] : silence, 1e-12);
    for (std::int64_t i = 0; i < states; ++i) {
      expect_near(select(select(y.h, 0, i), 0, n), expected.h[static_cast<std::size_t>(i)], 1e-12);
      if (kind == Kind::kLstm)
        expect_near(select(select(y.c, 0, i), 0, n), expected.c[static_cast<std::size_t>(i)], 1e-12);
    }
  }
}

TEST(Recurrent, MatchesPlainLoops) {
  manual_seed(1);
  const Tensor lengths = lengths_of({5, 2, 4});
  for (const Kind kind : kKinds)
    for (const bool bidirectional : {false, true})
      for (const Tensor& length : {Tensor(), lengths}) {
        SCOPED_TRACE(static_cast<int>(kind) * 100 + bidirectional * 10 + length.defined());
        expect_like_reference(kind, {.bidirectional = bidirectional}, true, length);
        expect_like_reference(kind, {.num_layers = 3, .bidirectional = bidirectional}, true, length);
        expect_like_reference(
            kind, {.num_layers = 2, .bias = false, .batch_first = true, .bidirectional = bidirectional},
            false, length);
      }
}

TEST(Recurrent, GradientsMatchFiniteDifferences) {
  manual_seed(2);
  for (const Kind kind : kKinds) {
    const auto net = make(kind, {.num_layers = 2, .bidirectional = true});
    const Tensor x = numbers({4, 2, 3}, 1), h = numbers({4, 2, 4}, 2), c = numbers({4, 2, 4}, 3);
    const Tensor lengths = lengths_of({4, 2}), weights = numbers({4, 2, 8}, 4).detach();
    const auto loss = [&] {
      const Result y = call(*net, x, h, c, lengths);
      const Tensor state = kind == Kind::kLstm ? y.h + y.c : y.h;
      return sum(y.output * weights) + sum(square(state));
    };
    std::vector<NamedTensor> checked = net->parameters();
    checked.push_back({"x", x});
    checked.push_back({"h", h});
    if (kind == Kind::kLstm) checked.push_back({"c", c});
    test::check_gradients(loss, checked);
  }
}

TEST(Recurrent, HasTheNamesAndBoundsOfPyTorch) {
  manual_seed(3);
  LSTM net(30, 50, {.num_layers = 2, .bidirectional = true});
  EXPECT_EQ(names_of(net.parameters()),
            (Names{"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l0_reverse",
                   "weight_hh_l0_reverse", "bias_ih_l0_reverse", "bias_hh_l0_reverse", "weight_ih_l1",
                   "weight_hh_l1", "bias_ih_l1", "bias_hh_l1", "weight_ih_l1_reverse", "weight_hh_l1_reverse",
                   "bias_ih_l1_reverse", "bias_hh_l1_reverse"}));
  EXPECT_EQ(net.weights[0].ih.shape(), (Shape{200, 30}));
  EXPECT_EQ(net.weights[2].ih.shape(), (Shape{200, 100}));
  EXPECT_EQ(GRU(30, 50, {.bias = false}).parameters()[0].tensor.shape(), (Shape{150, 30}));
  EXPECT_EQ(names_of(RNN(3, 4, {.bias = false}).parameters()), (Names{"weight_ih_l0", "weight_hh_l0"}));
  EXPECT_EQ(names_of(LSTMCell(3, 4).parameters()), (Names{"weight_ih", "weight_hh", "bias_ih", "bias_hh"}));
  EXPECT_EQ(names_of(GRUCell(3, 4, false).parameters()), (Names{"weight_ih", "weight_hh"}));
  for (const NamedTensor& p : net.parameters()) {
    const double largest = amax(abs(p.tensor)).item(), bound = 1 / std::sqrt(50.0);
    EXPECT_LE(largest, bound);
    EXPECT_GT(largest, 0.9 * bound);
  }
}

TEST(Recurrent, CellsAreOneStep) {
  const Tensor x = numbers({2, 3}, 1), h = numbers({2, 4}, 2), c = numbers({2, 4}, 3);
  LSTMCell lstm(3, 4);
  GRUCell gru(3, 4);
  to(lstm, DType::kFloat64);
  to(gru, DType::kFloat64);
  LSTM whole(3, 4);
  to(whole, DType::kFloat64);
  whole.weights[0] = {lstm.weight_ih, lstm.weight_hh, lstm.bias_ih, lstm.bias_hh};
  const LstmOutput expected = whole(unsqueeze(x, 0), {unsqueeze(h, 0), unsqueeze(c, 0)});
  const LstmState state = lstm(x, {h, c});
  expect_near(state.h, expected.state.h.to_vector<double>(), 1e-14);
  expect_near(state.c, expected.state.c.to_vector<double>(), 1e-14);
  expect_near(lstm(x).h, whole(unsqueeze(x, 0)).output.to_vector<double>(), 1e-14);
  GRU gate(3, 4);
  to(gate, DType::kFloat64);
  gate.weights[0] = {gru.weight_ih, gru.weight_hh, gru.bias_ih, gru.bias_hh};
  expect_near(gru(x, h), gate(unsqueeze(x, 0), unsqueeze(h, 0)).output.to_vector<double>(), 1e-14);
  expect_near(gru(x), gate.forward(unsqueeze(x, 0)).to_vector<double>(), 1e-14);
}

TEST(Recurrent, DropsBetweenLayersBySample) {
  manual_seed(4);
  LSTM net(3, 8, {.num_layers = 2, .dropout = 0.5});
  name_modules(net, "rnn");
  const Tensor x = normal({6, 4, 3}, RandomKey{1});
  const auto run = [&](const Tensor& part, std::int64_t first) {
    set_random_context({.seed = 3, .step = 8, .first_sample = first});
    return net(part).output;
  };
  const Tensor whole = run(x, 10), head = run(narrow(x, 1, 0, 1), 10), tail = run(narrow(x, 1, 1, 3), 11);
  expect_near(cat({head, tail}, 1), whole.to_vector<double>(), 1e-6);
  net.eval();
  EXPECT_GT(amax(abs(run(x, 10) - whole)).item(), 1e-3);
  LSTM none(3, 8, {.num_layers = 2});
  load_state_dict(none, state_dict(net));
  EXPECT_EQ(none(x).output.to_vector<float>(), run(x, 10).to_vector<float>());
  LSTM one(3, 8, {.dropout = 0.9});
  const Tensor y = one(x).output;
  EXPECT_EQ(y.to_vector<float>(), one(x).output.to_vector<float>()) << "none after the last layer";
  set_random_context({});
}

TEST(Recurrent, HooksSeeInputsAndStates) {
  LSTM net(3, 4);
  int calls = 0;
  net.register_forward_hook([&](const std::vector<Tensor>& in, const std::vector<Tensor>& out) {
    ++calls;
    EXPECT_EQ(in.size(), 3u);
    EXPECT_EQ(out.size(), 3u);
    return std::vector{out[0] * 2.0, out[1], out[2]};
  });
  const Tensor x = normal({2, 1, 3}, RandomKey{1});
  const LstmOutput y = net(x);
  Sequential row(Identity{}, net);
  EXPECT_EQ(calls, 1);
  expect_near(narrow(y.output, 0, 1, 1), (y.state.h * 2.0).to_vector<double>(), 0);
}

TEST(Recurrent, RunsUnderAutocast) {
  for (const Kind kind : kKinds) {
    const auto net = make(kind, {.num_layers = 2});
    to(*net, DType::kFloat32);
    const Tensor x = normal({5, 2, 3}, RandomKey{1}), lengths = lengths_of({5, 3});
    const Tensor exact = call(*net, x, {}, {}, lengths).output;
    const amp::Autocast guard;
    const Tensor y = call(*net, x, {}, {}, lengths).output;
    EXPECT_EQ(y.dtype(), DType::kFloat32) << "states stay exact";
    EXPECT_NE(y.to_vector<float>(), exact.to_vector<float>());
    expect_near(y, exact.to_vector<double>(), 0.05);
    sum(square(y)).backward();
    for (const NamedTensor& p : net->parameters()) EXPECT_EQ(p.tensor.grad().dtype(), DType::kFloat32);
  }
  LSTMCell lstm(3, 4);
  GRUCell gru(3, 4);
  const Tensor x = normal({2, 3}, RandomKey{1});
  const Tensor h = lstm(x).h, g = gru(x);
  const amp::Autocast guard;
  expect_near(lstm(x).h, h.to_vector<double>(), 0.02);
  expect_near(gru(x), g.to_vector<double>(), 0.02);
}

TEST(Recurrent, SaysWhatDoesNotFit) {
  LSTM net(3, 4);
  const Tensor x = Tensor::ones({5, 2, 3});
  expect_holds(error_of([&] { net(Tensor::ones({5, 3})); }), {"LSTM: x is (5, 3)", "(L,N,3)"});
  expect_holds(error_of([&] { net(x, {Tensor::ones({1, 3, 4}), {}}); }), {"LSTM", "(1, 3, 4)", "(1, 2, 4)"});
  expect_holds(error_of([&] { net(x, {}, lengths_of({5, 6})); }), {"LSTM", "length 6", "5 steps"});
  expect_holds(error_of([&] { net(x, {}, lengths_of({5, 0})); }), {"length 0"});
  expect_holds(error_of([&] { net(x, {}, Tensor::ones({2})); }), {"lengths are float32", "int64 (2)"});
  expect_holds(error_of([&] { net(Tensor::zeros({0, 2, 3})); }), {"no time steps"});
  expect_holds(error_of([] { GRU(3, 4, {.num_layers = 0}); }), {"GRU", "0 layers"});
}

TEST(Recurrent, CellsRefuseWhatWouldBroadcast) {
  LSTMCell lstm(3, 4);
  GRUCell gru(3, 4);
  const Tensor x = Tensor::ones({2, 3});
  const auto of_lstm = [&](const Tensor& in, const LstmState& state) {
    return error_of([&] { lstm(in, state); });
  };
  const auto of_gru = [&](const Tensor& in, const Tensor& h) { return error_of([&] { gru(in, h); }); };
  for (const Shape& wrong : {Shape{1, 4}, Shape{2, 1}, Shape{4}, Shape{3, 4}, Shape{2, 5}}) {
    const Tensor state = Tensor::ones(wrong);
    const std::string shape = wrong.to_string();
    for (const std::string& error : {of_lstm(x, {state, {}}), of_lstm(x, {{}, state}), of_gru(x, state)})
      expect_holds(error, {"Cell: the state is ", shape.c_str(), "for x (2, 3)", "needs (2, 4)"});
  }
  for (const Tensor& wrong : {Tensor::ones({2, 1}), Tensor::ones({3}), Tensor::ones({5, 2, 3}), Tensor()})
    for (const std::string& error : {of_lstm(wrong, {}), of_gru(wrong, {})})
      expect_holds(error, {"Cell: x is ", "needs (N,3)"});
}

}  // namespace
}  // namespace trireme::nn
