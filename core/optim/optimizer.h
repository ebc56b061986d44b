// Optimizers, gradient clipping and learning-rate schedules.
#pragma once

#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/nn/module.h"
#include "kernels/table.h"

namespace trireme {

namespace optim {
class Optimizer;
}

/// Elements [first, first + count) of a parameter, row-major.
struct Share {
  std::int64_t first = 0, count = 0;
};

/// Where gradients come from when backward alone does not make them final (data parallel wrappers), and who
/// tells other ranks of updates where each rank updates a share of every parameter.
class GradientSource {
 public:
  virtual ~GradientSource() = default;
  /// Waits until all gradients of the step are final. Cheap when called again in the same step.
  virtual void finish() = 0;
  /// As finish(), for whoever gives all that it does next to the gradients' device: the host need not wait
  /// for that. Where the returned number, on the device, is not 0 a gradient is not finite, nothing may be
  /// updated, and an error follows; null: all is known.
  virtual const std::int64_t* finish_later() {
    finish();
    return nullptr;
  }
  /// What this rank updates of a parameter; nothing: all of it, as every rank does.
  virtual std::optional<Share> share_of(const Tensor&) const { return {}; }
  /// The gradient of the share, after finish(): one-dimensional, or of the parameter's shape if it is all of
  /// it. Undefined if the parameter has no gradient on any rank.
  virtual Tensor gradient_of(const Tensor& parameter) const { return parameter.grad(); }
  /// Sums of squares of chunks of the shares of `parameters`, one parameter after the other, each with room
  /// for all its chunks: those of other ranks' shares are filled in. Collective.
  virtual void complete_squares(std::span<const Tensor> /*parameters*/, std::span<double> /*chunks*/) {}
  /// The shares of these parameters have new values. Collective.
  virtual void updated(std::span<const Tensor> /*parameters*/) {}
  /// An optimizer works on this source's parameters from now on, or no more.
  virtual void attach(optim::Optimizer& optimizer) = 0;
  virtual void detach(optim::Optimizer& optimizer) = 0;
};

/// What an optimizer works on.
struct ParameterList {
  ParameterList() = default;
  ParameterList(std::vector<NamedTensor> tensors, std::shared_ptr<GradientSource> from = nullptr)
      : items(std::move(tensors)), source(std::move(from)) {}
  std::vector<NamedTensor> items;
  std::shared_ptr<GradientSource> source;  ///< null: grads are final as they are

  /// What this rank updates of parameter `i`: the parameter, or a one-dimensional view of its share.
  Tensor share(std::size_t i) const;
  /// Its gradient, of a shape with share(i), after source->finish(). Undefined if it has none.
  Tensor gradient(std::size_t i) const;
  /// The sum of squares of each vector, over all ranks: of[k] is like share(which[k]). Taken over chunks of
  /// kSquaresChunk elements, so that how parameters are shared changes no bit. Collective with shares.
  std::vector<double> sums_of_squares(std::span<const std::size_t> which, std::span<const View> of) const;
};

namespace optim {

/// Updates parameters from their grads. A parameter without a gradient is left untouched, state included.
/// State is float32 (or the parameter's dtype) and part of every checkpoint and digest.
class Optimizer {
 public:
  virtual ~Optimizer();
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  /// Applies one update as soon as the gradients are there: on GPUs that is after the call.
  void step();
  void zero_grad();
  virtual void set_lr(double lr) = 0;
  virtual double lr() const = 0;
  /// Returns the learning rate that the latest step() used; NaN before the first.
  double last_lr() const { return last_lr_; }
  /// All state, named "<kind>.<parameter>".
  std::vector<StateTensor> state() const;
  const ParameterList& parameters() const { return parameters_; }

 protected:
  explicit Optimizer(ParameterList parameters);
  /// Whether update() changes nothing where slices say so (OptimizerSlice::halted). Then the host does not
  /// wait for a GPU to know that gradients are finite.
  virtual bool heeds_halted() const { return false; }
  /// One tensor of zeros like each parameter's share, under "<kind>.<parameter>". At most two kinds.
  void add_state(const std::string& kind);
  /// Updates the parameters that have gradients, all in one pass. which[i] is the index of slices[i], whose
  /// `first` and `second` are the states in the order of add_state(). Slices are this rank's shares: they may
  /// be empty.
  virtual void update(std::span<const std::size_t> which, std::span<OptimizerSlice> slices) = 0;
  std::vector<NamedTensor> extra_state_;  ///< state that is not per element

 private:
  struct StateKind {
    std::string kind;
    std::vector<Tensor> tensors;
  };
  ParameterList parameters_;
  std::vector<StateKind> states_;
  double last_lr_ = std::numeric_limits<double>::quiet_NaN();
};

/// lr, if it is one. Throws otherwise.
double checked_lr(double lr);

/// Stochastic gradient descent with momentum, as in PyTorch.
class SGD : public Optimizer {
 public:
  SGD(ParameterList parameters, SgdOptions options);
  void set_lr(double lr) override { options_.lr = checked_lr(lr); }
  double lr() const override { return options_.lr; }

 protected:
  bool heeds_halted() const override { return true; }
  void update(std::span<const std::size_t> which, std::span<OptimizerSlice> slices) override;

 private:
  SgdOptions options_;
};

/// Adam with decoupled weight decay: I. Loshchilov, F. Hutter, 2019. Steps are counted per parameter.
class AdamW : public Optimizer {
 public:
  AdamW(ParameterList parameters, AdamWOptions options);
  void set_lr(double lr) override { options_.lr = checked_lr(lr); }
  double lr() const override { return options_.lr; }

 protected:
  bool heeds_halted() const override { return true; }
  void update(std::span<const std::size_t> which, std::span<OptimizerSlice> slices) override;

 private:
  AdamWOptions options_;
  Tensor steps_;  ///< int64, one per parameter
};

/// Waits for the gradients, then scales them all by max_norm / norm if their joint 2-norm is larger. Sums of
/// squares are taken over fixed chunks in parameter order. Returns the norm before; NaN or infinite norms
/// scale nothing. max_norm 0 only measures. Collective where ranks have shares.
double clip_grad_norm(const ParameterList& parameters, double max_norm);

struct Schedule {
  enum class Kind { kConstant, kCosine, kOneCycle, kStep };
  Kind kind = Kind::kConstant;
  double peak = 0.1;        ///< the highest learning rate
  std::int64_t warmup = 0;  ///< steps of linear rise from 0 (all kinds but one-cycle)
  std::int64_t total = 0;   ///< steps of the whole run
};

/// The learning rate of step 0, 1, ...: a pure function, so that resume needs no state. Cosine falls to 0
/// (Loshchilov, Hutter, SGDR, 2017); one-cycle rises over 30 % of the run from peak/25, then falls to
/// peak/25e4 (Smith, Topin, 2018); step divides by 10 at one half and three quarters of the run.
double learning_rate(const Schedule& schedule, std::int64_t step);

}  // namespace optim
}  // namespace trireme
