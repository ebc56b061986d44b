#include "core/autograd/autograd.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using test::error_of;
using test::expect_holds;

Tensor leaf(std::vector<float> values) {
  const auto count = static_cast<std::int64_t>(values.size());
  return Tensor::from(values, {count}).set_requires_grad(true);
}

std::vector<float> grad_of(const Tensor& t) {
  return t.grad().defined() ? t.grad().to_vector<float>() : std::vector<float>{};
}
using Floats = std::vector<float>;

std::size_t used() { return allocator_statistics(kCpu).used_bytes; }

TEST(Autograd, SharedLeavesAndDiamonds) {
  const Tensor x = leaf({2, 3});
  const Tensor a = x * x, b = a + x, c = a * b;  // c = x^2 (x^2 + x)
  sum(c).backward();
  EXPECT_EQ(grad_of(x), (Floats{4 * 8 + 3 * 4, 4 * 27 + 3 * 9}));
}

TEST(Autograd, GradientsAddUpOverPasses) {
  const Tensor x = leaf({1, 2});
  for (int pass = 0; pass < 3; ++pass) sum(x * 2.0).backward();
  EXPECT_EQ(grad_of(x), (Floats{6, 6}));
  x.set_grad({});
  EXPECT_FALSE(x.grad().defined());
}

TEST(Autograd, LeavesOwnTheirGradients) {
  const Tensor x = leaf({1, 2}), y = leaf({3, 4}), seed = Tensor::ones({2});
  backward(x + y, seed);
  EXPECT_NE(x.grad().raw(), y.grad().raw());
  EXPECT_NE(x.grad().raw(), seed.raw());
  EXPECT_NE(y.grad().raw(), seed.raw());
  const Tensor w = leaf({1, 2, 3});
  sum(w).backward();  // the gradient is an expanded tensor with one element in memory
  EXPECT_TRUE(w.grad().is_contiguous());
  mul_(w.grad(), 2.0);
  EXPECT_EQ(grad_of(w), (Floats{2, 2, 2}));
  const Tensor m = Tensor::ones({2, 3}).set_requires_grad(true);
  sum(matmul(transpose(m, 0, 1), Tensor::ones({2, 2}))).backward();
  EXPECT_EQ(m.grad().strides(), m.strides());
}

TEST(Autograd, OnlyWhatWantsAGradientGetsOne) {
  const Tensor x = leaf({1, 2}), constant = Tensor::ones({2});
  const Tensor y = constant * 2.0;
  EXPECT_FALSE(y.requires_grad());
  sum(x * y).backward();
  EXPECT_FALSE(constant.grad().defined());
  const Tensor cut = (x * 3.0).detach();
  EXPECT_FALSE(cut.requires_grad());
  {
    const NoGrad off;
    EXPECT_FALSE((x * 2.0).requires_grad());
    const EnableGrad on;
    EXPECT_TRUE((x * 2.0).requires_grad());
  }
  EXPECT_TRUE(grad_enabled());
  expect_holds(error_of([&] { sum(cut).backward(); }), {"backward", "depends on nothing"});
  expect_holds(error_of([&] { (x * 1.0).backward(); }), {"backward", "(2)"});
  expect_holds(error_of([&] { backward(x * 1.0, Tensor::ones({3})); }), {"(2)", "(3)"});
  expect_holds(error_of([&] { Tensor::zeros({2}, DType::kInt64).set_requires_grad(true); }), {"int64"});
  expect_holds(error_of([&] { (x * 1.0).set_requires_grad(false); }), {"leaf", "detach"});
}

TEST(Autograd, InPlaceChangeOfASavedTensorNamesBothOps) {
  const Tensor x = leaf({1, 2});
  const Tensor y = x * 2.0, z = y * y;
  add_(y, Tensor::ones({2}));
  expect_holds(error_of([&] { sum(z).backward(); }),
               {"mul:", "add_", "version 1", "saved at version 0", "(2)"});
  const Tensor e = exp(x * 1.0);
  fill_(e.detach(), 0);  // changes the memory through another tensor
  expect_holds(error_of([&] { sum(e).backward(); }), {"exp:", "fill_"});
}

TEST(Autograd, InPlaceChangeOfWhatNobodyNeedsIsFine) {
  const Tensor x = leaf({1, 2}), mask = Tensor::full({2}, 3);
  const Tensor y = x * 2.0, z = y * mask;  // the derivative of z by y needs only the mask
  add_(y, Tensor::ones({2}));
  sum(z).backward();
  EXPECT_EQ(grad_of(x), (Floats{6, 6}));
}

