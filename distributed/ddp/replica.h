// One model as a rank holds it: its reducer, its running statistics, its optimizers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/nn/module.h"
#include "core/optim/optimizer.h"
#include "distributed/ddp/reducer.h"

namespace trireme {

class Replica;

/// What models that train together share: ranks, shards and the place of each in the step. The training loop
/// owns it.
class DataParallelContext {
 public:
  virtual ~DataParallelContext() = default;
  Communicator& comm() const { return *comm_; }
  int shards() const { return shards_; }
  const ReducerOptions& reducer_options() const { return reducer_options_; }
  /// Shares of this rank.
  ShardRange shard_range() const { return shards_of_rank(shards_, comm_->size(), comm_->rank()); }

 protected:
  DataParallelContext() = default;
  Communicator* comm_ = nullptr;
  int shards_ = 1;
  ReducerOptions reducer_options_;
  std::vector<std::shared_ptr<Replica>> replicas_;

 private:
  friend class DistributedDataParallel;
};

/// Made by DistributedDataParallel, driven by the training loop. One thread.
class Replica final : public GradientSource,
                      public nn::StatisticsSink,
                      public std::enable_shared_from_this<Replica> {
 public:
  /// Collective: rank 0's values become everyone's.
  Replica(nn::Module& model, DataParallelContext& context, std::string name);
  ~Replica() override;
  /// Hooks the parameters; separate from construction because hooks refer to the shared object.
  void hook_parameters();

  /// `step` is for error messages.
  void begin_step(std::int64_t step);
  /// `weight`: samples of the shard over the mean number of samples of all shards.
  void begin_shard(float weight);
  void end_shard();

  void finish() override;
  void attach(optim::Optimizer& optimizer) override;
  void detach(optim::Optimizer& optimizer) override;
  void observe(const Tensor& running, const Tensor& value, double momentum) override;

  const std::string& name() const { return name_; }
  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  /// Everything that a checkpoint holds and a digest covers: "model.<path>", "model.optimizer.<kind>.<path>".
  std::vector<NamedTensor> state() const;
  const Reducer& reducer() const { return reducer_; }

 private:
  void apply_statistics();

  const std::string name_;
  Communicator& comm_;
  std::vector<NamedTensor> parameters_;
  std::vector<NamedTensor> buffers_;
  std::vector<std::size_t> buffer_offsets_;
  std::vector<double> buffer_momentum_;
  std::vector<optim::Optimizer*> optimizers_;
  Reducer reducer_;
  ShardSum statistics_;  // values of all buffers, then for each the weight that was observed
  float weight_ = 1;
  std::int64_t step_ = 0;
  bool finished_ = true;
};

}  // namespace trireme
