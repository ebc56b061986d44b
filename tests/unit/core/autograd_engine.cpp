// Tests properties of backward other than its numbers: the order of work, which tensors get gradients, and
// which memory is used.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/autograd/autograd.h"
#include "core/autograd/function.h"
#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using test::error_of;
using test::expect_holds;
using Doubles = std::vector<double>;

Tensor leaf(const Doubles& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())}).set_requires_grad(true);
}

Doubles of(const Tensor& t) { return t.defined() ? t.to_vector<double>() : Doubles{}; }

/// Appends `name` to `events` when the gradient of `t` is complete.
void note(std::vector<std::string>& events, const Tensor& t, const char* name) {
  register_hook(t, [&events, name](const Tensor&) {
    events.push_back(name);
    return Tensor();
  });
}

TEST(BackwardPass, RunsTheNewestFirst) {
  const Tensor x = leaf({1});
  std::vector<std::string> events;
  const Tensor older = x * 2.0, newer = x * 3.0;
  note(events, older, "older");
  note(events, newer, "newer");
  backward(newer + older);
  EXPECT_EQ(events, (std::vector<std::string>{"newer", "older"}));
}

TEST(BackwardPass, FinishesLeavesAsSoonAsItCan) {
  const Tensor x = leaf({1}), w = leaf({1});
  std::vector<std::string> events;
  const Tensor before = w * 1.0;  // makes the leaf the oldest node of the graph
  const Tensor h = x * 2.0;
  note(events, h, "h");
  note(events, w, "w");
  backward(h * w);
  EXPECT_EQ(events, (std::vector<std::string>{"w", "h"})) << "its gradient can travel while the rest runs";
}

TEST(BackwardPass, LeavesAnOuterPassItsWay) {
  const Tensor x = leaf({1, 2}), w = leaf({3, 4});
  const Tensor y = x * 2.0, z = y * w, total = sum(z);
  Doubles inner;
  register_hook(y, [&](const Tensor&) {  // asks for the gradient of w only, not of x
    inner = of(grad(total, {w}, {}, {.retain_graph = true})[0]);
    return Tensor();
  });
  backward(total, {}, {.retain_graph = true});
  EXPECT_EQ(inner, (Doubles{2, 4}));
  EXPECT_EQ(of(x.grad()), (Doubles{6, 8}));
}

TEST(BackwardPass, PartialDerivativesHoldOtherInputsFixed) {
  const Tensor x = leaf({1, 2});
  const Tensor a = x * 2.0;
  const Tensor loss = sum(a * 3.0 + x * 5.0);
  const auto partial = grad(loss, {a, x}, {}, {.retain_graph = true, .partial = true});
  EXPECT_EQ(of(partial[0]), (Doubles{3, 3}));
  EXPECT_EQ(of(partial[1]), (Doubles{5, 5})) << "not through a";
  EXPECT_EQ(of(grad(loss, {a, x})[1]), (Doubles{11, 11}));
}

int calls = 0;

/// Computes (x, 2x), and counts how often its backward runs.
struct Twice : Function<Twice> {
  static Tensors forward(Context&, const Tensor& x) { return {x * 1.0, x * 2.0}; }
  static Tensors backward(Context&, const Tensors& g) {
    ++calls;
    return {g[0] + g[1] * 2.0};
  }
};

/// Copies x, and passes no gradient on.
struct Wall : Function<Wall> {
  static Tensor forward(Context&, const Tensor& x) { return x * 1.0; }
  static Tensors backward(Context&, const Tensors&) { return {Tensor()}; }
};

TEST(BackwardPass, RunsNothingThatNoGradientReached) {
  const Tensor x = leaf({1, 2});
  const Tensors y = Twice::apply(x);
  calls = 0;
  sum(Wall::apply(y[0]) + Wall::apply(y[1]) + x).backward();
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(of(x.grad()), (Doubles{1, 1}));
}

FunctionContext* context = nullptr;

