// Activation checkpointing of modules.
#pragma once

#include <functional>
#include <vector>

#include "core/tensor/tensor.h"

namespace trireme::nn {

/// Does what trireme::recompute() does, for functions that use modules. The second run draws the random
/// numbers of the first (dropout) and does not update running statistics (batch normalization).
Tensor recompute(const std::function<Tensor(const std::vector<Tensor>&)>& fn,
                 const std::vector<Tensor>& inputs);

}  // namespace trireme::nn
