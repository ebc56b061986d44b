#include "core/nn/init.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/nn/module.h"
#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme::nn {
namespace {

using test::error_of;
using test::expect_holds;

struct Moments {
  double mean = 0, std = 0, least = 1e30, most = -1e30;
};

Moments moments_of(const Tensor& t) {
  Moments m;
  const auto n = static_cast<double>(t.numel());
  for (const double v : t.to_vector<double>())
    m.mean += v / n, m.least = std::min(m.least, v), m.most = std::max(m.most, v);
  for (const double v : t.to_vector<double>()) m.std += (v - m.mean) * (v - m.mean) / n;
  m.std = std::sqrt(m.std);
  return m;
}

void expect_uniform(const Tensor& t, double low, double high) {
  const Moments m = moments_of(t);
  const double width = high - low;
  EXPECT_GE(m.least, low);
  EXPECT_LE(m.most, high);
  EXPECT_LT(m.least, low + 0.01 * width);
  EXPECT_GT(m.most, high - 0.01 * width);
  EXPECT_NEAR(m.mean, (low + high) / 2, 0.02 * width);
}

void expect_normal(const Tensor& t, double mean, double std) {
  const Moments m = moments_of(t);
  EXPECT_NEAR(m.mean, mean, 0.05 * std);
  EXPECT_NEAR(m.std, std, 0.03 * std);
  EXPECT_GT(m.most, mean + 2.5 * std);
}

TEST(Init, FillsInPlaceWithoutAGradient) {
  manual_seed(1);
  const Tensor t = Tensor::zeros({100, 50}).set_requires_grad(true);
  EXPECT_TRUE(init::uniform_(t, -2, 3).is_same(t));
  expect_uniform(t, -2, 3);
  EXPECT_TRUE(t.is_leaf());
  EXPECT_EQ(t.version(), 1u) << "a graph that saved it notices";
  init::normal_(t, 4, 0.5);
  expect_normal(t, 4, 0.5);
  EXPECT_NEAR(moments_of(init::constant_(t, 2.5)).std, 0, 1e-12);
  EXPECT_EQ(t.to_vector<float>()[7], 2.5f);
  EXPECT_EQ(init::ones_(t).to_vector<float>()[7], 1);
  EXPECT_EQ(init::zeros_(t).to_vector<float>()[7], 0);
  expect_normal(init::normal_(Tensor::empty({5000}, DType::kFloat64)), 0, 1);
  expect_normal(init::normal_(Tensor::empty({5000}, DType::kBFloat16)), 0, 1);
}

TEST(Init, FollowsTheSeed) {
  const auto draw = [](std::uint64_t seed) {
    manual_seed(seed);
    const auto first = init::normal_(Tensor::empty({20})).to_vector<float>();
    const auto second = init::normal_(Tensor::empty({20})).to_vector<float>();
    EXPECT_NE(first, second);
    return first;
  };
  EXPECT_EQ(draw(3), draw(3));
  EXPECT_NE(draw(3), draw(4));
}

TEST(Init, XavierAndKaimingCountFans) {
  manual_seed(2);
  const Tensor t = Tensor::empty({60, 20, 3, 3});  // fan-in 180, fan-out 540
  const double xavier = std::sqrt(2.0 / 720);
  expect_uniform(init::xavier_uniform_(t), -xavier * std::sqrt(3.0), xavier * std::sqrt(3.0));
  expect_normal(init::xavier_normal_(t, 2), 0, 2 * xavier);
  const double bound = 1 / std::sqrt(180.0);  // the bound for a = sqrt(5)
  expect_uniform(init::kaiming_uniform_(t, {.a = std::sqrt(5.0)}), -bound, bound);
  expect_normal(init::kaiming_normal_(t), 0, std::sqrt(2.0 / 180));
  expect_normal(init::kaiming_normal_(t, {.fan = init::Fan::kOut, .nonlinearity = init::Nonlinearity::kTanh}),
                0, 5.0 / 3 / std::sqrt(540.0));
  expect_holds(error_of([] { init::xavier_normal_(Tensor::empty({3})); }), {"(3)", "two dimensions"});
}

TEST(Init, GainsAreThoseOfPyTorch) {
  using init::Nonlinearity;
  EXPECT_EQ(init::gain_of(Nonlinearity::kLinear), 1);
  EXPECT_EQ(init::gain_of(Nonlinearity::kSigmoid), 1);
  EXPECT_DOUBLE_EQ(init::gain_of(Nonlinearity::kTanh), 5.0 / 3);
  EXPECT_DOUBLE_EQ(init::gain_of(Nonlinearity::kRelu), std::sqrt(2.0));
  EXPECT_DOUBLE_EQ(init::gain_of(Nonlinearity::kLeakyRelu), std::sqrt(2 / (1 + 1e-4)));
  EXPECT_EQ(init::gain_of(Nonlinearity::kSelu), 0.75);
}

TEST(Init, TruncatedNormalNumbersStayInside) {
  manual_seed(3);
  const Tensor t = Tensor::empty({20000});
  Moments m = moments_of(init::trunc_normal_(t));
  EXPECT_GE(m.least, -2);
  EXPECT_LE(m.most, 2);
  EXPECT_GT(m.most, 1.98);
  EXPECT_NEAR(m.mean, 0, 0.03);
  EXPECT_NEAR(m.std, 0.8796, 0.01);  // sqrt(1 - 4 phi(2) / (2 Phi(2) - 1))
  m = moments_of(init::trunc_normal_(t, 1, 0.02, 1.01, 9));
  EXPECT_GE(m.least, 1.01);
  // The mean of normal numbers above half a standard deviation is phi(0.5) / (1 - Phi(0.5)).
  EXPECT_NEAR(m.mean, 1 + 0.02 * 1.1411, 0.02 * 0.02);
  m = moments_of(init::trunc_normal_(t, 0, 1, 10, 11));  // far from the mean
  EXPECT_GE(m.least, 10);
  EXPECT_NEAR(m.mean, 10.098, 0.005);
  expect_holds(error_of([&] { init::trunc_normal_(t, 0, 1, 2, -2); }), {"trunc_normal_", "2", "-2"});
}

TEST(Init, OrthogonalRowsOrColumns) {
  manual_seed(4);
  for (const Shape& shape : {Shape{5, 12}, Shape{12, 5}, Shape{4, 3, 2, 2}, Shape{6, 6}}) {
    const Tensor t = init::orthogonal_(Tensor::empty(shape, DType::kFloat64), 3);
    const Tensor m = flatten(t, 1), mt = transpose(m, 0, 1);
    const Tensor square = m.size(0) <= m.size(1) ? matmul(m, mt) : matmul(mt, m);
    const Tensor off = square - eye(square.size(0), square.size(0), DType::kFloat64) * 9.0;
    EXPECT_LT(amax(abs(off)).item(), 1e-12) << shape.to_string();
  }
}

}  // namespace
}  // namespace trireme::nn