/// Computes x * floor(x) and floor(x). The second result is constant.
struct Steps : Function<Steps> {
  static Tensors forward(Context& c, const Tensor& x) {
    context = &c;
    const Tensor steps = floor(x);
    c.mark_non_differentiable({steps});
    c.save_for_backward({steps});
    return {x * steps, steps};
  }
  static Tensors backward(Context& c, const Tensors& g) { return {g[0] * c.saved(0) + g[1]}; }
};

TEST(BackwardPass, SeesNoHistoryInAConstantResult) {
  const Tensor x = leaf({1.5, 2.5});
  const Tensor y = Steps::apply(x)[0];
  const Tensor slope = grad(sum(y), {x}, {}, {.create_graph = true})[0];
  EXPECT_EQ(of(slope), (Doubles{1, 2}));
  EXPECT_FALSE(slope.requires_grad());
  expect_holds(error_of([] { context->saved(0); }), {"saved() is for backward"});
}

TEST(BackwardPass, OfOneTensorAsSeveralArgumentsCountsEachOnce) {
  const Tensor x = to(normal({3, 2}, RandomKey{1}), DType::kFloat64).set_requires_grad(true);
  const auto loss = [&] { return sum(square(scaled_dot_product_attention(x, x, x))); };
  const Doubles fused = of(grad(loss(), {x})[0]),
                differentiable = of(grad(loss(), {x}, {}, {.create_graph = true})[0]);
  for (std::size_t i = 0; i < fused.size(); ++i) EXPECT_NEAR(differentiable[i], fused[i], 1e-12);
}

TEST(BackwardPass, GradientsOfLeavesCanBeDifferentiated) {
  const Tensor x = leaf({3});
  backward(x * x * x, {}, {.create_graph = true});
  EXPECT_EQ(of(x.grad()), (Doubles{27}));
  EXPECT_EQ(of(grad(x.grad(), {x})[0]), (Doubles{18}));
  x.set_grad({});  // breaks a cycle: the gradient owns the graph, which owns x
}

TEST(BackwardPass, GradientsLieAsTheirLeavesDo) {
  const Tensor x = Tensor::ones({2, 3}, DType::kFloat64).set_requires_grad(true);
  sum(transpose(x, 0, 1) * Tensor::from(Doubles{1, 2, 3, 4, 5, 6}, {3, 2})).backward();
  EXPECT_EQ(x.grad().strides(), x.strides());
  EXPECT_EQ(of(x.grad()), (Doubles{1, 3, 5, 2, 4, 6}));
  const Tensor image = Tensor::ones({1, 2, 2, 2}, DType::kFloat64).set_requires_grad(true);
  sum(avg_pool2d(image)).backward();  // the gradient is channels-last and has its own memory
  EXPECT_EQ(image.grad().strides(), image.strides());
}

TEST(BackwardPass, OfAChangedViewTakesAnyLayoutOfTheGradient) {
  const Tensor x = Tensor::ones({2, 2}, DType::kFloat64).set_requires_grad(true);
  const Tensor y = transpose(x, 0, 1).clone();
  ASSERT_FALSE(y.is_contiguous());
  mul_(narrow(y, 0, 0, 1), 10.0);
  backward(y, Tensor::from(Doubles{1, 2, 3, 4}, {2, 2}));
  EXPECT_EQ(of(x.grad()), (Doubles{10, 3, 20, 4}));
}

TEST(RetainGrad, AskedForAgainKeepsWhatCame) {
  const Tensor x = leaf({1, 2});
  const Tensor y = x * 2.0;
  y.retain_grad();
  backward(sum(y), {}, {.retain_graph = true});
  y.retain_grad();
  EXPECT_EQ(of(y.grad()), (Doubles{1, 1}));
  backward(sum(y));
  EXPECT_EQ(of(y.grad()), (Doubles{2, 2}));
}

TEST(Anomaly, BlamesNobodyWhoPassesNanOn) {
  const DetectAnomaly search;
  const Tensor x = leaf({1, std::nan("")});
  EXPECT_NO_THROW(sum(x * 2.0)) << "it was there before";
  expect_holds(error_of([] { log(leaf({-1})); }), {"log", "NaN"});
}

}  // namespace
}  // namespace trireme
