// Tests that ops keep int64 numbers exact that float64 cannot represent. tests/golden has cases for ops at
// the ends of the range. This file has searches, and ops without a case there.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using test::error_of;
using test::expect_holds;
using Integers = std::vector<std::int64_t>;

constexpr std::int64_t kHigh = std::numeric_limits<std::int64_t>::max(),
                       kLow = std::numeric_limits<std::int64_t>::min(), kOdd = (std::int64_t{1} << 53) + 1;

Tensor of(const Integers& values) { return Tensor::from(values, {static_cast<std::int64_t>(values.size())}); }

TEST(ExactIntegers, FillTensors) {
  for (const std::int64_t n : {kLow, kLow + 1, -kOdd, kOdd, kHigh - 1, kHigh}) {
    EXPECT_EQ(Tensor::full({1}, n, DType::kInt64).value<std::int64_t>(), n);
    EXPECT_EQ(Tensor::scalar(n, DType::kInt64).value<std::int64_t>(), n);
    EXPECT_EQ(fill_(of({0}), n).value<std::int64_t>(), n);
    EXPECT_EQ(masked_fill(of({0}), Tensor::ones({1}, DType::kBool), n).value<std::int64_t>(), n);
    EXPECT_EQ(pad(of({}), {1, 0}, n).value<std::int64_t>(), n);
    EXPECT_EQ(arange(n, n == kHigh ? n : n + 1, 1, DType::kInt64).to_vector<std::int64_t>(),
              n == kHigh ? Integers{} : Integers{n});
    EXPECT_EQ(linspace(n, n, 1, DType::kInt64).value<std::int64_t>(), n);
    EXPECT_EQ(linspace(n, 0, 3, DType::kInt64).to_vector<std::int64_t>()[0], n);
    EXPECT_EQ(linspace(0, n, 3, DType::kInt64).to_vector<std::int64_t>()[2], n);
  }
  const auto steps =
      arange(kLow, kHigh, (std::int64_t{1} << 61) + 1, DType::kInt64).to_vector<std::int64_t>();
  ASSERT_EQ(steps.size(), 8u);
  EXPECT_EQ(steps[7], kLow + 7 * ((std::int64_t{1} << 61) + 1));
  EXPECT_EQ(arange(kHigh - 3, kHigh, 2, DType::kInt64).to_vector<std::int64_t>(),
            (Integers{kHigh - 3, kHigh - 1}));
  EXPECT_EQ(arange(kLow + 3, kLow, -2, DType::kInt64).to_vector<std::int64_t>(),
            (Integers{kLow + 3, kLow + 1}));
}

TEST(ExactIntegers, AreReadAsTheyAre) {
  EXPECT_EQ(of({kHigh}).value<std::int64_t>(), kHigh);
  EXPECT_EQ(of({kLow}).item(), -0x1p63);
  EXPECT_EQ(of({kOdd - 1}).item(), 0x1p53);
  expect_holds(error_of([] { of({kOdd}).item(); }), {"item", "9007199254740993", "int64"});
  expect_holds(error_of([] { of({kHigh}).item(); }), {"item", "9223372036854775807"});
}

TEST(ExactIntegers, ReduceAndSort) {
  EXPECT_EQ(sum(of({kOdd, kHigh - 2 * kOdd, kOdd})).value<std::int64_t>(), kHigh);
  EXPECT_EQ(prod(of({kOdd, 3, -1})).value<std::int64_t>(), -3 * kOdd);
  EXPECT_EQ(amax(of({kHigh - 1, kHigh, kLow})).value<std::int64_t>(), kHigh);
  EXPECT_EQ(amin(of({kLow + 1, kLow, kHigh})).value<std::int64_t>(), kLow);
  EXPECT_EQ(argmax(of({kHigh - 1, kHigh, kHigh - 2})).item(), 1);
  EXPECT_EQ(cumsum(of({kOdd, kOdd, 1}), 0).to_vector<std::int64_t>(),
            (Integers{kOdd, 2 * kOdd, 2 * kOdd + 1}));
  EXPECT_EQ(sort(of({kHigh, kHigh - 1, kLow + 1, kLow})).values.to_vector<std::int64_t>(),
            (Integers{kLow, kLow + 1, kHigh - 1, kHigh}));
}

