// DistributedDataParallel wraps a model so that its gradients are means over the global batch.
#pragma once

#include <memory>
#include <string>

#include "distributed/ddp/replica.h"

namespace trireme {

/// Trains a model data-parallel, like PyTorch's class of the same name. The model must outlive this object
/// and keep its parameters, which move to the job's device. Construction is collective, and so is every step
/// of the job: all ranks wrap the same models in the same order.
///
/// Gradients are summed per shard, so the result has the same bits at any number of ranks (see DESIGN section
/// 3).
class DistributedDataParallel {
 public:
  /// Wraps `model`. `name` distinguishes several models of one job in checkpoints, errors and random numbers.
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

  /// Sets the comm hook that computes the mean of gradients, in place of --comm-hook. Call this before the
  /// first step, with the same hook on all ranks, as in PyTorch.
  void register_comm_hook(std::shared_ptr<CommHook> hook) { replica_->set_hook(std::move(hook)); }
  void register_comm_hook(std::function<void(GradientBucket&)> reduce) {
    register_comm_hook(make_comm_hook(std::move(reduce)));
  }

  Tensor operator()(const Tensor& x) { return model_(x); }
  nn::Module& module() { return model_; }
  /// Returns the parameters that required gradients when the model was wrapped; the others are not trained.
  /// An optimizer of this list applies the reduced gradients in its step().
  ParameterList parameters() { return {replica_->parameters(), replica_}; }

 private:
  nn::Module& model_;
  DataParallelContext& context_;
  std::shared_ptr<Replica> replica_;
};

}  // namespace trireme
