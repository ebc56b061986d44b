// Activation checkpointing of modules.
#pragma once

#include <functional>
#include <vector>

#include "core/tensor/tensor.h"

namespace trireme::nn {

/// trireme::recompute for functions that use modules: the second run draws the random numbers of the first
/// (dropout), and leaves running statistics (batch normalization) alone.
Tensor recompute(const std::function<Tensor(const std::vector<Tensor>&)>& fn,
                 const std::vector<Tensor>& inputs);

}  // namespace trireme::nn
