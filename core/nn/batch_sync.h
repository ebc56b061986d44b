// Batch statistics over all shards of a step.
#pragma once

#include "core/tensor/tensor.h"

namespace trireme::nn {

/// Sums over shards that run at the same time, each on a thread or process of its own.
class BatchSync {
 public:
  virtual ~BatchSync() = default;
  /// Returns the sum of all shards' `part`s, float32 (K), with the same bits on all. It is collective and
  /// blocks.
  virtual Tensor sum(const Tensor& part) = 0;
};
/// Returns this thread's BatchSync. If it is null, batch normalization uses the statistics of its own batch
/// alone.
BatchSync*& batch_sync();

}  // namespace trireme::nn
