// Collects the gradients of shards in buckets and reduces the buckets while backward is still running.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/nn/module.h"
#include "core/optim/optimizer.h"
#include "distributed/comm/link_cost.h"
#include "distributed/ddp/bucket_plan.h"
#include "distributed/ddp/comm_hook.h"
#include "distributed/ddp/shard_sum.h"

namespace trireme {

struct ReducerOptions {
  Reduction reduction = Reduction::kInvariant;
  DType dtype = DType::kFloat32;  ///< gradients are summed and sent in this type: see SumOptions
  std::size_t bucket_bytes = 0;   ///< largest bucket, in bytes of float32; 0: chosen by the cost of `link`
  LinkCost link;
  bool overlap = true;  ///< false: buckets are reduced only after the last shard's backward
  /// ZeRO, stage 1 (S. Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter
  /// models", 2020): each rank gets a share of every bucket, updates it, and tells the others.
  bool zero = false;
  std::shared_ptr<CommHook> hook;  ///< computes the mean gradient; null: `reduction` does
  /// For tests: the seed of a random order in which gradients are reported as ready. It must not change any
  /// bit. 0: the order of backward.
  std::uint64_t shuffle_ready = 0;
};

/// Takes each shard's gradients and sets the mean over all shards as the parameters' grads.
///
/// A round consists of begin_shard(), backward (which calls add() through hooks) and end_shard() for each
/// local shard, and of finish(). launch_ready() may be called at any time in between; calling it early lets
/// buckets be reduced while backward is running. All ranks make the same number of rounds. Only one thread
/// may call. A parameter without a gradient in a shard contributes zeros. A parameter without a gradient in
/// any shard of any rank has no grad after finish().
///
/// With `zero`, no parameter has a grad after finish(). gradient_share() returns this rank's part of a
/// gradient, and share_updates() sends this rank's new values to all ranks. Buckets are planned only once
/// then, because optimizers keep state for this rank's parts.
class Reducer {
 public:
  Reducer(Communicator& comm, int shards, std::vector<NamedTensor> parameters, ReducerOptions options);
  /// Replaces the reduction of buckets. Must be called before the first shard.
  void set_hook(std::shared_ptr<CommHook> hook);
  std::vector<StateTensor> hook_state() const;
  const ReducerOptions& options() const { return options_; }

  void begin_shard();
  /// Adds to the gradient of parameter `index` in this shard. Throws Error if the parameter's bucket has
  /// already been launched.
  void add(std::size_t index, Tensor gradient);
  void end_shard();
  /// Launches the buckets that are complete, in the order of their indices. Returns true if all have been
  /// launched.
  bool launch_ready();
  /// Waits for all buckets and sets the grads. These are views of bucket memory, valid until the next round
  /// launches its first bucket. Returns "", or a text that names the first parameter whose summed gradient is
  /// not finite, which is the same on all ranks.
  std::string finish();
  /// Returns true if finish_later() may be called: on GPUs, except in the first round and with ZeRO or a comm
  /// hook, which need a further exchange between ranks. The result is the same on all ranks.
  bool can_finish_later() const;
  /// Sets the grads without waiting for the device, except for parameters that no rank may have used. Kernels
  /// that this thread launches later see the grads. Pass the returned ticket to check(); it stays valid until
  /// the round after the next launches its buckets. Until then, optimizers must skip their updates if the
  /// number at halted() is not 0.
  int finish_later();
  /// Waits for the device and returns the text that finish() would have returned for the ticket's round.
  std::string check(int ticket);
  /// Returns the address of an int64 on the device. It is not 0 if a gradient of a round that has not been
  /// checked yet is not finite.
  std::int64_t* halted() const { return halted_.view().as<std::int64_t>(); }

