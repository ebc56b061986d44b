// Finds numbers that are infinite or NaN.
#pragma once

#include <cstddef>

#include "kernels/dtype.h"

namespace trireme {

/// Index of the first of `count` elements that is infinite or NaN, or `count`; that for all dtypes but
/// floating point. The elements may lie anywhere.
std::size_t first_not_finite(const void* elements, std::size_t count, DType dtype);

}  // namespace trireme
