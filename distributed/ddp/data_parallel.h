// DistributedDataParallel: wraps a model so that its gradients are means over the global batch.
#pragma once

#include <memory>
#include <string>

#include "distributed/ddp/replica.h"

namespace trireme {

/// As PyTorch's class of that name. The model must outlive it and keep its parameters, which move to the
/// job's device. Construction is collective, and so is every step of the job: all ranks wrap the same models
/// in the same order.
///
/// Gradients are summed per shard, so the result has the same bits at any number of ranks (see DESIGN section
/// 3).
class DistributedDataParallel {
 public:
  /// `name` tells several models of one job apart, in checkpoints, errors and random numbers.
  DistributedDataParallel(nn::Module& model, DataParallelContext& context,
                          std::string name = kDefaultModelName)
      : model_(model),
        context_(context),
        replica_(std::make_shared<Replica>(model, context, std::move(name))) {
    replica_->hook_parameters();
    context_.add(replica_);
  }
  ~DistributedDataParallel() { context_.remove(replica_); }
  DistributedDataParallel(const DistributedDataParallel&) = delete;
  DistributedDataParallel& operator=(const DistributedDataParallel&) = delete;

  /// What makes the mean of gradients, instead of --comm-hook; before the first step, the same on all ranks.
  /// As PyTorch's.
  void register_comm_hook(std::shared_ptr<CommHook> hook) { replica_->set_hook(std::move(hook)); }
  void register_comm_hook(std::function<void(GradientBucket&)> reduce) {
    register_comm_hook(make_comm_hook(std::move(reduce)));
  }

  Tensor operator()(const Tensor& x) { return model_(x); }
  nn::Module& module() { return model_; }
  /// Those that want gradients when the model is wrapped; the others stay as they are. For an optimizer: its
  /// step() applies the reduced gradients.
  ParameterList parameters() { return {replica_->parameters(), replica_}; }

 private:
  nn::Module& model_;
  DataParallelContext& context_;
  std::shared_ptr<Replica> replica_;
};

}  // namespace trireme
