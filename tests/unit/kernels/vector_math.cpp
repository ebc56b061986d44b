// Compares our own exponentials with the C library's in float64.
#include "kernels/vector_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "kernels/trigonometry.h"

namespace trireme {
namespace {

/// Returns the largest error over floats from low to high, in units of the last place of the right result. It
/// tries 400001 evenly spaced floats, or one if low equals high.
double worst(float (*fn)(float), double (*right)(double), float low, float high) {
  double error = 0;
  const int steps = low < high ? 400000 : 0;
  for (int i = 0; i <= steps; ++i) {
    const float x = low + (high - low) * static_cast<float>(i) / std::max(steps, 1);
    const double wanted = right(static_cast<double>(x));
    const float near = std::fabs(static_cast<float>(wanted));
    const double ulp =
        static_cast<double>(std::nextafter(near, std::numeric_limits<float>::infinity()) - near);
    error = std::max(error, std::fabs(static_cast<double>(fn(x)) - wanted) / ulp);
  }
  return error;
}

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

TEST(VectorMath, StaysWithinItsErrors) {
  EXPECT_LE(worst(fast_exp, std::exp, -103, 88.7f), 1);
  EXPECT_LE(worst(fast_exp, std::exp, -1, 1), 1);
  EXPECT_LE(worst(fast_expm1, std::expm1, -18, 88.7f), 1.5);
  EXPECT_LE(worst(fast_expm1, std::expm1, -1, 1), 1.5);
  EXPECT_LE(worst(fast_expm1, std::expm1, 1e-9f, 1e-6f), 1.5);
  EXPECT_LE(worst(fast_log, std::log, 1e-40f, 1e-37f), 1);
  EXPECT_LE(worst(fast_log, std::log, 0.5, 2), 1);
  EXPECT_LE(worst(fast_log, std::log, 0.999f, 1.001f), 1);
  EXPECT_LE(worst(fast_log, std::log, 2, 3e38f), 1);
  EXPECT_LE(worst(fast_log1p, std::log1p, -0.9999f, 3), 1.5);
  EXPECT_LE(worst(fast_log1p, std::log1p, 1e-9f, 1e-4f), 1.5);
  EXPECT_LE(worst(fast_log1p, std::log1p, 3, 1e7f), 1.5);
  EXPECT_LE(worst(fast_log1p, std::log1p, 1e7f, 3e38f), 1.5);
  EXPECT_LE(worst(fast_erf, std::erf, -5, 5), 1.5);
  EXPECT_LE(worst(fast_erf, std::erf, -1e-3f, 1e-3f), 1.5);
  EXPECT_LE(worst(fast_sigmoid, logistic, -87, 40), 2.5);
  EXPECT_LE(worst(fast_tanh, std::tanh, -12, 12), 1.5);
  EXPECT_LE(worst(fast_tanh, std::tanh, -0.7f, 0.7f), 1.5);
  EXPECT_LE(worst(fast_tanh, std::tanh, 1e-30f, 1e-20f), 1);
  EXPECT_LE(worst(fast_exp2, std::exp2, -149, 127.9f), 1.5);
  EXPECT_LE(worst(fast_exp2, std::exp2, -1, 1), 1.5);
  EXPECT_LE(worst(fast_log2, std::log2, 1e-40f, 1e-37f), 2);
  EXPECT_LE(worst(fast_log2, std::log2, 0.5, 2), 2);
  EXPECT_LE(worst(fast_log2, std::log2, 0.999f, 1.001f), 2);
  EXPECT_LE(worst(fast_log2, std::log2, 2, 3e38f), 2);
  EXPECT_LE(worst(fast_log10, std::log10, 1e-40f, 1e-37f), 2);
  EXPECT_LE(worst(fast_log10, std::log10, 0.5, 2), 2);
  EXPECT_LE(worst(fast_log10, std::log10, 0.999f, 1.001f), 2);
  EXPECT_LE(worst(fast_log10, std::log10, 2, 3e38f), 2);
  EXPECT_LE(worst(fast_erfc, std::erfc, -4, 4), 7);
  EXPECT_LE(worst(fast_erfc, std::erfc, 4, 10.05f), 7);
}

TEST(VectorMath, TrigonometryStaysWithinItsErrors) {
  for (const float end : {1e-30f, 1e-3f, 0.8f, 4.0f, 100.0f, 1e4f, 1e6f}) {
    EXPECT_LE(worst(near_sin, std::sin, -end, end), 2) << end;
    EXPECT_LE(worst(near_cos, std::cos, -end, end), 2) << end;
    EXPECT_LE(worst(near_tan, std::tan, -end, end), 4) << end;
    EXPECT_LE(worst(fast_atan, std::atan, -end, end), 2) << end;
  }
  // Test the floats nearest to multiples of pi / 2, where cancellation is worst.
  for (int k = 1; k <= 600000; k += 7) {
    const auto x = static_cast<float>(k * 1.57079632679489661923);
    EXPECT_LE(worst(near_sin, std::sin, x, x), 2) << k;
    EXPECT_LE(worst(near_cos, std::cos, x, x), 2) << k;
  }
  EXPECT_LE(worst(fast_atan, std::atan, 1e6f, 3e38f), 2);
  EXPECT_LE(worst(fast_asin, std::asin, -1, 1), 3);
  EXPECT_LE(worst(fast_asin, std::asin, 0.9999f, 1), 2);
  EXPECT_LE(worst(fast_acos, std::acos, -1, 1), 2);
  EXPECT_LE(worst(fast_acos, std::acos, 0.9999f, 1), 2);
  EXPECT_LE(worst(fast_acos, std::acos, -1, -0.9999f), 2);
}

TEST(VectorMath, Atan2GivesTheAnglesAndSignsOfTheCLibrary) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float values[] = {0.0f,  -0.0f, 1e-40f, -1e-40f, 0.3f,   -0.3f, 1.0f,
                          -1.0f, 5.0f,  -5.0f,  3e38f,   -3e38f, kInf,  -kInf};
  for (const float y : values)
    for (const float x : values) {
      const double right = std::atan2(static_cast<double>(y), static_cast<double>(x));
      const float got = fast_atan2(y, x);
      EXPECT_NEAR(got, right, std::fabs(right) * 2e-7 + 1e-45) << y << " " << x;
      EXPECT_EQ(std::signbit(got), std::signbit(right)) << y << " " << x;
    }
  EXPECT_TRUE(std::isnan(fast_atan2(std::nanf(""), 1.0f)) && std::isnan(fast_atan2(kInf, std::nanf(""))));
}

TEST(VectorMath, EndsOfTheRange) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float nan = std::nanf("");
  EXPECT_EQ(fast_exp(0.0f), 1);
  EXPECT_EQ(fast_exp(-kInf), 0);
  EXPECT_EQ(fast_exp(kInf), kInf);
  EXPECT_EQ(fast_exp(88.73f), kInf);
  EXPECT_EQ(fast_exp(-105.0f), 0);
  EXPECT_GT(fast_exp(-103.0f), 0);  // a subnormal number
  EXPECT_TRUE(std::isnan(fast_exp(nan)));
  EXPECT_TRUE(std::isnan(fast_exp(-nan)));
  EXPECT_EQ(fast_expm1(-kInf), -1);
  EXPECT_EQ(fast_expm1(kInf), kInf);
  EXPECT_TRUE(std::isnan(fast_expm1(nan)));
  EXPECT_TRUE(std::signbit(fast_expm1(-0.0f)));
  EXPECT_EQ(fast_log(1.0f), 0);
  EXPECT_EQ(fast_log(0.0f), -kInf);
  EXPECT_EQ(fast_log(-0.0f), -kInf);
  EXPECT_EQ(fast_log(kInf), kInf);
  EXPECT_TRUE(std::isnan(fast_log(-1.0f)) && std::isnan(fast_log(-kInf)) && std::isnan(fast_log(nan)));
  EXPECT_EQ(fast_log1p(-1.0f), -kInf);
  EXPECT_EQ(fast_log1p(kInf), kInf);
  EXPECT_TRUE(std::isnan(fast_log1p(-2.0f)) && std::isnan(fast_log1p(-kInf)) && std::isnan(fast_log1p(nan)));
  EXPECT_TRUE(std::signbit(fast_log1p(-0.0f)));
  EXPECT_EQ(fast_erf(kInf), 1);
  EXPECT_EQ(fast_erf(-kInf), -1);
  EXPECT_TRUE(std::isnan(fast_erf(nan)));
  EXPECT_TRUE(std::signbit(fast_erf(-0.0f)));
  EXPECT_EQ(fast_sigmoid(-kInf), 0);
  EXPECT_LE(fast_sigmoid(-89.0f), std::numeric_limits<float>::min());
  EXPECT_EQ(fast_sigmoid(kInf), 1);
  EXPECT_TRUE(std::isnan(fast_sigmoid(nan)));
  EXPECT_EQ(fast_tanh(kInf), 1);
  EXPECT_EQ(fast_tanh(-kInf), -1);
  EXPECT_TRUE(std::isnan(fast_tanh(nan)));
  EXPECT_TRUE(std::signbit(fast_tanh(-0.0f)));
}

