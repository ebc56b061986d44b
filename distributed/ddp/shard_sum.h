// One vector of floats summed over all shards of all ranks, in the canonical tree.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor/tensor.h"
#include "distributed/comm/communicator.h"
#include "distributed/comm/memory.h"
#include "distributed/comm/ordered_reduce.h"

namespace trireme {

enum class Reduction {
  kInvariant,  ///< the canonical tree: same bits at any world size
  kFastest,    ///< the library's own all-reduce: bits not promised
};

/// How vectors are summed over shards.
struct SumOptions {
  Reduction reduction = Reduction::kInvariant;
  /// float32, or for half the bytes bfloat16 or float16: then every shard's part, and every sum of two nodes
  /// of the tree, is rounded to it.
  DType dtype = DType::kFloat32;
  float scale = 1;  ///< of the sum; in 16 bits of each shard's part, so that sums of many do not overflow
  /// Rank r gets elements [cuts[r], cuts[r + 1]) only; empty: every rank gets all.
  std::vector<std::size_t> cuts;
  /// Instead of the tree: enqueues on the communicator what fills `result`, float32 (count), from the vectors
  /// of this rank's shards, which it may overwrite.
  std::function<void(const std::vector<Tensor>& leaves, const Tensor& result)> reduce;
  /// int64 (1) on the communicator's device: becomes 1 when a sum is not finite. Undefined: nobody asks.
  Tensor halted = {};
};

/// A rank fills one leaf per local shard, in shard order; partial sums are merged as soon as two subtrees
/// stand side by side (a binary counter), so at most log2(shards) + 1 of them are alive per subtree; with
/// SumOptions::reduce all are. Then the ranks' partials are summed by ordered_sum. Memory is kept from step
/// to step, on comm's device. One thread calls.
///
/// The last `notes` floats of the sum are read by the host: few numbers, and none where the sum is cut or
/// made in another way.
class ShardSum {
 public:
  ShardSum(Communicator& comm, int shards, std::size_t count, std::size_t notes, SumOptions options,
           std::string label);

  /// Waits for a sum under way, whose memory goes with this object.
  ~ShardSum();
  ShardSum(const ShardSum&) = delete;
  ShardSum& operator=(const ShardSum&) = delete;

  std::size_t count() const { return count_; }
  /// Memory for the vector of the next local shard: float32 (count). Zeros at first, later what was left
  /// there.
  const Tensor& leaf();
  /// The leaf is filled but for these last notes, mostly runs of one value. Call once per local shard.
  void push(std::span<const float> notes);
  /// All local shards are pushed.
  bool complete() const { return pushed_ == range_.size(); }
  /// To be called when complete. Enqueues the sum over ranks, and a search for its first element that is not
  /// finite. All ranks must launch their sums in the same order.
  void launch();
  /// Makes ready for the next step: result() is there for what this thread enqueues from now on (or throws
  /// what made it fail). What the host is to read of this sum it gets for the returned ticket, until the sum
  /// after the next is launched.
  int finish();
  /// The first element that is not finite, at count() if there is none; where the sum is cut, among this
  /// rank's.
  struct Bad {
    std::size_t at;
    double value;
  };
  /// Blocks until the device is done with that sum.
  Bad first_bad(int ticket) const;
  /// Blocks likewise. The last floats of the sum.
  std::span<const float> notes(int ticket) const;
  /// The sum of the last finished step: a float32 tensor (count), overwritten by the next launch.
  const Tensor& result() const { return result_; }
  /// Its notes, on the device.
  const float* result_notes() const { return result_.view().as<float>() + count_ - notes_; }
  /// The elements of the result that this rank gets.
  Slice own_slice() const;
  /// Where the sum is cut: each rank's slice of result(), which all ranks may gather there after finish().
  std::vector<std::span<std::byte>> result_slices() const;
  /// Keeps the result's memory until then.
  void keep_until(Event event) { done_ = std::move(event); }

 private:
  bool is_narrow() const { return options_.dtype != DType::kFloat32; }
  /// The leaf's vector as a partial sum.
  Tensor take_leaf();
  /// Of one sum, on the host: where and what is not finite, then the notes.
  std::size_t said_bytes() const { return sizeof(double) * (2 + (notes_ + 1) / 2); }
  std::byte* said(int ticket) const { return said_.get() + static_cast<std::size_t>(ticket) * said_bytes(); }

  Communicator& comm_;
  const int shards_;
  const ShardRange range_;
  const std::size_t count_, notes_;
  const SumOptions options_;
  const std::string label_;
  std::vector<TreeNode> nodes_;
  std::vector<Tensor> stack_;  // the sum of each node; with options_.reduce, all shards' vectors
  std::vector<Tensor> spare_;
  Tensor leaf_;
  int pushed_ = 0;
  bool launched_ = false;
  int ticket_ = 0;  // of the last launch; they take turns
  Event done_, told_[2];
  Tensor result_;
  Tensor narrow_;     // the result in 16 bits, if it is summed so
  Tensor first_bad_;  // float64 (2), on the device
  HostMemory said_;   // of the last two sums
};

}  // namespace trireme
