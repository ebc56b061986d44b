// What is done to all tensors of a module at once: saving and loading, freezing, converting.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/nn/module.h"

namespace trireme::nn {

/// Names and tensors, in the module's visiting order.
using StateDict = std::vector<NamedTensor>;

/// All parameters and buffers. The tensors share the module's memory and want no gradient; clone() them to
/// keep what they are now. One that the module holds several times is listed under each of its names.
StateDict state_dict(Module& module);

/// What a dictionary and a module do not share.
struct LoadResult {
  std::vector<std::string> missing;     ///< in the module only
  std::vector<std::string> unexpected;  ///< in the dictionary only
};

/// Copies the dictionary's tensors into the module's, in place, converted to their dtypes.
/// Of a tensor that the module holds several times one name is enough. Throws Error(kCheckpoint) with all
/// missing and unexpected names (if strict), wrong shapes and names given twice in one line, and then nothing
/// was changed.
LoadResult load_state_dict(Module& module, const StateDict& dict, bool strict = true);

/// Freezes all parameters, or lets them be trained. Optimizers and data parallel wrappers leave those alone
/// that get no gradient; freeze before a wrapper is made.
void requires_grad_(Module& module, bool on = true);

/// All parameters' grads become undefined.
void zero_grad(Module& module);

/// Elements of all parameters, shared ones once.
std::int64_t num_parameters(Module& module);

/// Replaces all floating point parameters and buffers by converted ones (shared ones stay shared), without
/// their grads. Call it before optimizers and wrappers take the parameters.
void to(Module& module, DType dtype);

}  // namespace trireme::nn