  /// Returns the elements of parameter `index` that this rank updates. They stay the same for the life of the
  /// reducer. Returns nothing without `zero`, and for a parameter without elements.
  std::optional<Share> share_of(std::size_t index) const { return share_of(index, comm_.rank()); }
  /// Returns the mean gradient of those elements after finish(), in one dimension, or an undefined tensor if
  /// no rank had a gradient of the parameter.
  Tensor gradient_share(std::size_t index) const;
  /// Implements GradientSource::complete_squares() for these parameters.
  void complete_squares(std::span<const std::size_t> parameters, std::span<double> chunks);
  /// Tells that this rank has updated its elements of these parameters. They are sent to all ranks together
  /// with the other parameters of their bucket that had gradients. On CPUs they arrive while the program goes
  /// on: reading a parameter that has not arrived waits for it, and reading one that has not been sent is an
  /// error. On GPUs they have arrived for later kernels when this returns.
  void share_updates(std::span<const std::size_t> parameters);
  /// Sends the updated parameters that still wait for others of their bucket.
  void share_all_updates();

  /// Return the total time that this rank has waited for communication, and the part of it in which it waited
  /// for updated parameters.
  std::chrono::nanoseconds exposed() const { return exposed_ + *exposed_in_reads_; }
  std::chrono::nanoseconds exposed_in_reads() const { return *exposed_in_reads_; }

 private:
  struct Bucket {
    BucketPlan plan;
    std::unique_ptr<ShardSum> sum;
    std::vector<bool> ready;  // for each tensor of the plan, in this shard
    std::size_t ready_count = 0;
    bool pushed = false;  // in this shard
    // Used with options_.zero only.
    std::vector<std::size_t> cuts;  // rank r updates elements [cuts[r], cuts[r + 1])
    bool is_shared = false;         // in this round, the sum's memory holds updated parameters
    Event shared;                   // complete when the last updates of its parameters have arrived
  };
  struct Place {
    std::size_t bucket, slot;
  };
  /// The first number that is not finite, in the order of buckets.
  struct Bad {
    std::int64_t bucket = -1, element = 0;
    double value = 0;
  };

  void make_buckets(const std::vector<std::size_t>& order);
  /// Returns the memory of a parameter's gradient in its bucket, for this shard.
  Tensor slot_of(std::size_t index);
  void take(std::size_t index, const Tensor& gradient);
  void complete(Bucket& bucket);
  /// Makes the sums visible to kernels that this thread launches later. Returns a ticket.
  int hand_over();
  void hand_out_gradients(int ticket);
  Bad first_bad(int ticket) const;
  /// Returns true if ranks must exchange which parameters were used, because the sums do not contain it.
  bool tells_use() const { return options_.zero || options_.hook; }
  Bad tell_use(Bad bad);
  std::vector<GradientBucket::Entry> entries_of(const BucketPlan& plan) const;
  std::string text_of(const Bad& bad) const;
  std::optional<Share> share_of(std::size_t index, int rank) const;
  struct Updates;
  Updates updates_of(Bucket& bucket);
  void share(std::vector<Bucket*> buckets);
  void adopt_ready_order();
  void release_shuffled(bool all);

  Communicator& comm_;
  const int shards_;
  const ShardRange range_;
  ReducerOptions options_;
  std::vector<NamedTensor> parameters_;
  std::vector<Bucket> buckets_;
  std::vector<Place> places_;
  const Tensor halted_;
  // The parameters that had a gradient in this round: on this rank during the round, on any rank at its end.
  std::vector<bool> used_;
  std::vector<bool> updated_;  // used parameters that this rank has updated and not sent yet
  int shards_done_ = 0;
  bool began_ = false;
  std::size_t launched_ = 0;
  std::vector<std::size_t> ready_order_;  // order of shard 0's gradients in the first round that had some
  bool planned_from_order_ = false;
  std::chrono::nanoseconds exposed_{0};
  std::shared_ptr<std::chrono::nanoseconds> exposed_in_reads_ = std::make_shared<std::chrono::nanoseconds>(0);
  struct Held {
    std::size_t index;
    Tensor gradient;
  };
  std::vector<Held> held_;  // gradients that shuffle_ready holds back
  std::uint64_t draws_ = 0;
};

}  // namespace trireme
