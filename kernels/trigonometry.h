// Trigonometric functions of float32 that compilers turn into vector instructions. kernels/vector_math.h says
// how the polynomials were fitted and in which unit errors are given. The C library computes float64.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"

namespace trireme {

namespace vector_math {

/// The largest |x| that quarter_turns() reduces without loss. For larger |x|, the functors of sin, cos and
/// tan (kernels/elementwise.h) call the C library in float64 and round.
inline constexpr float kLargestAngle = 1e6f;

/// An angle count * pi/2 + rest with |rest| <= pi/4.
struct QuarterTurns {
  std::int32_t count;
  float rest;
};

/// Splits an x with |x| <= kLargestAngle into quarter turns and a rest. pi/2 is the sum of two constants, of
/// which the first has so few bits that its product with the count is exact in float64 (W. Cody and W. Waite,
/// "Software manual for the elementary functions", 1980).
TRIREME_INLINE QuarterTurns quarter_turns(float x) {
  constexpr double kShift = 0x1.8p52, kFirst = 1.57079632673412561417, kSecond = 6.07710050650619224932e-11;
  const double count = (x * 0.63661977236758134308 + kShift) - kShift;
  return {static_cast<std::int32_t>(count), static_cast<float>((x - count * kFirst) - count * kSecond)};
}

/// Returns sin r for |r| <= pi/4.
TRIREME_INLINE float sine_near(float r) {
  const float u = r * r;
  const float y = r + r * u * ((-0.000195169778f * u + 0.00833217613f) * u - 0.166666552f);
  return u == 0.0f ? r : y;  // keeps the sign of 0
}
/// Returns cos r for |r| <= pi/4.
TRIREME_INLINE float cosine_near(float r) {
  const float u = r * r;
  return (1.0f - 0.5f * u) + u * u * ((2.44380917e-05f * u - 0.00138873642f) * u + 0.0416666456f);
}

/// Returns sin(x + turns * pi/2) for |x| <= kLargestAngle.
TRIREME_INLINE float sine(float x, std::int32_t turns) {
  const auto [whole, rest] = quarter_turns(x);
  const std::int32_t count = whole + turns;
  const float size = (count & 1) != 0 ? cosine_near(rest) : sine_near(rest);
  return (count & 2) != 0 ? -size : size;
}

/// Returns arcsin a for a in 0..0.5; u is a^2.
TRIREME_INLINE float arcsine_near(float a, float u) {
  const float p =
      (((0.0422305502f * u + 0.0241409857f) * u + 0.045478344f) * u + 0.0749523267f) * u + 0.166667536f;
  return a + a * u * p;
}

/// Returns arctan a for a in 0..1.
TRIREME_INLINE float arctangent_near(float a) {
  const float u = a * a;
  const float p = (((((((-0.00179362227f * u + 0.0109146088f) * u - 0.0311778504f) * u + 0.0579576008f) * u -
                      0.08403451f) *
                         u +
                     0.109521858f) *
                        u -
                    0.142642424f) *
                       u +
                   0.199985489f) *
                      u -
                  0.333332986f;
  return a + a * u * p;
}

// pi/2 and pi, each as the sum of the nearest float and a rest.
inline constexpr float kQuarterTurn = 1.57079637f, kQuarterTurnRest = -4.37113883e-08f;
inline constexpr float kHalfTurn = 3.14159274f, kHalfTurnRest = -8.74227766e-08f;

}  // namespace vector_math

/// Returns sin x within 2 ulp for |x| <= kLargestAngle. Larger |x| are not allowed.
TRIREME_INLINE float near_sin(float x) { return vector_math::sine(x, 0); }
/// Returns cos x within 2 ulp for |x| <= kLargestAngle. Larger |x| are not allowed.
TRIREME_INLINE float near_cos(float x) { return vector_math::sine(x, 1); }
/// Returns tan x within 4 ulp for |x| <= kLargestAngle. Larger |x| are not allowed.
TRIREME_INLINE float near_tan(float x) {
  const auto [count, rest] = vector_math::quarter_turns(x);
  const float s = vector_math::sine_near(rest), c = vector_math::cosine_near(rest);
  return (count & 1) != 0 ? -c / s : s / c;
}

/// Returns arcsin x within 3 ulp, and NaN outside of -1..1.
TRIREME_INLINE float fast_asin(float x) {
  // Above 1/2, arcsin a = pi/2 - 2 arcsin sqrt((1 - a) / 2).
  const float a = std::fabs(x), u = a > 0.5f ? 0.5f * (1.0f - a) : a * a;
  const float near = vector_math::arcsine_near(a > 0.5f ? std::sqrt(u) : a, u);
  const float far = vector_math::kQuarterTurn - (2.0f * near - vector_math::kQuarterTurnRest);
  return std::copysign(a > 0.5f ? far : near, x);
}

/// Returns arccos x within 2 ulp, and NaN outside of -1..1.
TRIREME_INLINE float fast_acos(float x) {
  // arccos x = pi/2 - arcsin x. Above 1/2, arccos a = 2 arcsin sqrt((1 - a) / 2).
  const float a = std::fabs(x), u = a > 0.5f ? 0.5f * (1.0f - a) : a * a;
  const float near = vector_math::arcsine_near(a > 0.5f ? std::sqrt(u) : a, u);
  const float middle = vector_math::kQuarterTurn - (std::copysign(near, x) - vector_math::kQuarterTurnRest);
  const float left = vector_math::kHalfTurn - (2.0f * near - vector_math::kHalfTurnRest);
  return a > 0.5f ? (x > 0.0f ? 2.0f * near : left) : middle;
}

/// Returns arctan x within 2 ulp.
TRIREME_INLINE float fast_atan(float x) {
  // Above 1, arctan a = pi/2 - arctan 1/a.
  const float a = std::fabs(x), near = vector_math::arctangent_near(a > 1.0f ? 1.0f / a : a);
  const float far = vector_math::kQuarterTurn - (near - vector_math::kQuarterTurnRest);
  return std::copysign(a > 1.0f ? far : near, x);
}

/// Returns the angle of the point (x, y) within 3 ulp. Zeros and infinities follow IEEE 754-2019,
/// section 9.2.1.
TRIREME_INLINE float fast_atan2(float y, float x) {
  const float up = std::fabs(y), right = std::fabs(x);
  const bool steep = up > right;
  const float small = steep ? right : up, large = steep ? up : right;
  const float slope = small == large ? (large == 0.0f ? 0.0f : 1.0f) : small / large;
  const float near = vector_math::arctangent_near(slope);
  const float angle = steep ? vector_math::kQuarterTurn - (near - vector_math::kQuarterTurnRest) : near;
  // The point lies to the left also where x is -0.
  const bool left = std::copysign(1.0f, x) < 0.0f;
  const float turned = vector_math::kHalfTurn - (angle - vector_math::kHalfTurnRest);
  const float result = std::copysign(left ? turned : angle, y);
  return x != x || y != y ? x + y : result;
}

TRIREME_INLINE double fast_asin(double x) { return std::asin(x); }
TRIREME_INLINE double fast_acos(double x) { return std::acos(x); }
TRIREME_INLINE double fast_atan(double x) { return std::atan(x); }
TRIREME_INLINE double fast_atan2(double y, double x) { return std::atan2(y, x); }

}  // namespace trireme
