// Tests promotion between dtypes, 16-bit storage, and values that are not numbers.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"

namespace trireme {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

TEST(Promotion, FollowsPyTorch) {
  const DType f32 = DType::kFloat32, f64 = DType::kFloat64, i64 = DType::kInt64, u8 = DType::kUInt8,
              boolean = DType::kBool, bf16 = DType::kBFloat16, f16 = DType::kFloat16;
  for (const auto& [a, b, wanted] : {std::tuple{f32, f64, f64},
                                     {i64, f32, f32},
                                     {u8, i64, i64},
                                     {boolean, u8, u8},
                                     {bf16, f32, f32},
                                     {bf16, f16, f32},
                                     {i64, bf16, bf16},
                                     {f16, f64, f64}}) {
    EXPECT_EQ(mul(Tensor::ones({2}, a), Tensor::ones({2}, b)).dtype(), wanted) << name_of(a) << name_of(b);
    EXPECT_EQ(mul(Tensor::ones({2}, b), Tensor::ones({2}, a)).dtype(), wanted) << name_of(a) << name_of(b);
  }
  // A tensor without dimensions changes the result's dtype only if its kind (such as floating point) is
  // wider.
  EXPECT_EQ(add(Tensor::ones({2}, f32), Tensor::ones({}, f64)).dtype(), f32);
  EXPECT_EQ(add(Tensor::ones({2}, i64), Tensor::ones({}, f64)).dtype(), f64);
  EXPECT_EQ(add(Tensor::ones({2}, bf16), Tensor::ones({}, f32)).dtype(), bf16);
  EXPECT_EQ(div(Tensor::ones({2}, i64), Tensor::ones({2}, i64)).dtype(), f32);
  EXPECT_EQ(add(Tensor::ones({2}, i64), 0.5).dtype(), f32);
  EXPECT_EQ(add(Tensor::ones({2}, boolean), 1).dtype(), i64);
  EXPECT_EQ(sum(Tensor::ones({300}, u8)).item(), 300);
  EXPECT_EQ(sum(Tensor::ones({300}, boolean)).item(), 300);
}

TEST(Promotion, GradientsComeBackInTheirDtype) {
  const Tensor a = Tensor::ones({2}).set_requires_grad(true);
  const Tensor b = Tensor::full({2}, 3, DType::kFloat64).set_requires_grad(true);
  sum(mul(a, b)).backward();
  EXPECT_EQ(a.grad().dtype(), DType::kFloat32);
  EXPECT_EQ(a.grad().to_vector<double>(), (std::vector<double>{3, 3}));
  EXPECT_EQ(b.grad().dtype(), DType::kFloat64);
}

TEST(LowPrecision, RoundsToNearestEven) {
  const auto through = [](float x, DType dtype) {
    return to(to(Tensor::from(std::vector{x}, {}), dtype), DType::kFloat32).item();
  };
  EXPECT_EQ(through(1 + 0x1p-8f, DType::kBFloat16), 1);  // a tie goes to the even neighbour
  EXPECT_EQ(through(1 + 0x3p-8f, DType::kBFloat16), 1 + 0x1p-6f);
  EXPECT_EQ(through(1 + 0x1.02p-8f, DType::kBFloat16), 1 + 0x1p-7f);
  EXPECT_EQ(through(3.4e38f, DType::kBFloat16), kInf);
  EXPECT_EQ(through(-kInf, DType::kBFloat16), -kInf);
  EXPECT_TRUE(std::isnan(through(kNan, DType::kBFloat16)));
  EXPECT_EQ(through(1 + 0x1p-11f, DType::kFloat16), 1);
  EXPECT_EQ(through(1 + 0x3p-11f, DType::kFloat16), 1 + 0x1p-9f);
  EXPECT_EQ(through(65504, DType::kFloat16), 65504);
  EXPECT_EQ(through(65520, DType::kFloat16), kInf);
  EXPECT_EQ(through(0x1p-24f, DType::kFloat16), 0x1p-24f);  // the smallest subnormal
  EXPECT_EQ(through(0x1p-25f, DType::kFloat16), 0);
}

TEST(LowPrecision, ComputesInFloat32AndRoundsOnce) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    const Tensor x = to(uniform({1000}, RandomKey{7}, 0.5, 2), dtype).set_requires_grad(true);
    const Tensor y = exp(x), wide = exp(to(x.detach(), DType::kFloat32));
    EXPECT_EQ(y.dtype(), dtype);
    EXPECT_EQ(to(y, DType::kFloat32).to_vector<float>(),
              to(to(wide, dtype), DType::kFloat32).to_vector<float>());
    // The sum of 1000 ones is 1000, which a sum with 8 bits of precision would never reach.
    EXPECT_EQ(sum(Tensor::ones({1000}, dtype)).item(), 1000);
    sum(y).backward();
    EXPECT_EQ(x.grad().dtype(), dtype);
    EXPECT_EQ(x.grad().to_vector<float>(), y.to_vector<float>());
  }
}

TEST(SpecialValues, AreTreatedAsPyTorchDoes) {
  const std::vector<float> values{kNan, kInf, -kInf, -0.0f, 0.0f, 2.0f};
  const auto of = [&](Tensor (*op)(const Tensor&)) {
    return op(Tensor::from(values, {6})).to_vector<float>();
  };
  EXPECT_FALSE(std::signbit(of(abs)[3]));
  EXPECT_TRUE(std::isnan(of(relu)[0]));
  EXPECT_TRUE(std::isnan(of(sigmoid)[0]));
  EXPECT_EQ(of(sigmoid)[2], 0);
  EXPECT_EQ(of(softplus)[1], kInf);
  EXPECT_EQ(of(log_sigmoid)[1], 0);
  EXPECT_EQ(of([](const Tensor& x) { return to(isnan(x), DType::kFloat32); }),
            (std::vector<float>{1, 0, 0, 0, 0, 0}));
  EXPECT_EQ(of([](const Tensor& x) { return to(isinf(x), DType::kFloat32); }),
            (std::vector<float>{0, 1, 1, 0, 0, 0}));
  EXPECT_EQ(of([](const Tensor& x) { return to(isfinite(x), DType::kFloat32); }),
            (std::vector<float>{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(of([](const Tensor& x) { return nan_to_num(x, 7); })[0], 7);
  EXPECT_EQ(of([](const Tensor& x) { return nan_to_num(x, 7); })[1], std::numeric_limits<float>::max());
  EXPECT_EQ(argmax(Tensor::from(values, {6})).item(), 0) << "NaN counts as the largest";
  EXPECT_EQ(argmin(Tensor::from(std::vector<float>{1, kNan, 0}, {3})).item(), 1) << "and as the smallest";
  EXPECT_EQ(logsumexp(Tensor::from(std::vector<float>{-kInf, -kInf}, {2}), {0}).item(), -kInf);
  EXPECT_EQ(logsumexp(Tensor::from(std::vector<float>{1000, -kInf}, {2}), {0}).item(), 1000);
  const Tensor x = Tensor::from(values, {6}).set_requires_grad(true);
  sum(relu(x)).backward();
  EXPECT_EQ(x.grad().to_vector<float>()[0], 1) << "a NaN is not hidden by a zero gradient";
  EXPECT_EQ(x.grad().to_vector<float>()[4], 0);
}

}  // namespace
}  // namespace trireme
