// Optimizers for large batches: they scale each parameter's step in proportion to the norm of the parameter.
#pragma once

#include "core/optim/optimizer.h"

namespace trireme::optim {

/// The options of LARS and LAMB. Weight decay and the scaling of steps do not apply to a parameter of at most
/// one dimension (a bias, a norm's scale), as in the papers' own code.
struct LayerwiseOptions {
  double lr = 0.01, weight_decay = 0;
  double momentum = 0.9;                          ///< for LARS
  double trust = 0.001;                           ///< for LARS: eta in the paper
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-6;  ///< for LAMB
};

/// The common base of LARS and LAMB. In each step the CPU waits for the norms of all parameters.
class Layerwise : public Optimizer {
 public:
  void set_lr(double lr) override { options_.lr = checked_lr(lr); }
  double lr() const override { return options_.lr; }

 protected:
  Layerwise(ParameterList parameters, LayerwiseOptions options);
  bool is_adapted(std::size_t which) const { return parameters().items[which].tensor.dim() > 1; }
  /// Returns an uninitialized one-dimensional tensor of the slice's size and dtype, for use during an update.
  Tensor scratch_like(const OptimizerSlice& slice) const;
  /// Returns the 2-norm of each vector over all ranks. of[k] belongs to parameter which[k].
  std::vector<double> norms(std::span<const std::size_t> which, std::span<const View> of) const;
  LayerwiseOptions options_;
};

/// Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", 2017: SGD with momentum
/// whose learning rate is, for each parameter, trust * |p| / (|g| + weight_decay * |p|) times the given one.
class LARS final : public Layerwise {
 public:
  LARS(ParameterList parameters, LayerwiseOptions options);

 private:
  void update(std::span<const std::size_t> which, std::span<OptimizerSlice> slices) override;
};

/// Y. You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", 2020: Adam's
/// step, weight decay included, scaled to the length of the parameter.
class LAMB final : public Layerwise {
 public:
  LAMB(ParameterList parameters, LayerwiseOptions options);

 private:
  void update(std::span<const std::size_t> which, std::span<OptimizerSlice> slices) override;
  Tensor steps_;  ///< int64, one per parameter
};

}  // namespace trireme::optim
