// Finds numbers that are infinite or NaN.
#pragma once

#include <cstddef>

namespace trireme {

/// Index of the first of `count` elements that is infinite or NaN, or `count`. T is float or double; the
/// elements may lie anywhere.
template <class T>
std::size_t first_not_finite(const void* elements, std::size_t count);

extern template std::size_t first_not_finite<float>(const void*, std::size_t);
extern template std::size_t first_not_finite<double>(const void*, std::size_t);

}  // namespace trireme
