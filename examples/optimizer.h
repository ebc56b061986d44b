// Makes the optimizer that --optimizer names, for all example programs.
#pragma once

#include <memory>
#include <utility>

#include "core/optim/large_batch.h"
#include "core/optim/optimizer.h"
#include "distributed/train/options.h"

namespace trireme {

/// Returns the optimizer that the options name. `adamw` supplies what the options do not contain: the betas
/// (also those of LAMB) and eps.
inline std::unique_ptr<optim::Optimizer> make_optimizer(const JobOptions& o, ParameterList parameters,
                                                        AdamWOptions adamw = {}) {
  adamw.lr = o.lr();
  adamw.weight_decay = o.weight_decay();
  if (o.optimizer() == "adamw") return std::make_unique<optim::AdamW>(std::move(parameters), adamw);
  const optim::LayerwiseOptions layerwise{.lr = o.lr(),
                                          .weight_decay = o.weight_decay(),
                                          .momentum = o.momentum(),
                                          .beta1 = adamw.beta1,
                                          .beta2 = adamw.beta2};
  if (o.optimizer() == "lars") return std::make_unique<optim::LARS>(std::move(parameters), layerwise);
  if (o.optimizer() == "lamb") return std::make_unique<optim::LAMB>(std::move(parameters), layerwise);
  return std::make_unique<optim::SGD>(
      std::move(parameters),
      SgdOptions{.lr = o.lr(), .momentum = o.momentum(), .weight_decay = o.weight_decay()});
}

}  // namespace trireme
