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

/// The interface of data parallel wrappers to optimizers. It provides final gradients when backward alone
/// does not. If each rank updates only a share of every parameter, it also sends the updates to the other
/// ranks.
class GradientSource {
 public:
  virtual ~GradientSource() = default;
  /// Waits until all gradients of the step are final. Further calls in the same step are cheap.
  virtual void finish() = 0;
  /// Makes the gradients final for kernels launched later on their device, without making the CPU wait.
  /// Returns the address of a number on the device that is not 0 if a gradient is not finite: updates must
  /// then be skipped, and an error is thrown later. Returns null if the gradients have been checked.
  virtual const std::int64_t* finish_later() {
    finish();
    return nullptr;
  }
  /// Returns the elements of a parameter that this rank updates, or nothing if every rank updates all of it.
  virtual std::optional<Share> share_of(const Tensor&) const { return {}; }
  /// Returns the gradient of this rank's share, after finish(). It has one dimension, or the parameter's
  /// shape if there is no share. It is undefined if the parameter has no gradient on any rank.
  virtual Tensor gradient_of(const Tensor& parameter) const { return parameter.grad(); }
  /// Completes `chunks`, the sums of squares of all chunks of `parameters`, one parameter after the other.
  /// The caller has set the entries of this rank's shares, and the call sets those of other ranks' shares. It
  /// is collective.
  virtual void complete_squares(std::span<const Tensor> /*parameters*/, std::span<double> /*chunks*/) {}
  /// Tells that this rank has updated its shares of these parameters. It is collective.
  virtual void updated(std::span<const Tensor> /*parameters*/) {}
  /// Tell that an optimizer begins or ends to work on this source's parameters.
  virtual void attach(optim::Optimizer& optimizer) = 0;
  virtual void detach(optim::Optimizer& optimizer) = 0;
};

/// The parameters that an optimizer updates, and the source of their gradients.
struct ParameterList {
  ParameterList() = default;
  ParameterList(std::vector<NamedTensor> tensors, std::shared_ptr<GradientSource> from = nullptr)
      : items(std::move(tensors)), source(std::move(from)) {}
  std::vector<NamedTensor> items;
  std::shared_ptr<GradientSource> source;  ///< null if grads are final after backward

  /// Returns what this rank updates of parameter `i`: the parameter, or a one-dimensional view of its share.
  Tensor share(std::size_t i) const;
  /// Returns the gradient of share(i), in the shape of share(i). Call it after source->finish(). It is
  /// undefined if the parameter has no gradient.
  Tensor gradient(std::size_t i) const;
  /// Returns the sum of squares of each vector over all ranks. of[k] has the elements of share(which[k]).
  /// Sums are taken over chunks of kSquaresChunk elements, so that the division into shares does not change
  /// their bits. The call is collective if ranks have shares.
  std::vector<double> sums_of_squares(std::span<const std::size_t> which, std::span<const View> of) const;
};

namespace optim {

/// Updates parameters from their grads. It changes neither a parameter without a gradient nor its state.
/// State per element has the parameter's dtype. All state is part of every checkpoint and digest.
class Optimizer {
 public:
  virtual ~Optimizer();
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  /// Applies one update. On GPUs the update is enqueued, and the call returns before it is done.
  void step();
  void zero_grad();
  virtual void set_lr(double lr) = 0;
  virtual double lr() const = 0;
  /// Returns the learning rate that the latest step() used; NaN before the first.
  double last_lr() const { return last_lr_; }
  /// Returns all state. State per element is named "<kind>.<parameter>".
  std::vector<StateTensor> state() const;
  const ParameterList& parameters() const { return parameters_; }

 protected:
  explicit Optimizer(ParameterList parameters);
  /// Returns true if update() skips slices whose OptimizerSlice::halted is not 0. The CPU then need not wait
  /// until a GPU has checked that gradients are finite.
  virtual bool heeds_halted() const { return false; }
  /// Adds state: for each parameter a tensor of zeros like its share, named "<kind>.<parameter>". Throws if
  /// there are two kinds already.
  void add_state(const std::string& kind);
  /// Updates the parameters that have gradients, all in one pass. slices[i] is this rank's share of parameter
  /// which[i] and may be empty. Its `first` and `second` are the states in the order of add_state().
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

/// Returns lr. Throws if it is negative or not finite.
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

/// Waits for the gradients and computes the 2-norm of all of them together. If it exceeds max_norm, scales
/// every gradient by max_norm / norm. Returns the norm before scaling. If the norm is NaN or infinite, or
/// max_norm is 0, nothing is scaled. Sums of squares are taken over fixed chunks in parameter order. The call
/// is collective if ranks have shares.
double clip_grad_norm(const ParameterList& parameters, double max_norm);

struct Schedule {
  enum class Kind { kConstant, kCosine, kOneCycle, kStep };
  Kind kind = Kind::kConstant;
  double peak = 0.1;        ///< the highest learning rate
  std::int64_t warmup = 0;  ///< steps of linear rise from 0 (all kinds but one-cycle)
  std::int64_t total = 0;   ///< steps of the whole run
};

/// Returns the learning rate of step 0, 1, ... It is a pure function, so that resume needs no state. Cosine
/// falls to 0 (Loshchilov, Hutter, SGDR, 2017); one-cycle rises over 30 % of the run from peak/25, then falls
/// to peak/25e4 (Smith, Topin, 2018); step divides by 10 at one half and three quarters of the run.
double learning_rate(const Schedule& schedule, std::int64_t step);

}  // namespace optim
}  // namespace trireme
