// Replica holds one rank's copy of a model, with its reducer, running statistics and optimizers.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/nn/batch_sync.h"
#include "core/nn/module.h"
#include "core/optim/optimizer.h"
#include "distributed/ddp/reducer.h"

namespace trireme {

class Replica;

/// The name of a model whose user gives it none.
inline constexpr const char* kDefaultModelName = "model";

/// Coordinates the models that train together: it holds their communicators, the number of shards and the
/// order of the models. The training loop owns it and drives rounds. A round is begin_round(), and for each
/// local shard begin_shard(), backward and end_shard(). Then the optimizers or the loop finish the replicas,
/// in the same order on all ranks.
///
/// In a round every replica's gradients are reduced once, even if they are not used. The order of launches is
/// the same on all ranks and does not depend on their graphs. A replica's buckets are launched in the order
/// of their indices, and only after all buckets of the replicas that were wrapped earlier. So wrap first the
/// model whose gradients are ready first, which is the one nearer to the loss.
class DataParallelContext : public nn::StatisticsSink {
 public:
  ~DataParallelContext() override;
  Communicator& comm() const { return *comm_; }
  /// Returns the communicator for buffers on the models' device.
  Communicator& gradient_comm() const { return gradient_comm_ ? *gradient_comm_ : *comm_; }
  /// Returns the device of models and batches.
  Device device() const { return gradient_comm().device(); }
  int shards() const { return shards_; }
  /// Returns the reducer options of one model. Every call makes a new comm hook, because models do not share
  /// hooks.
  ReducerOptions reducer_options() const {
    ReducerOptions options = reducer_options_;
    if (make_hook_) options.hook = make_hook_();
    return options;
  }
  /// Returns the range of shards that this rank computes.
  ShardRange shard_range() const { return shards_of_rank(shards_, comm_->size(), comm_->rank()); }

  /// Takes the batch statistics of a wrapped model and returns true. Returns false for other models; the
  /// module then updates its running statistics itself, as it does without data-parallel training.
  bool observe(const Tensor& running, const Tensor& value, double momentum) override;

 protected:
  DataParallelContext() = default;
  /// Begins a round in all replicas. `step` appears in error messages.
  void begin_round(std::int64_t step);
  /// Begins a local shard in all replicas. `weight` is the shard's number of samples divided by the mean
  /// number of samples of all shards.
  void begin_shard(float weight);
  void end_shard();

  Communicator* comm_ = nullptr;
  Communicator* gradient_comm_ = nullptr;  ///< null: comm_ is used
  nn::BatchSync* batch_sync_ = nullptr;    ///< null: each shard uses its own batch statistics
  int shards_ = 1;
  ReducerOptions reducer_options_;                        ///< `hook` is not set here
  std::function<std::shared_ptr<CommHook>()> make_hook_;  ///< null: models have no comm hook
  std::vector<std::shared_ptr<Replica>> replicas_;        ///< in the order of wrapping

 private:
  friend class DistributedDataParallel;
  friend class Replica;
  void add(std::shared_ptr<Replica> replica);
  void remove(const std::shared_ptr<Replica>& replica);
  void launch_ready();
};

/// One rank's copy of a model. DistributedDataParallel creates it and its context drives it. Only one thread
/// may use it.
class Replica final : public GradientSource, public std::enable_shared_from_this<Replica> {
 public:
  /// Moves the model to the context's device and broadcasts rank 0's values to all ranks. Collective.
  Replica(nn::Module& model, DataParallelContext& context, std::string name);
  /// Registers the gradient hooks of the parameters. The constructor cannot do this, because hooks hold a
  /// weak pointer to this object.
  void hook_parameters();
  void set_hook(std::shared_ptr<CommHook> hook) { reducer_.set_hook(std::move(hook)); }

  void begin_round(std::int64_t step);
  void begin_shard(float weight);
  void end_shard();
  /// Launches the reduction of complete buckets. Returns true if all buckets have been launched.
  bool launch_ready();
  /// Launches the sum of the running statistics once all local shards have been pushed. Call it after the
  /// last shard's buckets have been launched.
  void launch_statistics();
  /// Ends the round after finish() and the steps of optimizers, if there were any. Sends updated parameters
  /// that have not been sent yet.
  void end_round() { reducer_.share_all_updates(); }
  /// Makes this replica ignore all later gradients.
  void close() { open_ = false; }

  /// Ends the round for this model: sets the reduced gradients and applies the running statistics. A
  /// parameter without a gradient in any shard of any rank has an undefined gradient then. Throws AgreedError
  /// if a gradient is not finite.
  void finish() override;
  const std::int64_t* finish_later() override;
  /// Checks the gradients of steps up to `step` that finish_later() did not check. Throws AgreedError if one
  /// is not finite.
  void check_up_to(std::int64_t step);
  std::optional<Share> share_of(const Tensor& parameter) const override;
  Tensor gradient_of(const Tensor& parameter) const override;
  void complete_squares(std::span<const Tensor> parameters, std::span<double> chunks) override;
  void updated(std::span<const Tensor> parameters) override;
  void attach(optim::Optimizer& optimizer) override;
  void detach(optim::Optimizer& optimizer) override;
  /// Adds a shard's batch statistics to the sum for `running`. Returns false if `running` is not a running
  /// statistic of this model.
  bool observe(const Tensor& running, const Tensor& value, double momentum);

  const std::string& name() const { return name_; }
  /// Returns the parameters that required gradients when the model was wrapped.
  const std::vector<NamedTensor>& parameters() const { return trained_; }
  /// Returns all parameters and buffers, named "model.<path>".
  std::vector<NamedTensor> weights() const;
  /// Returns all tensors that a checkpoint holds and a digest covers, named "model.<path>" or
  /// "model.optimizer.<kind>.<path>".
  std::vector<StateTensor> state() const;
  const Reducer& reducer() const { return reducer_; }
  /// Returns the learning rate that the first of the model's optimizers used in its latest step; NaN if none
  /// has made one.
  double last_lr() const;

 private:
  void broadcast_state();
  std::vector<std::size_t> indices_of(std::span<const Tensor> parameters) const;
  void apply_statistics();
  void throw_if_bad(std::int64_t step, const std::string& bad) const;
  /// Returns the part of `statistics` that belongs to averaged buffer number `buffer`.
  Tensor part_of(const Tensor& statistics, std::size_t buffer) const;

  const std::string name_;
  DataParallelContext& context_;
  const std::vector<NamedTensor> parameters_, buffers_;
  const std::vector<NamedTensor> trained_, averaged_;            // subsets of the two above
  std::unordered_map<const TensorImpl*, std::size_t> index_of_;  // parameter's index in trained_
  std::vector<std::size_t> offsets_;  // offset of each averaged buffer in statistics_
  std::vector<optim::Optimizer*> optimizers_;
  Reducer reducer_;
  ShardSum statistics_;  // values of all averaged buffers; notes: the weight of each, then weight * momentum
  std::vector<float> seen_;  // the notes that this shard will push
  float weight_ = 1;
  std::int64_t step_ = 0;
  bool open_ = false;  // between begin_round() and finish()
  struct Unchecked {
    std::int64_t step;
    int ticket;  // the reducer's ticket for this step
  };
  std::deque<Unchecked> unchecked_;  // steps that finish_later() did not check, at most two
};

}  // namespace trireme
