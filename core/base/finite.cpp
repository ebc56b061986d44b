#include "core/base/finite.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace trireme {

template <class T>
std::size_t first_not_finite(const void* elements, std::size_t count) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr std::size_t kBlock = 4096;
  const T infinity = std::numeric_limits<T>::infinity();
  Bits exponent;
  std::memcpy(&exponent, &infinity, sizeof exponent);
  const auto* bytes = static_cast<const char*>(elements);
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t end = std::min(count, begin + kBlock);
    Bits worst = 0;  // a maximum rather than a branch, so that the compiler can use vectors
    for (std::size_t i = begin; i < end; ++i) {
      Bits bits;
      std::memcpy(&bits, bytes + i * sizeof(T), sizeof bits);
      worst = std::max<Bits>(worst, bits & exponent);
    }
    if (worst < exponent) continue;
    for (std::size_t i = begin; i < end; ++i) {
      T value;
      std::memcpy(&value, bytes + i * sizeof(T), sizeof value);
      if (!std::isfinite(value)) return i;
    }
  }
  return count;
}

template std::size_t first_not_finite<float>(const void*, std::size_t);
template std::size_t first_not_finite<double>(const void*, std::size_t);

}  // namespace trireme