TEST(VectorMath, EndsOfPowersOf2AndOfAngles) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float nan = std::nanf("");
}

TEST(VectorMath, EndsOfTheRangeOfOtherBasesAndAngles) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float nan = std::nanf("");
  for (int k = -149; k < 128; ++k) {
    EXPECT_EQ(fast_exp2(static_cast<float>(k)), std::ldexp(1.0f, k)) << k;
    EXPECT_EQ(fast_log2(std::ldexp(1.0f, k)), static_cast<float>(k)) << k;
  }
  EXPECT_EQ(fast_exp2(128.0f), kInf);
  EXPECT_EQ(fast_exp2(kInf), kInf);
  EXPECT_EQ(fast_exp2(-kInf), 0);
  EXPECT_EQ(fast_exp2(-151.0f), 0);
  EXPECT_TRUE(std::isnan(fast_exp2(nan)));
  EXPECT_EQ(fast_log10(1000.0f), 3);
  for (float (*const log)(float) :
       {static_cast<float (*)(float)>(fast_log2), static_cast<float (*)(float)>(fast_log10)}) {
    EXPECT_EQ(log(1.0f), 0);
    EXPECT_EQ(log(-0.0f), -kInf);
    EXPECT_EQ(log(kInf), kInf);
    EXPECT_TRUE(std::isnan(log(-1.0f)) && std::isnan(log(nan)));
  }
  EXPECT_EQ(fast_erfc(kInf), 0);
  EXPECT_EQ(fast_erfc(-kInf), 2);
  EXPECT_EQ(fast_erfc(0.0f), 1);
  EXPECT_TRUE(std::isnan(fast_erfc(nan)));
  EXPECT_EQ(fast_acos(1.0f), 0);
  EXPECT_TRUE(std::isnan(fast_asin(1.001f)) && std::isnan(fast_acos(-1.001f)) && std::isnan(fast_asin(nan)));
  EXPECT_TRUE(std::isnan(fast_atan(nan)) && std::isnan(fast_acos(nan)));
  EXPECT_TRUE(std::signbit(fast_atan(-0.0f)) && std::signbit(fast_asin(-0.0f)) &&
              std::signbit(near_sin(-0.0f)));
}

TEST(VectorMath, LogarithmsOfPartsHaveTheSameBits) {
  for (std::uint32_t bits = 0; bits <= std::bit_cast<std::uint32_t>(1.0f); bits += 97) {
    const auto x = std::bit_cast<float>(bits);
    ASSERT_EQ(fast_log1p_of_part(x), fast_log1p(x)) << x;
  }
  EXPECT_TRUE(std::isnan(fast_log1p_of_part(std::numeric_limits<float>::quiet_NaN())));
}

TEST(VectorMath, OnePlusErfKeepsItsDigits) {
  EXPECT_LE(worst(
                fast_one_plus_erf, [](double x) { return std::erfc(-x); }, -2.5, 5),
            20);
  for (float x = -5; x < -2.5f; x += 0.01f)
    EXPECT_NEAR(static_cast<double>(fast_one_plus_erf(x)) / std::erfc(-static_cast<double>(x)), 1, 0.01) << x;
  constexpr float kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(fast_one_plus_erf(kInf), 2);
  EXPECT_EQ(fast_one_plus_erf(-kInf), 0);
}

}  // namespace
}  // namespace trireme
