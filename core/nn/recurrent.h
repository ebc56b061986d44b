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
  double dropout = 0;        ///< the dropout probability of the tensors between layers
  bool bidirectional = false;
};

/// The common base of RNN, LSTM and GRU. One matrix product with weight_ih covers all time steps.
class Recurrent : public Module {
 public:
  /// The weights of one layer and direction: weight_ih_l0 and so on in PyTorch.
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
  /// The state of one layer and direction: h (N,H), and c (N,H) of an LSTM.
  using State = std::vector<Tensor>;
  Recurrent(const char* name, int gates, std::int64_t input, std::int64_t hidden, const RecurrentOptions& o);
  /// Returns the state after one time step. `gates` (N,gates*H) is weight_ih x + bias_ih.
  virtual State step(const Tensor& gates, const State& before, const Weights& w) const = 0;
  /// Runs the network on x, with the hooks, and returns the output and the last state. The last state and
  /// `initial` have one tensor (layers*directions,N,H) for each part of the state. Initial ones may be
  /// undefined.
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
  /// Runs the network on x (L,N,in) or (N,L,in). h (layers*directions,N,H) is zeros if undefined. lengths (N)
  /// is int64 on the CPU; if it is undefined, all sequences have the full length of x.
  RecurrentOutput operator()(const Tensor& x, const Tensor& h = {}, const Tensor& lengths = {});
  /// Returns the output without the state.
  Tensor forward(const Tensor& x) override { return (*this)(x).output; }
  Nonlinearity nonlinearity;

 protected:
  State step(const Tensor& gates, const State& before, const Weights& w) const override;
};

/// S. Hochreiter, J. Schmidhuber, "Long short-term memory", 1997. Its arguments are those of RNN.
class LSTM : public Recurrent {
 public:
  LSTM(std::int64_t input_size, std::int64_t hidden_size, const RecurrentOptions& options = {});
  LstmOutput operator()(const Tensor& x, const LstmState& state = {}, const Tensor& lengths = {});
  /// Returns the output without the state.
  Tensor forward(const Tensor& x) override { return (*this)(x).output; }

 protected:
  State step(const Tensor& gates, const State& before, const Weights& w) const override;
};

/// K. Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014. Its arguments are those
/// of RNN.
class GRU : public Recurrent {
 public:
  GRU(std::int64_t input_size, std::int64_t hidden_size, const RecurrentOptions& options = {});
  RecurrentOutput operator()(const Tensor& x, const Tensor& h = {}, const Tensor& lengths = {});
  /// Returns the output without the state.
  Tensor forward(const Tensor& x) override { return (*this)(x).output; }

 protected:
  State step(const Tensor& gates, const State& before, const Weights& w) const override;
};

/// One time step of an LSTM on x (N,in). The state (N,H) is zeros if undefined.
class LSTMCell : public Module {
 public:
  LSTMCell(std::int64_t input_size, std::int64_t hidden_size, bool with_bias = true);
  LstmState operator()(const Tensor& x, const LstmState& state = {});
  void visit(Visitor& v) override;
  Tensor weight_ih, weight_hh, bias_ih, bias_hh;
};

/// One time step of a GRU on x (N,in). h (N,H) is zeros if undefined.
class GRUCell : public Module {
 public:
  GRUCell(std::int64_t input_size, std::int64_t hidden_size, bool with_bias = true);
  Tensor operator()(const Tensor& x, const Tensor& h = {});
  void visit(Visitor& v) override;
  Tensor weight_ih, weight_hh, bias_ih, bias_hh;
};

}  // namespace trireme::nn
