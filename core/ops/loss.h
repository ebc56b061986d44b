// Softmax and losses. See ops.h for the rules of all ops.
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace trireme {

// --- loss.cpp
Tensor log_softmax(const Tensor& x, int dim = -1);
Tensor softmax(const Tensor& x, int dim = -1);

enum class LossReduction { kMean, kSum, kNone };
struct CrossEntropyOptions {
  /// Mixes in the uniform distribution. C. Szegedy et al., "Rethinking the Inception architecture", 2016.
  double label_smoothing = 0;
  Tensor weight = {};                ///< (C), of each class; the mean is then weighted, too
  std::int64_t ignore_index = -100;  ///< rows with this label count for nothing
  LossReduction reduction = LossReduction::kMean;
};
/// logits (N,C,...) with labels (N,...) int64 in 0..C-1. Backward reads the logits again: nothing may change
/// them in place before it.
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& options = {});
/// Computes cross_entropy() from log-probabilities instead of logits.
Tensor nll_loss(const Tensor& log_probabilities, const Tensor& labels,
                const CrossEntropyOptions& options = {});
// In the losses below, x and target have the same shape.
Tensor mse_loss(const Tensor& x, const Tensor& target, LossReduction reduction = LossReduction::kMean);
Tensor l1_loss(const Tensor& x, const Tensor& target, LossReduction reduction = LossReduction::kMean);
/// Squared (by half) up to delta, then linear. P. Huber, "Robust estimation of a location parameter", 1964.
Tensor huber_loss(const Tensor& x, const Tensor& target, double delta = 1,
                  LossReduction reduction = LossReduction::kMean);
/// Binary cross entropy of sigmoid(x).
Tensor bce_with_logits(const Tensor& x, const Tensor& target, LossReduction reduction = LossReduction::kMean);
/// target * (log target - log_x)
Tensor kl_div(const Tensor& log_x, const Tensor& target, LossReduction reduction = LossReduction::kMean);

}  // namespace trireme
