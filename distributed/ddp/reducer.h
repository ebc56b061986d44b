// Gathers gradients of shards into buckets and sums them over all shards while backward goes on.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/nn/module.h"
#include "distributed/comm/link_cost.h"
#include "distributed/ddp/bucket_plan.h"
#include "distributed/ddp/shard_sum.h"

namespace trireme {

struct ReducerOptions {
  Reduction reduction = Reduction::kInvariant;
  DType dtype = DType::kFloat32;  ///< in which gradients are summed and travel: see SumOptions
  std::size_t bucket_bytes = 0;   ///< of float32 at most; 0: what is best over `link`
  LinkCost link;
  bool overlap = true;  ///< false: buckets travel only after the last shard's backward
  /// Test aid: gradients are taken in a random order (which must change no bit); 0: as they come.
  std::uint64_t shuffle_ready = 0;
};

/// Takes each shard's gradients and hands back the mean over shards as the parameters' grads.
///
/// A round is: for each local shard begin_shard(), backward (add() through hooks), end_shard(); then
/// finish(). launch_ready() may be called at any time in between: early, so that buckets travel while
/// backward goes on. All ranks make the same number of rounds. One thread calls. A parameter that got no
/// gradient in a shard contributes zeros; one that got none in any shard of any rank has no grad after
/// finish().
class Reducer {
 public:
  Reducer(Communicator& comm, int shards, std::vector<NamedTensor> parameters, ReducerOptions options);

  void begin_shard();
  /// The gradient of parameter `index` in this shard; further ones in the same shard are added while its
  /// bucket has not left, and an error after that.
  void add(std::size_t index, Tensor gradient);
  void end_shard();
  /// Sends the buckets that are complete on their way, in the order of their indices. True if all are.
  bool launch_ready();
  /// Waits for all buckets and sets the grads (views of bucket memory, valid until the next round's finish).
  /// Returns a text naming the first parameter whose summed gradient is not finite, the same on all ranks;
  /// else "".
  std::string finish();

  /// Time that finish() has waited for communication, in all.
  std::chrono::nanoseconds exposed() const { return exposed_; }

 private:
  struct Bucket {
    BucketPlan plan;
    std::unique_ptr<ShardSum> sum;
    std::vector<bool> ready;  // per tensor of the plan, in this shard
    std::size_t ready_count = 0;
    bool pushed = false;  // in this shard
  };
  struct Place {
    std::size_t bucket, slot;
  };

  void make_buckets(const std::vector<std::size_t>& order);
  /// Where the bucket of this shard has the gradient of a parameter.
  Tensor slot_of(std::size_t index);
  void take(std::size_t index, const Tensor& gradient);
  void complete(Bucket& bucket);
  void adopt_ready_order();
  void release_shuffled(bool all);

  Communicator& comm_;
  const int shards_;
  const ShardRange range_;
  const ReducerOptions options_;
  std::vector<NamedTensor> parameters_;
  std::vector<Bucket> buckets_;
  std::vector<Place> places_;
  int shards_done_ = 0;
  std::size_t launched_ = 0;
  std::vector<std::size_t> ready_order_;  // of shard 0 in the first round that had gradients
  bool planned_from_order_ = false;
  std::chrono::nanoseconds exposed_{0};
  struct Held {
    std::size_t index;
    Tensor gradient;
  };
  std::vector<Held> held_;  // back by shuffle_ready
  std::uint64_t draws_ = 0;
};

}  // namespace trireme