TEST(Autograd, InPlaceOpsAreRecorded) {
  const Tensor x = leaf({1, 2}), w = leaf({5, 7});
  const Tensor y = x * 3.0;
  add_(y, w);
  mul_(y, w);  // y = (3x + w) w
  mul_(y, 2.0);
  sum(y).backward();
  EXPECT_EQ(grad_of(x), (Floats{30, 42}));
  EXPECT_EQ(grad_of(w), (Floats{2 * (3 + 10), 2 * (6 + 14)}));
  const Tensor fresh = Tensor::zeros({2});
  copy_(fresh, x);  // makes a constant the result of an op
  EXPECT_TRUE(fresh.requires_grad());
  x.set_grad({});
  sum(fresh * fresh).backward();
  EXPECT_EQ(grad_of(x), (Floats{2, 4}));
  expect_holds(error_of([&] { add_(x, w); }), {"add_", "leaf", "NoGrad"});
  expect_holds(error_of([&] { add_(narrow(x, 0, 0, 1), Tensor::ones({1})); }), {"add_", "view of a leaf"});
  const NoGrad off;
  add_(x, Tensor::ones({2}));
  EXPECT_EQ(x.to_vector<float>(), (Floats{2, 3}));
}

TEST(Autograd, GradientsCrossDtypes) {
  const Tensor x = leaf({1, 2});
  const Tensor wide = to(x, DType::kFloat64);
  sum(wide * wide).backward();
  EXPECT_EQ(x.grad().dtype(), DType::kFloat32);
  EXPECT_EQ(grad_of(x), (Floats{2, 4}));
  EXPECT_FALSE(to(x, DType::kInt64).requires_grad());
}

TEST(Hooks, SeeAndReplaceGradientsInOrder) {
  const Tensor x = leaf({1, 2});
  const Tensor y = x * 2.0;
  std::vector<int> order;
  register_hook(y, [&](const Tensor& g) {
    order.push_back(1);
    return g * 10.0;
  });
  register_hook(y, [&](const Tensor& g) {
    order.push_back(2);
    EXPECT_EQ(g.to_vector<float>(), (Floats{10, 10}));
    return Tensor();
  });
  register_hook(x, [&](const Tensor& g) {
    order.push_back(3);
    return g + 1.0;
  });
  register_post_accumulate_hook(x, [&](const Tensor& t) {
    order.push_back(4);
    EXPECT_TRUE(t.is_same(x));
    EXPECT_TRUE(t.grad().defined());
  });
  sum(y).backward();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3, 4}));
  EXPECT_EQ(grad_of(x), (Floats{21, 21}));
  sum(x).backward();  // a leaf keeps its hooks
  EXPECT_EQ(order.back(), 4);
  EXPECT_EQ(grad_of(x), (Floats{23, 23}));
  EXPECT_EQ(grad(sum(x), {x})[0].to_vector<float>(), (Floats{2, 2})) << "hooks act on grad(), too";
  expect_holds(error_of([] { register_hook(Tensor::ones({1}), [](const Tensor& g) { return g; }); }),
               {"register_hook"});
  expect_holds(error_of([&] { register_post_accumulate_hook(y, [](const Tensor&) {}); }), {"leaf"});
}

TEST(Hooks, PostAccumulateRunsOncePerPassAndEarly) {
  const Tensor first = leaf({1, 1}), second = leaf({2, 2});
  std::vector<std::string> order;
  register_post_accumulate_hook(first, [&](const Tensor&) { order.push_back("first"); });
  register_post_accumulate_hook(second, [&](const Tensor&) { order.push_back("second"); });
  const Tensor deep = exp(first * first), y = deep * second;
  register_hook(deep, [&](const Tensor&) {
    order.push_back("deep");
    return Tensor();
  });
  sum(y + second).backward();
  // The gradient of the second leaf is complete as soon as that of y is known, before the rest of backward.
  EXPECT_EQ(order, (std::vector<std::string>{"second", "deep", "first"}));
}

TEST(Hooks, MayRunAnotherPassOverTheSameLeaves) {
  const Tensor x = leaf({1, 2}), w = leaf({3, 4});
  const Tensor y = x * w;
  // Like activation checkpointing, builds a graph over the same leaf inside of backward, and runs it.
  register_hook(y, [&](const Tensor&) {
    const EnableGrad on;
    sum(w * 10.0).backward();
    return Tensor();
  });
  sum(y + w).backward();
  EXPECT_EQ(grad_of(w), (Floats{12, 13}));
  EXPECT_EQ(grad_of(x), (Floats{3, 4}));
}

TEST(Graph, RunsOnceUnlessRetained) {
  const Tensor x = leaf({1, 2});
  const Tensor y = sum(x * x);
  backward(y, {}, {.retain_graph = true});
  y.backward();
  EXPECT_EQ(grad_of(x), (Floats{4, 8}));
  expect_holds(error_of([&] { y.backward(); }), {"ran before", "retain_graph"});
}

