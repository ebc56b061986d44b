// One model as a rank holds it: its reducer, its running statistics, its optimizers.
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

/// What a model is called where its user gives it no name.
inline constexpr const char* kDefaultModelName = "model";

/// What models that train together share: ranks, shards and the place of each in the step. The training loop
/// owns it and drives rounds: begin_round(); for each local shard begin_shard(), backward, end_shard().
/// Any replica may then be finished, by its optimizer or by the loop, in an order that all ranks share.
///
/// In a round every replica's gradients travel once, whether they are used or not. The order of launches is
/// the same on all ranks whatever their graphs look like: a replica's buckets in the order of their indices,
/// and no bucket of a replica before all those of the replicas wrapped earlier. So wrap first the model whose
/// gradients are there first: the one nearer to the loss.
class DataParallelContext : public nn::StatisticsSink {
 public:
  ~DataParallelContext() override;
  Communicator& comm() const { return *comm_; }
  /// Of what lies on the models' device.
  Communicator& gradient_comm() const { return gradient_comm_ ? *gradient_comm_ : *comm_; }
  /// Where models and batches live.
  Device device() const { return gradient_comm().device(); }
  int shards() const { return shards_; }
  /// Of a model: each has a communication hook of its own.
  ReducerOptions reducer_options() const {
    ReducerOptions options = reducer_options_;
    if (make_hook_) options.hook = make_hook_();
    return options;
  }
  /// Shares of this rank.
  ShardRange shard_range() const { return shards_of_rank(shards_, comm_->size(), comm_->rank()); }

  /// Takes statistics of wrapped models; others are left to the module, as without data parallel training.
  bool observe(const Tensor& running, const Tensor& value, double momentum) override;

 protected:
  DataParallelContext() = default;
  /// `step` is for error messages.
  void begin_round(std::int64_t step);
  /// `weight`: samples of the shard over the mean number of samples of all shards.
  void begin_shard(float weight);
  void end_shard();

  Communicator* comm_ = nullptr;
  Communicator* gradient_comm_ = nullptr;  ///< null: comm_
  nn::BatchSync* batch_sync_ = nullptr;    ///< null: each shard has batch statistics of its own
  int shards_ = 1;
  ReducerOptions reducer_options_;                        ///< without a hook
  std::function<std::shared_ptr<CommHook>()> make_hook_;  ///< null: none
  std::vector<std::shared_ptr<Replica>> replicas_;        ///< in the order of wrapping

 private:
  friend class DistributedDataParallel;
  friend class Replica;
  void add(std::shared_ptr<Replica> replica);
  void remove(const std::shared_ptr<Replica>& replica);
  void launch_ready();
};

/// Made by DistributedDataParallel, driven by its context. One thread.
class Replica final : public GradientSource, public std::enable_shared_from_this<Replica> {
 public:
  /// Collective: rank 0's values become everyone's. Moves the model to the context's device.
  Replica(nn::Module& model, DataParallelContext& context, std::string name);
  /// Hooks the parameters; separate from construction because hooks refer to the shared object.
  void hook_parameters();
  void set_hook(std::shared_ptr<CommHook> hook) { reducer_.set_hook(std::move(hook)); }

  void begin_round(std::int64_t step);
  void begin_shard(float weight);
  void end_shard();
  /// Sends complete buckets on their way; true if all are.
  bool launch_ready();
  /// After the last shard's launches.
  void launch_statistics();
  /// After finish() and the optimizers' steps, if there were any.
  void end_round() { reducer_.share_all_updates(); }
  /// Gradients that come from now on are not this replica's business.
  void close() { open_ = false; }

  /// Ends the round for this model: its gradients are there, its statistics applied. A gradient that no shard
  /// of any rank had is undefined.
  void finish() override;
  const std::int64_t* finish_later() override;
  /// Throws what finish_later() left open in steps up to this one.
  void check_up_to(std::int64_t step);
  std::optional<Share> share_of(const Tensor& parameter) const override;
  Tensor gradient_of(const Tensor& parameter) const override;
  void complete_squares(std::span<const Tensor> parameters, std::span<double> chunks) override;
  void updated(std::span<const Tensor> parameters) override;
  void attach(optim::Optimizer& optimizer) override;
  void detach(optim::Optimizer& optimizer) override;
  /// False if `running` is none of this model's statistics.
  bool observe(const Tensor& running, const Tensor& value, double momentum);

  const std::string& name() const { return name_; }
  /// Those that wanted gradients when the model was wrapped.
  const std::vector<NamedTensor>& parameters() const { return trained_; }
  /// Parameters and buffers: "model.<path>".
  std::vector<NamedTensor> weights() const;
  /// Everything that a checkpoint holds and a digest covers: "model.<path>", "model.optimizer.<kind>.<path>".
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
  /// Where a sum of statistics has those of an averaged buffer.
  Tensor part_of(const Tensor& statistics, std::size_t buffer) const;

  const std::string name_;
  DataParallelContext& context_;
  const std::vector<NamedTensor> parameters_, buffers_;
  const std::vector<NamedTensor> trained_, averaged_;            // subsets of the two above
  std::unordered_map<const TensorImpl*, std::size_t> index_of_;  // in trained_
  std::vector<std::size_t> offsets_;                             // of each averaged buffer in statistics_
  std::vector<optim::Optimizer*> optimizers_;
  Reducer reducer_;
  ShardSum statistics_;  // values of all averaged buffers; notes: the weight of each, then weight * momentum
  std::vector<float> seen_;  // notes of this shard
  float weight_ = 1;
  std::int64_t step_ = 0;
  bool open_ = false;  // between begin_round() and finish()
  struct Unchecked {
    std::int64_t step;
    int ticket;  // of the reducer
  };
  std::deque<Unchecked> unchecked_;  // two at most
};

}  // namespace trireme
