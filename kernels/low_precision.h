// 16-bit floating point numbers. They are storage types; arithmetic is done in float32.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/host_device.h"

namespace trireme {

/// The upper half of a float32, rounded to nearest, ties to even.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  TRIREME_HOST_DEVICE BFloat16(float value) {
    const auto wide = std::bit_cast<std::uint32_t>(value);
    if (value != value)
      bits = static_cast<std::uint16_t>((wide >> 16) | 0x40);  // rounding could turn a NaN into infinity
    else
      bits = static_cast<std::uint16_t>((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
  }
  TRIREME_HOST_DEVICE operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

/// IEEE 754 binary16.
struct Float16 {
  std::uint16_t bits = 0;

  Float16() = default;
  TRIREME_HOST_DEVICE Float16(float value);
  TRIREME_HOST_DEVICE operator float() const;
};

/// Conversions for compilers and devices that have no 16-bit floating point type.
namespace float16 {

TRIREME_HOST_DEVICE constexpr std::uint16_t from_float(float value) {
  const auto wide = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(wide >> 16 & 0x8000);
  const std::uint32_t size = wide & 0x7fffffff;
  if (size > 0x7f800000) return static_cast<std::uint16_t>(sign | 0x7e00 | (size >> 13 & 0x3ff));  // NaN
  if (size >= 0x477ff000)
    return static_cast<std::uint16_t>(sign | 0x7c00);  // 65520 and more round to infinity
  if (size < 0x38800000) {
    // Subnormal: the sum has the digits, rounded to nearest even, at its end.
    const float shifted = std::bit_cast<float>(size) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000));
  }
  const std::uint32_t rounded = size + 0xfff + (size >> 13 & 1);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}

TRIREME_HOST_DEVICE constexpr float to_float(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16, size = bits & 0x7fff;
  if (size >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (size & 0x3ff) << 13);
  if (size >= 0x400) return std::bit_cast<float>(sign | ((size << 13) + 0x38000000));
  const float value = static_cast<float>(size) * 0x1p-24f;
  return sign ? -value : value;
}

}  // namespace float16

#if defined(__CUDACC__)
inline Float16::Float16(float value) : bits(float16::from_float(value)) {}
inline Float16::operator float() const { return float16::to_float(bits); }
#elif defined(__FLT16_MANT_DIG__)
inline Float16::Float16(float value) : bits(std::bit_cast<std::uint16_t>(static_cast<_Float16>(value))) {}
inline Float16::operator float() const { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
#else
#error "this compiler has no _Float16: use GCC 12 or Clang 15 or later"
#endif

/// The type in which kernels compute with elements of type T.
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
