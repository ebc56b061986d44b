// What may become of gradients between backward and the optimizer.
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

/// One bucket of a step, as a hook gets it. What a hook asks for here is enqueued on the communicator and
/// runs in call order, while backward goes on; memory that it needs stays alive until then.
class GradientBucket {
 public:
  /// A parameter's gradient: elements [offset, offset + shape.numel()) of each vector.
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
  /// The gradients of this rank's shards, in shard order: float32 (N) each, on comm().device(). A hook may
  /// overwrite them. A parameter that a shard did not use has zeros.
  const std::vector<Tensor>& parts() const { return parts_; }
  /// float32 (N): the hook fills it, alike on all ranks. It is meant to be the mean over all shards, but what
  /// it is, is the hook's affair.
  const Tensor& mean() const { return mean_; }
  int shards() const { return shards_; }  ///< of the job
  /// Of them, those of parts().
  ShardRange range() const { return shards_of_rank(shards_, comm_.size(), comm_.rank()); }
  Communicator& comm() const { return comm_; }

  /// Calls `fn` once what was asked for before is done. On a GPU, its kernels run in that order.
  void run(std::function<void()> fn);
  /// out = scale * the sum of all shards' vectors in the canonical tree: the same bits at any world size, as
  /// long as what each shard brings does not depend on the rank it is on. parts[k] is of this rank's k-th
  /// shard, of out's dtype (float32, or a 16-bit one, to which every sum is rounded then) and size,
  /// row-major; overwritten.
  void sum(std::vector<Tensor> parts, const Tensor& out, double scale = 1);

 private:
  Communicator& comm_;
  const int shards_;
  const std::vector<Entry> entries_;
  const std::vector<Tensor> parts_;
  const Tensor mean_;
  const std::string label_;
};

/// Turns the gradients of all shards into one. All ranks have the same hook. One thread.
class CommHook {
 public:
  virtual ~CommHook() = default;
  /// Before the first step: the parameters of the model, and of its `shards` shards those of this rank.
  virtual void attach(const std::vector<NamedTensor>& /*parameters*/, int /*shards*/, ShardRange /*range*/) {}
  /// Called for every bucket of every step, in the same order on all ranks. Buckets are not the same in every
  /// step.
  virtual void reduce(GradientBucket& bucket) = 0;
  /// The last step's gradients were not finite, and it may be left out: what was learned from them must go.
  virtual void forget() {}
  /// What the next step depends on: part of every checkpoint and digest. A hook that has some takes part in
  /// steps of one pass only, because it cannot know which gradients of a pass are used.
  virtual std::vector<StateTensor> state() const { return {}; }
};

/// A hook that is one function.
std::shared_ptr<CommHook> make_comm_hook(std::function<void(GradientBucket&)> reduce);

}  // namespace trireme
