// For modules that compute several things in one product.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor/tensor.h"

namespace trireme::nn {

/// x cut along `dim` into `count` equal views, as one recorded op: its gradient is put together once, where
/// that of single views would be as many times as large. Not to be changed in place.
std::vector<Tensor> pieces(const Tensor& x, int dim, std::int64_t count);

}  // namespace trireme::nn
