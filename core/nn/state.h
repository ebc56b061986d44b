// Functions on all tensors of a module: saving and loading, freezing, converting.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/nn/module.h"

namespace trireme::nn {

/// The names and tensors of a module, in its visiting order.
using StateDict = std::vector<NamedTensor>;

/// Returns all parameters and buffers. The tensors share the module's memory and do not require grad; clone()
/// them to keep their present values. A tensor that the module holds several times is listed under each of
/// its names.
StateDict state_dict(Module& module);

/// The names that only one of a dictionary and a module has.
struct LoadResult {
  std::vector<std::string> missing;     ///< in the module only
  std::vector<std::string> unexpected;  ///< in the dictionary only
};

/// Copies the dictionary's tensors into the module's, in place, converted to their dtypes.
/// For a tensor that the module holds several times, one name is enough. Throws Error(kCheckpoint) for wrong
/// shapes, names given twice and, if strict, missing and unexpected names. The message is one line that lists
/// all of them, and the module is unchanged.
LoadResult load_state_dict(Module& module, const StateDict& dict, bool strict = true);

/// Makes all parameters require grad, or freezes them. Optimizers and data parallel wrappers ignore
/// parameters that get no gradient. Freeze parameters before a wrapper is constructed.
void requires_grad_(Module& module, bool on = true);

/// Makes the grads of all parameters undefined.
void zero_grad(Module& module);

/// Returns the number of elements of all parameters. Shared parameters count once.
std::int64_t num_parameters(Module& module);

/// Replaces all floating point parameters and buffers by ones converted to `dtype`, without grads. Shared
/// tensors stay shared. Call it before the parameters are given to optimizers and wrappers.
void to(Module& module, DType dtype);

}  // namespace trireme::nn
