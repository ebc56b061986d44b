#include "kernels/finite.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace trireme {

namespace {

/// A number is not finite when all bits of its exponent are set.
template <class Bits>
std::size_t first_with(const void* elements, std::size_t count, Bits exponent) {
  constexpr std::size_t kBlock = 4096;
  const auto* bytes = static_cast<const char*>(elements);
  const auto bits_of = [&](std::size_t i) {
    Bits bits;
    std::memcpy(&bits, bytes + i * sizeof bits, sizeof bits);
    return static_cast<Bits>(bits & exponent);
  };
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t end = std::min(count, begin + kBlock);
    Bits worst = 0;  // a maximum rather than a branch, so that the compiler can use vectors
    for (std::size_t i = begin; i < end; ++i) worst = std::max(worst, bits_of(i));
    if (worst < exponent) continue;
    for (std::size_t i = begin; i < end; ++i)
      if (bits_of(i) == exponent) return i;
  }
  return count;
}

}  // namespace

std::size_t first_not_finite(const void* elements, std::size_t count, DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return first_with<std::uint32_t>(elements, count, 0x7f800000);
    case DType::kFloat64:
      return first_with<std::uint64_t>(elements, count, 0x7ff0000000000000);
    case DType::kBFloat16:
      return first_with<std::uint16_t>(elements, count, 0x7f80);
    case DType::kFloat16:
      return first_with<std::uint16_t>(elements, count, 0x7c00);
    default:
      return count;
  }
}

}  // namespace trireme
