// Gathers gradients of shards into buckets and sums them over all shards while backward goes on.
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
  DType dtype = DType::kFloat32;  ///< in which gradients are summed and travel: see SumOptions
  std::size_t bucket_bytes = 0;   ///< of float32 at most; 0: what is best over `link`
  LinkCost link;
  bool overlap = true;  ///< false: buckets travel only after the last shard's backward
  /// ZeRO, stage 1 (S. Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter
  /// models", 2020): each rank gets a share of every bucket, updates it, and tells the others.
  bool zero = false;
  std::shared_ptr<CommHook> hook;  ///< makes the mean gradient; null: the tree, or the library
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
///
/// With `zero`, no parameter has a grad after finish(): gradient_share() is what this rank gets, and
/// share_updates() brings everyone's new values to all. Buckets are planned once then, since optimizers keep
/// state for their shares.
class Reducer {
 public:
  Reducer(Communicator& comm, int shards, std::vector<NamedTensor> parameters, ReducerOptions options);
  /// Before the first shard.
  void set_hook(std::shared_ptr<CommHook> hook);
  std::vector<StateTensor> hook_state() const;
  const ReducerOptions& options() const { return options_; }

  void begin_shard();
  /// The gradient of parameter `index` in this shard; further ones in the same shard are added while its
  /// bucket has not left, and an error after that.
  void add(std::size_t index, Tensor gradient);
  void end_shard();
  /// Sends the buckets that are complete on their way, in the order of their indices. True if all are.
  bool launch_ready();
  /// Waits for all buckets and sets the grads (views of bucket memory, valid until the next round's first
  /// bucket leaves). Returns a text naming the first parameter whose summed gradient is not finite, the same
  /// on all ranks; else "".
  std::string finish();
  /// Whether finish_later() can be used: on a device, but where ranks tell each other more than sums do, and
  /// not in the first round. The same on all ranks.
  bool can_finish_later() const;
  /// As finish(), but the host does not wait for the device, save for what no rank may have used. The grads
  /// are there for what this thread enqueues from now on. The rest is said for the returned ticket, until the
  /// round after the next launches its buckets; updates are to be left out meanwhile if halted() says so.
  int finish_later();
  /// Waits for the device, and returns the text for what finish_later() left open.
  std::string check(int ticket);
  /// int64, on the device: not 0 if a gradient of a round that is not checked yet is not finite.
  std::int64_t* halted() const { return halted_.view().as<std::int64_t>(); }

  /// With `zero`: what this rank gets of parameter `index`, the same for the life of the reducer; nothing
  /// without it, and of a parameter without elements.
  std::optional<Share> share_of(std::size_t index) const { return share_of(index, comm_.rank()); }
  /// Its mean gradient after finish(), in one dimension; undefined if no rank had one.
  Tensor gradient_share(std::size_t index) const;
  /// As GradientSource::complete_squares(), of these parameters.
  void complete_squares(std::span<const std::size_t> parameters, std::span<double> chunks);
  /// This rank's shares of these parameters have new values. They are sent to all with those of the other
  /// parameters of their bucket that had gradients, and arrive while the program goes on: who reads one of
  /// them before it is there waits for it, and it is an error to read one that is not sent yet. On a GPU it
  /// is there when this returns.
  void share_updates(std::span<const std::size_t> parameters);
  /// Sends what still waits for others of its bucket.
  void share_all_updates();

  /// Time that this rank has waited for communication, in all; the second part of it: for new values of
  /// parameters.
  std::chrono::nanoseconds exposed() const { return exposed_ + *exposed_in_reads_; }
  std::chrono::nanoseconds exposed_in_reads() const { return *exposed_in_reads_; }

 private:
  struct Bucket {
    BucketPlan plan;
    std::unique_ptr<ShardSum> sum;
    std::vector<bool> ready;  // per tensor of the plan, in this shard
    std::size_t ready_count = 0;
    bool pushed = false;  // in this shard
    // With options_.zero.
    std::vector<std::size_t> cuts;  // of each rank
    bool is_shared = false;         // in this round: the sum has made room for updates
    Event shared;                   // the last updates of its parameters have arrived
  };
  struct Place {
    std::size_t bucket, slot;
  };
  /// The first number of a sum that is not finite, in the order of buckets.
  struct Bad {
    std::int64_t bucket = -1, element = 0;
    double value = 0;
  };

  void make_buckets(const std::vector<std::size_t>& order);
  /// Where the bucket of this shard has the gradient of a parameter.
  Tensor slot_of(std::size_t index);
  void take(std::size_t index, const Tensor& gradient);
  void complete(Bucket& bucket);
  /// Sums are there for what this thread enqueues from now on.
  int hand_over();
  void hand_out_gradients(int ticket);
  Bad first_bad(int ticket) const;
  /// Whether ranks have to tell each other which parameters were used, because sums do not.
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
  std::vector<bool> used_;  // parameters that had a gradient in this round: so far on this rank, then on any
  std::vector<bool> updated_;  // of the used ones, not sent yet
  int shards_done_ = 0;
  bool began_ = false;
  std::size_t launched_ = 0;
  std::vector<std::size_t> ready_order_;  // of shard 0 in the first round that had gradients
  bool planned_from_order_ = false;
  std::chrono::nanoseconds exposed_{0};
  std::shared_ptr<std::chrono::nanoseconds> exposed_in_reads_ = std::make_shared<std::chrono::nanoseconds>(0);
  struct Held {
    std::size_t index;
    Tensor gradient;
  };
  std::vector<Held> held_;  // back by shuffle_ready
  std::uint64_t draws_ = 0;
};

}  // namespace trireme
