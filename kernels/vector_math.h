// Transcendental functions of float32 that compilers turn into vector instructions: no branch, no call, no
// table. An element's bits do not depend on its place in a vector, nor on the C library. Other types go to
// the C library. A file that loops over them is compiled with -fno-trapping-math (kernels/CMakeLists.txt),
// without which GCC branches. Polynomials were fitted for the smallest largest error (C. Lawson's iterated
// weights). Errors are those of all arguments, in units of the last place.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/host_device.h"

namespace trireme {

namespace vector_math {

/// 2^e for e in -126..127.
TRIREME_INLINE float power_of_two(std::int32_t e) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(e + 127) << 23);
}

/// e^x = 2^n (1 + rest) with |rest| < 0.42.
struct Exponential {
  std::int32_t n;
  float rest;
};

/// Returns e^r - 1 for |r| <= ln 2 / 2.
TRIREME_INLINE float exponential_near(float r) {
  // (e^r - 1 - r) / r^2
  const float p =
      (((0.00138145394f * r + 0.00836874545f) * r + 0.041668389f) * r + 0.166665211f) * r + 0.49999994f;
  return r + r * r * p;
}

/// For x in -104..89.
TRIREME_INLINE Exponential exponential(float x) {
  constexpr float kShift = 0x1.8p23f;  // adding it rounds to a whole number, which the low bits then hold
  // x = n ln 2 + r with |r| <= ln 2 / 2; the upper part of ln 2 has few enough bits for exact products.
  const float shifted = x * 1.44269504f + kShift, n = shifted - kShift;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  return {std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kShift), exponential_near(r)};
}

/// Returns 2^n (1 + rest) for n in -252..254. It multiplies by two powers of 2, since float32 does not hold
/// 2^n for every such n.
TRIREME_INLINE float scaled_power(std::int32_t n, float rest) {
  const auto half = n >> 1;
  return (1.0f + rest) * power_of_two(half) * power_of_two(n - half);
}

/// n ln 2 + log(1 + f) for f in -0.293..0.415.
TRIREME_INLINE float logarithm(float n, float f) {
  // (log(1 + f) - f + f^2/2) / f^3
  const float p =
      ((((((-0.0763442991f * f + 0.127615504f) * f - 0.131601951f) * f + 0.142017625f) * f - 0.166233565f) *
            f +
        0.200012267f) *
           f -
       0.250008211f) *
          f +
      0.333333317f;
  const float squared = f * f;
  return n * 0.693359375f + (f + (n * -2.12194440e-4f + (squared * f * p - 0.5f * squared)));
}

/// n such that x = 2^n m with m in sqrt(1/2)..sqrt(2); for normal x > 0.
TRIREME_INLINE std::int32_t nearest_exponent(float x) {
  constexpr std::uint32_t kRoot = 0x3f3504f3;  // the bits of sqrt(1/2)
  return static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(x) - kRoot) >> 23;
}

}  // namespace vector_math

/// e^x within 1 ulp, for all x: 0, subnormal numbers, infinity and NaN as they should be.
TRIREME_INLINE float fast_exp(float x) {
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  const auto [n, rest] = vector_math::exponential(x);
  return vector_math::scaled_power(n, rest);
}

/// Returns 2^x within 1.5 ulp; exact for whole numbers.
TRIREME_INLINE float fast_exp2(float x) {
  constexpr float kShift = 0x1.8p23f;
  x = x > 129.0f ? 129.0f : x;
  x = x < -151.0f ? -151.0f : x;
  const float shifted = x + kShift, r = x - (shifted - kShift);
  // (2^r - 1) / r
  const float p = ((((0.000154763009f * r + 0.00134002697f) * r + 0.00961800385f) * r + 0.055503279f) * r +
                   0.240226507f) *
                      r +
                  0.693147182f;
  return vector_math::scaled_power(std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kShift),
                                   r * p);
}

/// e^x - 1 within 1.5 ulp.
TRIREME_INLINE float fast_expm1(float x) {
  const float whole = x;
  x = x > 89.0f ? 89.0f : x;
  x = x < -20.0f ? -20.0f : x;
  const auto [n, rest] = vector_math::exponential(x);
  const float half_power = vector_math::power_of_two(n - 1);  // 2^128 would be infinite
  const float y = 2.0f * (half_power * rest + (half_power - 0.5f));
  return std::fabs(whole) < 1e-7f ? whole : y;  // keeps the sign of 0
}

