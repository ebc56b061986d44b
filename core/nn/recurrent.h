// Recurrent networks. Names, arguments and defaults are PyTorch's; sequences of different lengths are given
// with their lengths instead of packed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/nn/dropout.h"
#include "core/nn/module.h"
#include "core/ops/recurrent.h"

namespace trireme::nn {

struct RecurrentOptions {
  std::int64_t num_layers = 1;
  bool bias = true;
  bool batch_first = false;  ///< x and output are (N,L,...) instead of (L,N,...)
  double dropout = 0;        ///< of what one layer gives to the next
  bool bidirectional = false;
};

/// What RNN, LSTM and GRU share. The products of all time steps with weight_ih are one.
class Recurrent : public Module {
 public:
  /// weight_ih_l0, ... of one layer and direction.
  struct Weights {
    Tensor ih;                ///< (gates*H, in)
    Tensor hh;                ///< (gates*H, H)
    Tensor bias_ih, bias_hh;  ///< (gates*H), undefined without bias
  };
  void visit(Visitor& v) override;
  std::int64_t input_size, hidden_size;
  std::vector<Weights> weights;  ///< layer by layer, forward before backward
  Dropout dropout;
  RecurrentOptions options;

 protected:
  /// Of one layer and direction: h (N,H), and c of an LSTM.
  using State = std::vector<Tensor>;
  Recurrent(const char* name, int gates, std::int64_t input, std::int64_t hidden, const RecurrentOptions& o);
  /// The state after one step; `gates` (N,gates*H) is weight_ih x + bias_ih.
  virtual State step(const Tensor& gates, const State& before, const Weights& w) const = 0;
  /// Of x, with the hooks: output and last state. `initial` and that are one tensor (layers*directions,N,H)
  /// per part of the state; initial ones may be undefined.
  State call(const Tensor& x, const State& initial, const Tensor& lengths);

 private:
  struct Time;
  State run(const Tensor& x, const State& initial, const Tensor& lengths);
  std::vector<Tensor> run_direction(const Tensor& x, const Weights& w, State& state, const Time& time,
                                    bool backward) const;
  std::vector<State> initial_states(const Tensor& x, const State& given) const;
  int directions() const { return options.bidirectional ? 2 : 1; }
  const char* name_;
};

struct RecurrentOutput {
  Tensor output;  ///< (L,N,directions*H), or (N,L,...) with batch_first; zeros after a sequence's end
  Tensor h;       ///< (layers*directions,N,H): the state after each sequence's last step
};

struct LstmOutput {
  Tensor output;
  LstmState state;
};

/// J. Elman, "Finding structure in time", 1990.
class RNN : public Recurrent {
 public:
  enum class Nonlinearity { kTanh, kRelu };
  RNN(std::int64_t input_size, std::int64_t hidden_size, const RecurrentOptions& options = {},
      Nonlinearity nonlinearity = Nonlinearity::kTanh);
  /// x (L,N,in) or (N,L,in); h (layers*directions,N,H), zeros if undefined; lengths (N) int64 on the CPU, all
  /// of x if undefined.
  RecurrentOutput operator()(const Tensor& x, const Tensor& h = {}, const Tensor& lengths = {});
  /// The output alone.
  Tensor forward(const Tensor& x) override { return (*this)(x).output; }
  Nonlinearity nonlinearity;

 protected:
  State step(const Tensor& gates, const State& before, const Weights& w) const override;
};

/// S. Hochreiter, J. Schmidhuber, "Long short-term memory", 1997. Arguments as RNN's.
class LSTM : public Recurrent {
 public:
  LSTM(std::int64_t input_size, std::int64_t hidden_size, const RecurrentOptions& options = {});
  LstmOutput operator()(const Tensor& x, const LstmState& state = {}, const Tensor& lengths = {});
  /// The output alone.
  Tensor forward(const Tensor& x) override { return (*this)(x).output; }

 protected:
  State step(const Tensor& gates, const State& before, const Weights& w) const override;
};

/// K. Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014. Arguments as RNN's.
class GRU : public Recurrent {
 public:
  GRU(std::int64_t input_size, std::int64_t hidden_size, const RecurrentOptions& options = {});
  RecurrentOutput operator()(const Tensor& x, const Tensor& h = {}, const Tensor& lengths = {});
  /// The output alone.
  Tensor forward(const Tensor& x) override { return (*this)(x).output; }

 protected:
  State step(const Tensor& gates, const State& before, const Weights& w) const override;
};

/// One step of an LSTM: x (N,in), state (N,H), zeros if undefined.
class LSTMCell : public Module {
 public:
  LSTMCell(std::int64_t input_size, std::int64_t hidden_size, bool with_bias = true);
  LstmState operator()(const Tensor& x, const LstmState& state = {});
  void visit(Visitor& v) override;
  Tensor weight_ih, weight_hh, bias_ih, bias_hh;
};

/// One step of a GRU: x (N,in), h (N,H), zeros if undefined.
class GRUCell : public Module {
 public:
  GRUCell(std::int64_t input_size, std::int64_t hidden_size, bool with_bias = true);
  Tensor operator()(const Tensor& x, const Tensor& h = {});
  void visit(Visitor& v) override;
  Tensor weight_ih, weight_hh, bias_ih, bias_hh;
};

}  // namespace trireme::nn
