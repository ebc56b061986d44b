// Tests that division of integers has PyTorch's rules for negative numbers and for the ends of the range.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/ops/ops.h"

namespace trireme {
namespace {

using Integers = std::vector<std::int64_t>;

Tensor of(const Integers& values) { return Tensor::from(values, {static_cast<std::int64_t>(values.size())}); }

TEST(Division, SignsOfIntegers) {
  const Tensor a = of({7, -7, 7, -7, 6, -6, 0}), b = of({3, 3, -3, -3, -3, 3, -5});
  EXPECT_EQ(remainder(a, b).to_vector<std::int64_t>(), (Integers{1, 2, -2, -1, 0, 0, 0}));
  EXPECT_EQ(fmod(a, b).to_vector<std::int64_t>(), (Integers{1, -1, 1, -1, 0, 0, 0}));
  EXPECT_EQ(floor_divide(a, b).to_vector<std::int64_t>(), (Integers{2, -3, -3, 2, -2, -2, 0}));
  EXPECT_EQ(floor_divide(a, 2).to_vector<std::int64_t>(), (Integers{3, -4, 3, -4, 3, -3, 0}));
  EXPECT_EQ(remainder(a, b).dtype(), DType::kInt64);
  EXPECT_EQ(remainder(a, 2.5).dtype(), DType::kFloat32);
}

TEST(Division, EndsOfTheRange) {
  constexpr std::int64_t kLow = std::numeric_limits<std::int64_t>::min(),
                         kHigh = std::numeric_limits<std::int64_t>::max();
  const Tensor a = of({kLow, kHigh, kLow}), b = of({-1, -1, kHigh});
  EXPECT_EQ(remainder(a, b).to_vector<std::int64_t>(), (Integers{0, 0, kHigh - 1}));
  EXPECT_EQ(fmod(a, b).to_vector<std::int64_t>(), (Integers{0, 0, -1}));
  EXPECT_EQ(floor_divide(a, b).to_vector<std::int64_t>(), (Integers{kLow, -kHigh, -2}));
  const Tensor bytes = to(of({255, 7}), DType::kUInt8), by = to(of({255, 250}), DType::kUInt8);
  EXPECT_EQ(remainder(bytes, by).to_vector<std::int64_t>(), (Integers{0, 7}));
  EXPECT_EQ(floor_divide(bytes, by).to_vector<std::int64_t>(), (Integers{1, 0}));
}

TEST(Division, OfFractionsIsExact) {
  const auto one = [](Tensor (*op)(const Tensor&, const Tensor&), double a, double b) {
    return op(Tensor::scalar(a, DType::kFloat64), Tensor::scalar(b, DType::kFloat64)).item();
  };
  // 1 / 0.1 is rounded to 10, but ten times the double nearest to 0.1 is more than 1.
  EXPECT_EQ(one(floor_divide, 1, 0.1), 9);
  EXPECT_EQ(one(remainder, 1, 0.1), std::fmod(1, 0.1));
  EXPECT_EQ(one(remainder, -1, 1e30), 1e30);
  EXPECT_EQ(one(remainder, 5, std::numeric_limits<double>::infinity()), 5);
  EXPECT_EQ(one(floor_divide, -1, 0), -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(one(remainder, 1, 0)));
  EXPECT_TRUE(std::signbit(one(floor_divide, -0.0, 3)));
}

}  // namespace
}  // namespace trireme