namespace vector_math {

/// A number 2^n (1 + f) with f in -0.293..0.415.
struct Binade {
  float n, f;
};

/// Splits x > 0, which may be subnormal. The result means nothing for other x.
TRIREME_INLINE Binade binade(float x) {
  const bool subnormal = x < std::numeric_limits<float>::min();
  const float scaled = subnormal ? x * 0x1p23f : x;
  const std::int32_t n = nearest_exponent(scaled);
  const float m =
      std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) - (static_cast<std::uint32_t>(n) << 23));
  return {static_cast<float>(n) - (subnormal ? 23.0f : 0.0f), m - 1.0f};
}

/// Returns the logarithm of x: `logarithm` for a finite x > 0, x itself for infinity and NaN, -infinity for
/// 0, and NaN for x < 0.
TRIREME_INLINE float with_log_limits(float x, float logarithm) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  float y = x < kInf ? logarithm : x;  // infinity and NaN
  y = x == 0.0f ? -kInf : y;
  return x < 0.0f ? std::numeric_limits<float>::quiet_NaN() : y;
}

}  // namespace vector_math

/// log x within 1 ulp; -infinity of 0, NaN below.
TRIREME_INLINE float fast_log(float x) {
  const auto [n, f] = vector_math::binade(x);
  return vector_math::with_log_limits(x, vector_math::logarithm(n, f));
}

/// Returns log2 x within 2 ulp; exact for powers of 2.
TRIREME_INLINE float fast_log2(float x) {
  const auto [n, f] = vector_math::binade(x);
  const double y = n + vector_math::logarithm(0.0f, f) * 1.44269504088896340736;
  return vector_math::with_log_limits(x, static_cast<float>(y));
}

/// Returns log10 x within 2 ulp.
TRIREME_INLINE float fast_log10(float x) {
  const auto [n, f] = vector_math::binade(x);
  const double y = n * 0.30102999566398119521 + vector_math::logarithm(0.0f, f) * 0.43429448190325182765;
  return vector_math::with_log_limits(x, static_cast<float>(y));
}

/// log(1 + x) within 1.5 ulp.
TRIREME_INLINE float fast_log1p(float x) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  // With 1 + x = 2^n m, m - 1 = 2^-n x + (2^-n - 1) is rounded once, though 1 + x was rounded, too. For a
  // huge x, float32 would not hold 2^-n, so x is scaled by 2^-64 first, and the 1, which changes no bit, is
  // left out.
  const bool huge = x >= 1e30f;
  const float one = huge ? 0.0f : 1.0f, inside = huge ? x * 0x1p-64f : x;
  const std::int32_t n = vector_math::nearest_exponent(one + inside);
  const float shrink = vector_math::power_of_two(-(n < -25 ? 0 : n));
  const float near = vector_math::logarithm(static_cast<float>(n) + (huge ? 64.0f : 0.0f),
                                            inside * shrink + (one * shrink - 1.0f));
  float y = x < kInf ? near : x;
  y = x == -1.0f ? -kInf : y;
  y = std::fabs(x) < 1e-7f ? x : y;  // keeps the sign of 0
  return x < -1.0f || x != x ? std::numeric_limits<float>::quiet_NaN() : y;
}

/// log(1 + x) of x in 0..1 or NaN: the bits of fast_log1p() without the choices that keep exponentials inside
/// of it from becoming vector instructions.
TRIREME_INLINE float fast_log1p_of_part(float x) {
  const bool above = 1.0f + x >= 1.41421354f;  // where fast_log1p() halves
  const float shrink = above ? 0.5f : 1.0f;
  const float y = vector_math::logarithm(above ? 1.0f : 0.0f, x * shrink + (shrink - 1.0f));
  return x < 1e-7f ? x : y;
}

namespace vector_math {

/// erf(a) / a - 1 for a in 0..0.9, from u = a^2.
TRIREME_INLINE float erf_near(float u) {
  return ((((-0.0006090358f * u + 0.00501196241f) * u - 0.0267789086f) * u + 0.112821408f) * u -
          0.376125233f) *
             u +
         0.128379166f;
}

/// -log(1 - erf(c)) for c in 0.9..9. As a power of e it is exact within 1e-5 up to 3.6 and within 1 % up
/// to 5.
TRIREME_INLINE float erf_exponent(float c) {
  return ((((((2.09095557e-05f * c - 0.000432303006f) * c + 0.004160527f) * c - 0.0250914968f) * c +
            0.108236619f) *
               c +
           0.633386647f) *
              c +
          1.12949516f) *
             c -
         0.000170552033f;
}

}  // namespace vector_math

