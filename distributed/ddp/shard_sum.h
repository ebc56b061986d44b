// Sums one vector of floats over all shards of all ranks, in the canonical tree.
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

/// Tells how vectors are summed over shards.
struct SumOptions {
  Reduction reduction = Reduction::kInvariant;
  /// The type in which vectors are summed and sent: float32, or bfloat16 or float16 for half the bytes. With
  /// 16 bits, every shard's vector and every sum of two nodes of the tree is rounded.
  DType dtype = DType::kFloat32;
  /// Factor of the sum. With 16 bits each shard's vector is multiplied instead, so that the sum does not
  /// overflow.
  float scale = 1;
  /// Rank r gets elements [cuts[r], cuts[r + 1]) only. If empty, every rank gets all elements.
  std::vector<std::size_t> cuts;
  /// If set, replaces the tree: it enqueues work on the communicator that fills `result`, a float32 tensor
  /// (count), from the vectors of this rank's shards. It may overwrite these vectors.
  std::function<void(const std::vector<Tensor>& leaves, const Tensor& result)> reduce;
  /// An int64 tensor (1) on the communicator's device that is set to 1 when a sum is not finite, or
  /// undefined.
  Tensor halted = {};
};

/// A rank fills one leaf for each local shard, in shard order. Partial sums are merged as soon as two
/// subtrees are neighbours, as in a binary counter, so at most log2(shards) + 1 of them exist per subtree;
/// with SumOptions::reduce all leaves exist until the sum. ordered_sum() then sums the ranks' partial sums.
/// Memory stays allocated from step to step, on the communicator's device. Only one thread may call.
///
/// The last `notes` floats of the vector are read by the CPU after the sum. They must be few, and there must
/// be none if the sum is cut or replaced.
class ShardSum {
 public:
  ShardSum(Communicator& comm, int shards, std::size_t count, std::size_t notes, SumOptions options,
           std::string label);

  /// Waits for a sum in flight, because the sum uses memory of this object.
  ~ShardSum();
  ShardSum(const ShardSum&) = delete;
  ShardSum& operator=(const ShardSum&) = delete;

  std::size_t count() const { return count_; }
  /// Returns the memory for the next local shard's vector, a float32 tensor (count). It holds zeros at first
  /// and unspecified values later.
  const Tensor& leaf();
  /// Completes the leaf with its last floats, `notes`, and adds it to the sum. Call this once per local
  /// shard.
  void push(std::span<const float> notes);
  /// Returns true once all local shards have been pushed.
  bool complete() const { return pushed_ == range_.size(); }
  /// Enqueues the sum over ranks, and a search for its first element that is not finite. Call it when
  /// complete() is true. All ranks must launch their sums in the same order.
  void launch();
  /// Ends the sum, so that leaves of the next step can be filled. Kernels that this thread launches later see
  /// result(). Throws the error of a sum that failed. Pass the returned ticket to first_bad() and notes(); it
  /// stays valid for two launches.
  int finish();
  /// The first element that is not finite, at count() if there is none. If the sum is cut, only this rank's
  /// elements are searched.
  struct Bad {
    std::size_t at;
    double value;
  };
  /// Blocks until the device has finished the ticket's sum.
  Bad first_bad(int ticket) const;
  /// Returns the last floats of the ticket's sum. Blocks until the device has finished it.
  std::span<const float> notes(int ticket) const;
  /// Returns the sum of the last finished step, a float32 tensor (count). The next launch overwrites it.
  const Tensor& result() const { return result_; }
  /// Returns the address of its notes on the device.
  const float* result_notes() const { return result_.view().as<float>() + count_ - notes_; }
  /// Returns the elements of the result that this rank gets.
  Slice own_slice() const;
  /// Returns each rank's slice of result() in a sum that is cut. All ranks may gather the slices after
  /// finish().
  std::vector<std::span<std::byte>> result_slices() const;
  /// Keeps the result's memory alive until `event` is complete.
  void keep_until(Event event) { done_ = std::move(event); }

 private:
  bool is_narrow() const { return options_.dtype != DType::kFloat32; }
  /// Returns the leaf's vector as a partial sum. In a sum of 16-bit numbers it is scaled and rounded.
  Tensor take_leaf();
  /// Returns the size of what the CPU reads of one sum: the first number that is not finite, then the notes.
  std::size_t said_bytes() const { return sizeof(double) * (2 + (notes_ + 1) / 2); }
  std::byte* said(int ticket) const { return said_.get() + static_cast<std::size_t>(ticket) * said_bytes(); }

  Communicator& comm_;
  const int shards_;
  const ShardRange range_;
  const std::size_t count_, notes_;
  const SumOptions options_;
  const std::string label_;
  std::vector<TreeNode> nodes_;
  std::vector<Tensor> stack_;  // sums of nodes; with options_.reduce, all shards' vectors
  std::vector<Tensor> spare_;
  Tensor leaf_;
  int pushed_ = 0;
  bool launched_ = false;
  int ticket_ = 0;  // 0 or 1: the last launch's
  Event done_, told_[2];
  Tensor result_;
  Tensor narrow_;     // the result in 16 bits, if it is summed so
  Tensor first_bad_;  // float64 (2), on the device
  HostMemory said_;   // of the last two sums
};

}  // namespace trireme
