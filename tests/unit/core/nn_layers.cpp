#include "core/nn/layers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/autograd/autograd.h"
#include "tests/support/errors.h"
#include "tests/unit/core/nn_check.h"

namespace trireme::nn {
namespace {

using test::error_of;
using test::expect_holds;
using test::expect_near;
using test::Names;
using test::names_of;
using Values = std::vector<double>;

Tensor numbers(const Shape& shape, std::uint64_t key = 1) { return normal(shape, RandomKey{key}); }

/// Normalizes rows of `width` elements in plain loops, to mean 0 (if `centered`) and mean square 1.
Values normalized(const Values& x, std::size_t width, double eps, bool centered) {
  Values y(x.size());
  for (std::size_t row = 0; row < x.size(); row += width) {
    double mean = 0, square = 0;
    for (std::size_t i = 0; centered && i < width; ++i) mean += x[row + i] / static_cast<double>(width);
    for (std::size_t i = 0; i < width; ++i)
      square += (x[row + i] - mean) * (x[row + i] - mean) / static_cast<double>(width);
    for (std::size_t i = 0; i < width; ++i) y[row + i] = (x[row + i] - mean) / std::sqrt(square + eps);
  }
  return y;
}

TEST(Norms, AreOverTheLastDimensions) {
  const Tensor x = numbers({3, 2, 4});
  const Values data = x.to_vector<double>();
  for (const bool affine : {true, false}) {
    expect_near(LayerNorm(4, {.affine = affine})(x), normalized(data, 4, 1e-5, true), 1e-5);
    expect_near(LayerNorm({2, 4}, {.eps = 0.1, .affine = affine})(x), normalized(data, 8, 0.1, true), 1e-5);
    expect_near(RMSNorm(4, {.affine = affine})(x), normalized(data, 4, 1e-7, false), 1e-5);
    expect_near(RMSNorm({2, 4}, {.eps = 0.1, .affine = affine})(x), normalized(data, 8, 0.1, false), 1e-5);
    // For (N,C,L) with two channels, one group has both channels, or two groups have one each.
    expect_near(GroupNorm(1, 2, {.affine = affine})(x), normalized(data, 8, 1e-5, true), 1e-5);
    expect_near(GroupNorm(2, 2, {.eps = 0.1, .affine = affine})(x), normalized(data, 4, 0.1, true), 1e-5);
    EXPECT_EQ(LayerNorm(4, {.affine = affine}).parameters().size(), affine ? 2u : 0u);
  }
  LayerNorm layer({2, 4}, {.bias = false});
  EXPECT_EQ(names_of(layer.parameters()), (Names{"weight"}));
  layer.weight = numbers({2, 4}, 2).set_requires_grad(true);
  Values expected = normalized(data, 8, 1e-5, true);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] *= layer.weight.to_vector<double>()[i % 8];
  expect_near(layer(x), expected, 1e-5);
  const double eps = std::numeric_limits<float>::epsilon(), small = 1e-4;
  expect_near(RMSNorm(2)(Tensor::full({1, 2}, small)), Values(2, small / std::sqrt(small * small + eps)),
              1e-5);
}

TEST(Norms, SayWhatDoesNotFit) {
  for (const bool affine : {true, false}) {
    expect_holds(error_of([&] {
                   LayerNorm(5, {.affine = affine})(numbers({3, 4}));
                 }),
                 {"LayerNorm", "(3, 4)", "(5)"});
    expect_holds(error_of([&] {
                   RMSNorm({3, 4}, {.affine = affine})(numbers({4}));
                 }),
                 {"RMSNorm", "(4)", "(3, 4)"});
  }
  expect_holds(error_of([] { GroupNorm(3, 4); }), {"GroupNorm", "4 channels", "3 groups"});
}

TEST(Embedding, LooksUpRows) {
  manual_seed(4);
  Embedding table(1000, 20, {.padding_index = -998});  // the index counts from the end: row 2
  EXPECT_EQ(table.weight.shape(), (Shape{1000, 20}));
  double sum_of = 0, squares = 0;
  for (const double v : table.weight.to_vector<double>()) sum_of += v, squares += v * v;
  EXPECT_NEAR(sum_of / 20000, 0, 0.03);
  EXPECT_NEAR(squares / 20000, 1, 0.05);
  const Tensor index = Tensor::from(std::vector<std::int64_t>{1, 2, 1, 5}, {2, 2});
  const Tensor y = table(index);
  EXPECT_EQ(y.shape(), (Shape{2, 2, 20}));
  EXPECT_EQ(select(select(y, 0, 0), 0, 1).to_vector<float>(), std::vector<float>(20, 0)) << "padding";
  EXPECT_EQ(select(select(y, 0, 1), 0, 0).to_vector<float>(), select(table.weight, 0, 1).to_vector<float>());
  sum(y).backward();
  const auto counted = sum(table.weight.grad(), {1}).to_vector<float>();
  EXPECT_EQ(counted[1], 40);
  EXPECT_EQ(counted[2], 0) << "padding gets no gradient";
  EXPECT_EQ(counted[5], 20);
  expect_holds(error_of([] { Embedding(4, 2, {.padding_index = 4}); }), {"padding_index 4", "4 rows"});
}

TEST(Convolutions, HaveTheShapesAndBoundsOfPyTorch) {
  manual_seed(1);
  Conv1d line(6, 8, 5, {.stride = 2, .padding = 2, .groups = 2});
  EXPECT_EQ(line.weight.shape(), (Shape{8, 3, 5}));
  EXPECT_EQ(line(numbers({2, 6, 9})).shape(), (Shape{2, 8, 5}));
  ConvTranspose2d up(6, 8, 3, {.stride = 2, .padding = 1, .output_padding = 1, .groups = 2});
  EXPECT_EQ(up.weight.shape(), (Shape{6, 4, 3, 3}));
  EXPECT_EQ(up.bias.shape(), (Shape{8}));
  EXPECT_EQ(up(numbers({2, 6, 5, 7})).shape(), (Shape{2, 8, 10, 14}));
  const auto expect_bound = [](const Tensor& t, double bound) {
    const double largest = amax(abs(t)).item();
    EXPECT_LE(largest, bound);
    EXPECT_GT(largest, bound * 0.7);
    EXPECT_TRUE(t.requires_grad());
  };
  expect_bound(line.weight, 1 / std::sqrt(15.0));
  expect_bound(line.bias, 1 / std::sqrt(15.0));
  expect_bound(up.weight, 1 / std::sqrt(36.0));
  expect_bound(up.bias, 1 / std::sqrt(36.0));
  EXPECT_EQ(names_of(ConvTranspose2d(1, 1, 1, {}, false).parameters()), (Names{"weight"}));
  EXPECT_EQ(names_of(line.parameters()), (Names{"weight", "bias"}));
  expect_holds(error_of([] { ConvTranspose2d(4, 3, 3, {.groups = 2}); }), {"3 output", "2 groups"});
  expect_holds(error_of([] { Conv1d(3, 4, 3, {.groups = 2}); }), {"Conv1d", "3 input", "2 groups"});
  // The two are transposes of each other: <conv(x), y> = <x, conv_transpose(y)> for the same weight.
  const Tensor x = numbers({1, 4, 7, 7}, 2), y = numbers({1, 6, 4, 4}, 3);
  Conv2d down(4, 6, 3, {.stride = 2, .padding = 1}, false);
  ConvTranspose2d back(6, 4, 3, {.stride = 2, .padding = 1}, false);
  back.weight = down.weight;
  EXPECT_NEAR(sum(down(x) * y).item(), sum(x * back(y)).item(), 1e-4);
}

TEST(Activations, AreTheFunctionsOfTheirNames) {
  const Values at{-7, -2.5, -0.5, 0.25, 1.5, 6.5};
  const Tensor x = Tensor::from(at, {6});
  const auto check = [&](Module&& module, double (*f)(double)) {
    Values expected;
    for (const double v : at) expected.push_back(f(v));
    expect_near(module(x), expected, 1e-9);
    EXPECT_TRUE(module.parameters().empty());
  };
  check(ReLU(), [](double v) { return std::max(v, 0.0); });
  check(ReLU6(), [](double v) { return std::min(std::max(v, 0.0), 6.0); });
  check(Sigmoid(), [](double v) { return 1 / (1 + std::exp(-v)); });
  check(LogSigmoid(), [](double v) { return -std::log1p(std::exp(-v)); });
  check(Tanh(), [](double v) { return std::tanh(v); });
  check(SiLU(), [](double v) { return v / (1 + std::exp(-v)); });
  check(Softplus(), [](double v) { return std::log1p(std::exp(v)); });
  check(GELU(), [](double v) { return v / 2 * std::erfc(-v / std::sqrt(2.0)); });
  check(GELU(Gelu::kTanh), [](double v) {
    return v / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (v + 0.044715 * v * v * v)));
  });
  check(LeakyReLU(), [](double v) { return v > 0 ? v : 0.01 * v; });
  check(LeakyReLU(0.2), [](double v) { return v > 0 ? v : 0.2 * v; });
  check(ELU(), [](double v) { return v > 0 ? v : std::expm1(v); });
  check(ELU(2), [](double v) { return v > 0 ? v : 2 * std::expm1(v); });
  check(Hardtanh(), [](double v) { return std::clamp(v, -1.0, 1.0); });
  check(Hardtanh(-2, 5), [](double v) { return std::clamp(v, -2.0, 5.0); });
  check(Identity(), [](double v) { return v; });
}

