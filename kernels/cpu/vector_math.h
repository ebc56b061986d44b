// Transcendental functions of float32 that compilers turn into vector instructions: no branch, no call, no
// table. An element's bits do not depend on its place in a vector. Other types go to the C library. A file
// that loops over them is compiled with -fno-trapping-math (kernels/CMakeLists.txt), without which GCC
// branches. Include only from kernels/cpu.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace trireme::cpu {

/// e^x within 1 ulp, for all x: 0, subnormal numbers, infinity and NaN as they should be.
inline float fast_exp(float x) {
  constexpr float kShift = 0x1.8p23f;  // adding it rounds to a whole number, which the low bits then hold
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  // x = n ln 2 + r with |r| <= ln 2 / 2; the upper part of ln 2 has few enough bits for exact products.
  const float shifted = x * 1.44269504f + kShift, n = shifted - kShift;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  // (e^r - 1 - r) / r^2, fitted for the smallest largest error of e^r.
  const float p =
      (((0.00138145394f * r + 0.00836874545f) * r + 0.041668389f) * r + 0.166665211f) * r + 0.49999994f;
  const float y = 1.0f + (r + r * r * p);
  // 2^n in two factors, since n alone can be outside of the exponents' range.
  const auto whole = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kShift);
  const auto half = whole >> 1;
  const auto power = [](std::int32_t e) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(e + 127) << 23);
  };
  return y * power(half) * power(whole - half);
}

/// Within 2.5 ulp.
inline float fast_sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

/// Within 1.5 ulp.
inline float fast_tanh(float x) {
  // Near 0 a polynomial, (tanh x / x - 1) / x^2 fitted over x^2; elsewhere 1 - 2 / (e^2x + 1) loses nothing.
  const float a = std::fabs(x), u = x * x;
  const float p =
      (((-0.00570498686f * u + 0.0206390861f) * u - 0.0537397154f) * u + 0.133314416f) * u - 0.333332807f;
  const float far = 1.0f - 2.0f / (fast_exp(a + a) + 1.0f);
  return std::copysign(a < 0.625f ? a + a * u * p : far, x);
}

inline double fast_exp(double x) { return std::exp(x); }
inline double fast_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline double fast_tanh(double x) { return std::tanh(x); }

}  // namespace trireme::cpu
