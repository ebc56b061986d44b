// For ops of the kind `op_` that have no kernel of their own.
#pragma once

#include "core/tensor/tensor.h"

namespace trireme {

/// copy_ under the name of the in-place op that it stands for.
const Tensor& assign_(const char* name, const Tensor& t, const Tensor& other);

}  // namespace trireme