TEST(Grad, LeavesGradsAlone) {
  const Tensor x = leaf({2, 3}), unused = leaf({1});
  const Tensor y = x * x;
  const auto g = grad(sum(y * x), {y, x, unused});
  EXPECT_EQ(g[0].to_vector<float>(), (Floats{2, 3}));
  EXPECT_EQ(g[1].to_vector<float>(), (Floats{12, 27}));
  EXPECT_FALSE(g[2].defined());
  EXPECT_TRUE(grad(sum(x), {}).empty());
  EXPECT_FALSE(x.grad().defined());
  expect_holds(error_of([&] { grad(sum(x), {Tensor::ones({1})}); }), {"grad", "input 0"});
}

TEST(Grad, DifferentiatesAgain) {
  const Tensor x = leaf({2, 3});
  const Tensor third = [&] {
    Tensor d = pow(x, 4);
    for (int i = 0; i < 3; ++i) d = grad(sum(d), {x}, {}, {.create_graph = true})[0];
    return d;
  }();
  EXPECT_EQ(third.to_vector<float>(), (Floats{48, 72}));
  // Computes a gradient penalty through a saved output: d/dx |d exp(x)/dx|^2 = 2 exp(2x).
  const Tensor g = grad(sum(exp(x)), {x}, {}, {.create_graph = true})[0];
  sum(g * g).backward();
  for (std::size_t i = 0; i < 2; ++i)
    EXPECT_NEAR(grad_of(x)[i], 2 * std::exp(2.0 * (2.0 + static_cast<double>(i))), 1e-2);
}

TEST(Graph, AMillionNodesNeedNoDeepStackAndNoLongTime) {
  const std::size_t before = used();
  const auto begin = std::chrono::steady_clock::now();
  {
    const Tensor x = leaf({1});
    Tensor y = x;
    for (int i = 0; i < 1'000'000; ++i) y = y + (i % 2 ? 1.0 : -1.0);
    y.backward();
    EXPECT_EQ(grad_of(x), (Floats{1}));
    Tensor chain = x;  // tensors own nodes that own saved tensors; backward never runs
    for (int i = 0; i < 300'000; ++i) chain = exp(chain) * 0.1;
  }
  EXPECT_EQ(used(), before);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(Graph, MemoryIsFreedWithTheLastReference) {
  const Tensor x = leaf(Floats(1000, 0.5f));
  sum(x).backward();
  const std::size_t before = used();
  {
    const Tensor y = exp(x) * x, z = relu(y) + tanh(y);
    EXPECT_GE(used(), before + 5 * 4000);
    sum(z).backward();
    EXPECT_LE(used(), before + 6 * 4608) << "backward frees what it saved";
  }
  EXPECT_EQ(used(), before);
  { const auto g = grad(sum(exp(x)), {x}, {}, {.create_graph = true}); }
  EXPECT_EQ(used(), before) << "a differentiable gradient makes no cycle";
  {
    const Tensor y = x * 1.0;
    mul_(y, x);
    mul_(y, y);
  }
  EXPECT_EQ(used(), before) << "in-place ops make no cycle";
  {
    const Tensor y = x * 1.0, part = narrow(y, 0, 0, 500), constant = Tensor::ones({1000});
    copy_(y, y * y);
    copy_(part, part * part);
    copy_(constant, narrow(constant, 0, 0, 1000) * x);
  }
  EXPECT_EQ(used(), before) << "a result copied into what it was made of makes no cycle";
}

TEST(Graph, AnExceptionInBackwardLeavesThingsUsable) {
  const Tensor x = leaf({1, 2});
  const std::size_t before = used();
  {
    bool fails = true;
    const Tensor a = x * 2.0, b = exp(x);
    const Tensor broken = record("broken", a.detach(), {&a}, [&](Backward& g) {
      if (fails) fail(ExitCode::kInternal, "planted");
      g.set(0, g.grad);
    });
    const Tensor loss = sum(broken + b);
    expect_holds(error_of([&] { backward(loss, {}, {.retain_graph = true}); }), {"planted"});
    EXPECT_TRUE(grad_enabled());
    x.set_grad({});
    fails = false;
    loss.backward();
    for (std::size_t i = 0; i < 2; ++i)
      EXPECT_NEAR(grad_of(x)[i], 2 + std::exp(1.0 + static_cast<double>(i)), 1e-5);
    x.set_grad({});
  }
  EXPECT_EQ(used(), before);
}

TEST(Graph, WrongGradientShapesAreNoticed) {
  const Tensor x = leaf({1, 2});
  const Tensor y = record("bad", Tensor::ones({3}), {&x}, [](Backward& g) { g.set(0, g.grad); });
  expect_holds(error_of([&] { sum(y).backward(); }), {"(2)", "(3)", "leaf"});
}

}  // namespace
}  // namespace trireme
