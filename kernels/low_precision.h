// 16-bit floating point numbers: storage only, arithmetic is float32's.
#pragma once

#include <bit>
#include <cstdint>

namespace trireme {

/// The upper half of a float32, rounded to nearest, ties to even.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  BFloat16(float value) {
    const auto wide = std::bit_cast<std::uint32_t>(value);
    if (value != value)
      bits = static_cast<std::uint16_t>((wide >> 16) | 0x40);  // rounding could turn a NaN into infinity
    else
      bits = static_cast<std::uint16_t>((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
  }
  operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

/// IEEE 754 binary16.
struct Float16 {
  std::uint16_t bits = 0;

  Float16() = default;
  Float16(float value);
  operator float() const;
};

#if defined(__FLT16_MANT_DIG__)
inline Float16::Float16(float value) : bits(std::bit_cast<std::uint16_t>(static_cast<_Float16>(value))) {}
inline Float16::operator float() const { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
#else
#error "this compiler has no _Float16: use GCC 12 or Clang 15 or later"
#endif

/// What elements of type T are computed in.
template <class T>
struct ComputeOf {
  using type = T;
};
template <>
struct ComputeOf<BFloat16> {
  using type = float;
};
template <>
struct ComputeOf<Float16> {
  using type = float;
};
template <class T>
using Compute = typename ComputeOf<T>::type;

}  // namespace trireme
