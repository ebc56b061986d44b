// Statistics of batches over all shards of a step.
#pragma once

#include "core/tensor/tensor.h"

namespace trireme::nn {

/// Joins shards that run side by side, each on a thread or process of its own.
class BatchSync {
 public:
  virtual ~BatchSync() = default;
  /// The sum of all shards' parts, float32 (K), the same bits on all. Collective and blocking.
  virtual Tensor sum(const Tensor& part) = 0;
};
/// Of this thread; null: batch normalization uses the statistics of its own batch alone.
BatchSync*& batch_sync();

}  // namespace trireme::nn
