// Splits the result of one matrix product that computes several tensors.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor/tensor.h"

namespace trireme::nn {

/// Splits x along `dim` into `count` equal views, as one recorded op. Its gradient is assembled once, while
/// separate views would each make a gradient of x's size. The views must not be changed in place.
std::vector<Tensor> pieces(const Tensor& x, int dim, std::int64_t count);

}  // namespace trireme::nn
