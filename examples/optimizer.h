// The optimizer that --optimizer names, for all programs.
#pragma once

#include <memory>
#include <utility>

#include "core/optim/optimizer.h"
#include "distributed/train/options.h"

namespace trireme {

/// `adamw` gives what flags do not: betas, eps.
inline std::unique_ptr<optim::Optimizer> make_optimizer(const JobOptions& o, ParameterList parameters,
                                                        AdamWOptions adamw = {}) {
  adamw.lr = o.lr();
  adamw.weight_decay = o.weight_decay();
  if (o.optimizer() == "adamw") return std::make_unique<optim::AdamW>(std::move(parameters), adamw);
  return std::make_unique<optim::SGD>(
      std::move(parameters),
      SgdOptions{.lr = o.lr(), .momentum = o.momentum(), .weight_decay = o.weight_decay()});
}

}  // namespace trireme
