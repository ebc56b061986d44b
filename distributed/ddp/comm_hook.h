// Comm hooks reduce gradients in a user-defined way, between backward and the optimizer.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/nn/module.h"
#include "distributed/comm/communicator.h"
#include "distributed/comm/ordered_reduce.h"

namespace trireme {

/// One bucket of a step, the argument of a comm hook. run() and sum() enqueue work on the communicator. The
/// work runs in call order while backward is still running, and the memory that it needs stays alive until
/// then.
class GradientBucket {
 public:
  /// The place of a parameter's gradient: elements [offset, offset + shape.numel()) of each vector.
  struct Entry {
    std::string name;
    Shape shape;
    std::size_t offset = 0;
  };

  GradientBucket(Communicator& comm, int shards, std::vector<Entry> entries, std::vector<Tensor> parts,
                 Tensor mean, std::string label)
      : comm_(comm),
        shards_(shards),
        entries_(std::move(entries)),
        parts_(std::move(parts)),
        mean_(std::move(mean)),
        label_(std::move(label)) {}

  const std::vector<Entry>& entries() const { return entries_; }
  /// Returns the gradients of this rank's shards, in shard order. Each is a float32 tensor (N) on
  /// comm().device() that a hook may overwrite. It holds zeros for a parameter that the shard did not use.
  const std::vector<Tensor>& parts() const { return parts_; }
  /// Returns the result, a float32 tensor (N) that the hook fills with the same values on all ranks. It is
  /// normally the mean over all shards, but the hook decides what it computes.
  const Tensor& mean() const { return mean_; }
  int shards() const { return shards_; }  ///< number of shards of the job
  /// Returns the range of shards whose gradients parts() holds.
  ShardRange range() const { return shards_of_rank(shards_, comm_.size(), comm_.rank()); }
  Communicator& comm() const { return comm_; }

  /// Enqueues a call of `fn` after the work that was enqueued before. On a GPU, the kernels of `fn` run in
  /// queue order.
  void run(std::function<void()> fn);
  /// Enqueues out = scale * (the sum of all shards' vectors in the canonical tree). The result has the same
  /// bits at any world size if no shard's vector depends on the rank that computes it. parts[k] is the vector
  /// of this rank's k-th shard. It must be contiguous and have the size and dtype of `out`, which is float32
  /// or a 16-bit type; every sum of two nodes is rounded to that type. The parts are overwritten.
  void sum(std::vector<Tensor> parts, const Tensor& out, double scale = 1);

 private:
  Communicator& comm_;
  const int shards_;
  const std::vector<Entry> entries_;
  const std::vector<Tensor> parts_;
  const Tensor mean_;
  const std::string label_;
};

/// Reduces the gradients of all shards to one gradient. All ranks use the same hook. Only one thread calls
/// it.
class CommHook {
 public:
  virtual ~CommHook() = default;
  /// Called before the first step with the model's parameters, the number of shards of the job, and the range
  /// of shards that this rank computes.
  virtual void attach(const std::vector<NamedTensor>& /*parameters*/, int /*shards*/, ShardRange /*range*/) {}
  /// Called for every bucket of every step, in the same order on all ranks. The buckets may differ between
  /// steps.
  virtual void reduce(GradientBucket& bucket) = 0;
  /// Called when the last step's gradients were not finite, so that the step may be skipped. The hook must
  /// drop all state that it derived from them.
  virtual void forget() {}
  /// Returns the state that the next step depends on. It is part of every checkpoint and digest. A hook with
  /// state supports only steps of one pass, because it cannot know which gradients of a pass are used.
  virtual std::vector<StateTensor> state() const { return {}; }
};

/// Returns a hook without state that calls `reduce` for every bucket.
std::shared_ptr<CommHook> make_comm_hook(std::function<void(GradientBucket&)> reduce);

}  // namespace trireme
