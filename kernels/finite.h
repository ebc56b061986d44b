// Finds numbers that are infinite or NaN.
#pragma once

#include <cstddef>

#include "kernels/dtype.h"

namespace trireme {

/// Returns the index of the first of `count` elements that is infinite or NaN, or `count` if there is none or
/// the dtype is not floating point. The elements need not be aligned.
std::size_t first_not_finite(const void* elements, std::size_t count, DType dtype);

}  // namespace trireme