TEST(ExactIntegers, AreLabelsAndPlaces) {
  const Tensor logits = Tensor::from(std::vector<float>{1, 2, 3, 1, 2, 3}, {2, 3});
  const double kept = cross_entropy(narrow(logits, 0, 0, 1), of({2})).item();
  EXPECT_EQ(cross_entropy(logits, of({2, kOdd}), {.ignore_index = kOdd}).item(), kept);
  // The label next to the ignored one must not be ignored, although both are the same float64.
  expect_holds(error_of([&] {
                 cross_entropy(logits, of({2, kOdd - 1}), {.ignore_index = kOdd});
               }),
               {"cross_entropy", "9007199254740992"});
  EXPECT_EQ(sum(tril(Tensor::ones({2, 2}), kHigh)).item(), 4);
  EXPECT_EQ(sum(triu(Tensor::ones({2, 2}), kLow)).item(), 4);
}

TEST(ExactIntegers, OutsideOfADtypeAreRefused) {
  const Tensor bytes = to(of({1, 44}), DType::kUInt8), t = of({1});
  expect_holds(error_of([&] { Tensor::full({1}, 256, DType::kUInt8); }), {"full", "256", "uint8"});
  expect_holds(error_of([&] { Tensor::full({1}, 0x1p63, DType::kInt64); }), {"full", "int64"});
  expect_holds(error_of([&] { Tensor::full({1}, std::nan(""), DType::kInt64); }), {"full", "nan", "int64"});
  expect_holds(error_of([&] { eq(bytes, 300); }), {"eq", "300", "uint8"});
  expect_holds(error_of([&] { add(bytes, -1); }), {"add", "-1", "uint8"});
  expect_holds(error_of([&] { masked_fill(t, eq(t, 1), -INFINITY); }), {"masked_fill", "inf", "int64"});
  expect_holds(error_of([&] { fill_(t, 1e19); }), {"fill_", "int64"});
  expect_holds(error_of([&] { pow(t, -1); }), {"pow", "int64", "-1"});
  expect_holds(error_of([&] { clamp_(t, 0.5); }), {"clamp_", "int64"});
  // Bounds may be outside of the dtype's range, and a bound with a fraction makes the result float32.
  EXPECT_EQ(clamp(bytes, -1, 300).to_vector<double>(), (std::vector<double>{1, 44}));
  EXPECT_EQ(clamp(t, 1.5, {}).item(), 1.5);
  EXPECT_EQ(clamp(of({kHigh}), -INFINITY, 1e30).value<std::int64_t>(), kHigh);
}

/// Returns i * (end - start) / last in whole numbers, rounded towards 0 as in PyTorch.
std::int64_t whole_place(std::int64_t start, std::int64_t end, std::int64_t i, std::int64_t last) {
  return (start * last + i * (end - start)) / last;
}

TEST(Linspace, KeepsItsEndsAtAnySize) {
  for (std::int64_t n = 2; n <= 500; ++n) {
    for (const auto& [a, b] : {std::pair<std::int64_t, std::int64_t>{0, 7}, {-7, 7}, {7, -3}, {0, kHigh}}) {
      const auto whole = linspace(a, b, n, DType::kInt64).to_vector<std::int64_t>();
      ASSERT_EQ(whole.front(), a) << n;
      ASSERT_EQ(whole.back(), b) << n;
    }
    for (const DType dtype : {DType::kFloat64, DType::kFloat32}) {
      const auto line = linspace(0, 1, n, dtype).to_vector<double>();
      ASSERT_EQ(line.front(), 0) << n;
      ASSERT_EQ(line.back(), 1) << n;
      for (std::int64_t i = 0; i < n; ++i)
        ASSERT_NEAR(line[static_cast<std::size_t>(i)], static_cast<double>(i) / static_cast<double>(n - 1),
                    dtype == DType::kFloat32 ? 1e-7 : 1e-15);
    }
    const auto steps = linspace(0, 3 * (n - 1), n, DType::kInt64).to_vector<std::int64_t>();
    for (std::int64_t i = 0; i < n; ++i)
      ASSERT_EQ(steps[static_cast<std::size_t>(i)], whole_place(0, 3 * (n - 1), i, n - 1));
  }
}

}  // namespace
}  // namespace trireme