/// Within 1.5 ulp.
TRIREME_INLINE float fast_erf(float x) {
  // Near 0 a polynomial erf(x) / x - 1 of x^2; elsewhere 1 - e^-q(x), where q is a polynomial, too. From 4 on
  // it is 1.
  const float a = std::fabs(x), c = a < 4.0f ? a : 4.0f;
  const float far = 1.0f - fast_exp(-vector_math::erf_exponent(c));
  return x != x ? x : std::copysign(a < 0.9f ? a + a * vector_math::erf_near(x * x) : far, x);
}

/// 1 + erf x. Below -0.9 that is e^-q itself, which has digits where 1 + fast_erf(x) has none left.
TRIREME_INLINE float fast_one_plus_erf(float x) {
  const float a = std::fabs(x), tail = fast_exp(-vector_math::erf_exponent(a < 9.0f ? a : 9.0f));
  const float size = a < 0.9f ? a + a * vector_math::erf_near(x * x) : 1.0f - tail;
  const float y = x < -0.9f ? (a < 9.0f ? tail : 0.0f) : 1.0f + std::copysign(size, x);
  return x != x ? x : y;
}

/// Returns 1 - erf x within 7 ulp, also where the result is subnormal.
TRIREME_INLINE float fast_erfc(float x) {
  // For a >= 1/2, erfc a is e^(-a^2) times a polynomial of 1 / (1 + 0.4 a). The square is exact in float64.
  const float a = std::fabs(x), c = a < 10.25f ? a : 10.25f;
  const double power = -(static_cast<double>(c) * c), shifted = power * 1.44269504088896340736 + 0x1.8p52;
  const double n = shifted - 0x1.8p52;
  const float rest = vector_math::exponential_near(static_cast<float>(power - n * 0.69314718055994530942));
  const float t = 1.0f / (1.0f + 0.4f * c);
  const float p =
      (((((((((-0.0385181718f * t + 0.249375492f) * t - 0.6282897f) * t + 0.735345662f) * t - 0.457914174f) *
               t +
           0.378457159f) *
              t +
          0.0859068558f) *
             t +
         0.226838052f) *
            t +
        0.222898424f) *
           t +
       0.22590898f) *
          t -
      8.62392699e-06f;
  const float tail = p * vector_math::scaled_power(static_cast<std::int32_t>(n), rest);
  const float far = x < 0.0f ? 2.0f - tail : tail;
  const float y = a < 0.5f ? 1.0f - (x + x * vector_math::erf_near(x * x)) : far;
  return x != x ? x : y;
}

/// Within 2.5 ulp where e^-x is finite; below, it is 0 where the right result would be subnormal.
TRIREME_INLINE float fast_sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

/// Within 1.5 ulp.
TRIREME_INLINE float fast_tanh(float x) {
  // Near 0 a polynomial, (tanh x / x - 1) / x^2 fitted over x^2; elsewhere 1 - 2 / (e^2x + 1) loses nothing.
  const float a = std::fabs(x), u = x * x;
  const float p =
      (((-0.00570498686f * u + 0.0206390861f) * u - 0.0537397154f) * u + 0.133314416f) * u - 0.333332807f;
  const float far = 1.0f - 2.0f / (fast_exp(a + a) + 1.0f);
  return std::copysign(a < 0.625f ? a + a * u * p : far, x);
}

TRIREME_INLINE double fast_exp(double x) { return std::exp(x); }
TRIREME_INLINE double fast_exp2(double x) { return std::exp2(x); }
TRIREME_INLINE double fast_expm1(double x) { return std::expm1(x); }
TRIREME_INLINE double fast_log(double x) { return std::log(x); }
TRIREME_INLINE double fast_log2(double x) { return std::log2(x); }
TRIREME_INLINE double fast_log10(double x) { return std::log10(x); }
TRIREME_INLINE double fast_log1p(double x) { return std::log1p(x); }
TRIREME_INLINE double fast_log1p_of_part(double x) { return std::log1p(x); }
TRIREME_INLINE double fast_erf(double x) { return std::erf(x); }
TRIREME_INLINE double fast_erfc(double x) { return std::erfc(x); }
TRIREME_INLINE double fast_one_plus_erf(double x) { return std::erfc(-x); }
TRIREME_INLINE double fast_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
TRIREME_INLINE double fast_tanh(double x) { return std::tanh(x); }

}  // namespace trireme