TEST(Activations, SoftmaxKeepsToItsDimension) {
  const Tensor x = numbers({3, 4});
  expect_near(sum(Softmax()(x), {1}), Values(3, 1), 1e-6);
  expect_near(sum(Softmax(0)(x), {0}), Values(4, 1), 1e-6);
  expect_near(exp(LogSoftmax(0)(x)), Softmax(0)(x).to_vector<double>(), 1e-6);
}

TEST(AdaptiveAvgPool2d, GivesTheSizeAskedFor) {
  const Tensor x = numbers({2, 3, 5, 7});
  AdaptiveAvgPool2d pool(2, 3);
  EXPECT_EQ(pool(x).shape(), (Shape{2, 3, 2, 3}));
  EXPECT_NEAR(select(flatten(pool(x)), 0, 0).item(),
              mean(narrow(narrow(select(select(x, 0, 0), 0, 0), 0, 0, 3), 1, 0, 3)).item(), 1e-6);
}

struct Stack : Module {
  ModuleList<Linear> steps;
  ModuleList<> any;
  Stack() {
    for (int i = 0; i < 3; ++i) steps.emplace_back(2, 2, i > 0);
    any.push_back(std::make_shared<Tanh>());
    any.push_back(std::make_shared<Linear>(2, 1));
  }
  Tensor forward(const Tensor& x) override {
    Tensor y = x;
    for (const auto& step : steps) y = (*step)(y);
    for (const auto& module : any) y = (*module)(y);
    return y;
  }
  void visit(Visitor& v) override {
    v.module("steps", steps);
    v.module("any", any);
  }
};

TEST(ModuleList, NamesItsModulesByNumber) {
  Stack stack;
  EXPECT_EQ(names_of(stack.parameters()),
            (Names{"steps.0.weight", "steps.1.weight", "steps.1.bias", "steps.2.weight", "steps.2.bias",
                   "any.1.weight", "any.1.bias"}));
  EXPECT_EQ(stack(numbers({4, 2})).shape(), (Shape{4, 1}));
  stack.steps[2] = std::make_shared<Linear>(2, 3);
  stack.any[1] = std::make_shared<Linear>(3, 5);
  EXPECT_EQ(stack(numbers({4, 2})).shape(), (Shape{4, 5}));
  stack.eval();
  EXPECT_FALSE(stack.any[1]->training());
  EXPECT_EQ(stack.steps.size(), 3u);
  EXPECT_THROW(stack.steps[3], Error);
}

}  // namespace
}  // namespace trireme::nn
