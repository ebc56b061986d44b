#include "core/autograd/function.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/nn/recompute.h"
#include "core/ops/ops.h"
#include "tests/support/errors.h"
#include "tests/unit/core/nn_check.h"

namespace trireme {
namespace {

using test::error_of;
using test::expect_holds;
using test::expect_near;
using Doubles = std::vector<double>;

Tensor leaf(const Shape& shape, std::uint64_t key = 1) {
  return normal(shape, RandomKey{key}, 0, 1, DType::kFloat64).set_requires_grad(true);
}

std::size_t used() { return allocator_statistics(kCpu).used_bytes; }

struct Cube : Function<Cube> {
  static Tensor forward(Context& c, const Tensor& x) {
    c.save_for_backward({x});
    return x * x * x;
  }
  static Tensors backward(Context& c, const Tensors& g) {
    const Tensor x = c.saved(0);
    return {g[0] * x * x * 3.0};
  }
};

/// Computes tanh(factor * x), and its gradient from the saved result.
struct ScaledTanh : Function<ScaledTanh> {
  struct Context : FunctionContext {
    double factor = 0;
  };
  static Tensor forward(Context& c, const Tensor& x, double factor) {
    c.factor = factor;
    const Tensor y = tanh(x * factor);
    c.save_for_backward({y});
    return y;
  }
  static Tensors backward(Context& c, const Tensors& g) {
    const Tensor y = c.saved(0);
    return {g[0] * (1.0 - y * y) * c.factor};
  }
};

/// Computes (sum of the terms * b, b - first term).
struct Mix : Function<Mix> {
  static Tensors forward(Context& c, const Tensors& terms, const Tensor& b, int) {
    c.save_for_backward({terms[0], terms[1], b});
    return {(terms[0] + terms[1]) * b, b - terms[0]};
  }
  static Tensors backward(Context& c, const Tensors& g) {
    const Tensor first = c.saved(0), second = c.saved(1), b = c.saved(2);
    Tensor for_second;
    if (c.needs_gradient(1)) for_second = g[0] * b;
    return {g[0] * b - g[1], for_second, g[0] * (first + second) + g[1]};
  }
};

TEST(Function, HasTheGradientItsBackwardSays) {
  const Tensor x = leaf({2, 3});
  const Tensor y = Cube::apply(x);
  expect_near(y, (x * x * x).to_vector<double>(), 1e-15);
  EXPECT_TRUE(y.requires_grad() && !y.is_leaf());
  const Tensor weights = leaf({2, 3}, 5).detach();
  test::check_gradients([&] { return sum(Cube::apply(x) * weights); }, {{"x", x}});
  test::check_gradients([&] { return sum(ScaledTanh::apply(x, 0.7) * weights); }, {{"x", x}});
  const NoGrad off;
  EXPECT_FALSE(Cube::apply(x).requires_grad());
}

TEST(Function, TakesAndGivesSeveralTensors) {
  const Tensor a = leaf({3}), b = leaf({3}, 2), c = leaf({3}, 3), constant = leaf({3}, 4).detach();
  const Tensor weights = leaf({3}, 5).detach();
  const auto loss = [&](const Tensor& second, bool both) {
    const Tensors y = Mix::apply(Tensors{a, second}, c, 7);
    EXPECT_EQ(y.size(), 2u);
    return both ? sum(y[0] * weights + square(y[1])) : sum(y[0] * weights);
  };
  for (const bool both : {true, false}) {
    test::check_gradients([&] { return loss(b, both); }, {{"a", a}, {"b", b}, {"c", c}});
    test::check_gradients([&] { return loss(constant, both); }, {{"a", a}, {"c", c}});
  }
  EXPECT_FALSE(constant.grad().defined());
}

TEST(Function, CanBeDifferentiatedAgain) {
  const Tensor x = leaf({4});
  const auto gradient = [&](const Tensor& y) { return grad(sum(y), {x}, {}, {.create_graph = true})[0]; };
  const Tensor second = gradient(gradient(Cube::apply(x)));
  expect_near(second, (x * 6.0).to_vector<double>(), 1e-14);
  const Tensor weights = leaf({4}, 5).detach();
  test::check_gradients([&] { return sum(gradient(ScaledTanh::apply(x, 0.7)) * weights); }, {{"x", x}});
  const Tensor b = leaf({4}, 2);
  test::check_gradients(
      [&] {
        const Tensors y = Mix::apply(Tensors{x, b}, x, 0);
        return sum(gradient(y[0] * y[1]) * weights);
      },
      {{"x", x}, {"b", b}});
}

TEST(Function, NoticesChangesOfWhatItSaved) {
  const Tensor x = leaf({2}), h = x * 1.0, y = Cube::apply(h);
  mul_(h, 2.0);
  expect_holds(error_of([&] { sum(y).backward(); }), {"Cube: ", "changed in place by mul_", "(2)"});
  const Tensor z = ScaledTanh::apply(x, 1.0);
  fill_(z.detach(), 0);
  expect_holds(error_of([&] { sum(z).backward(); }), {"ScaledTanh: ", "fill_"});
}

struct Wrong : Function<Wrong> {
  struct Context : FunctionContext {
    int how = 0;
  };
  static Tensor forward(Context& c, const Tensor& x, const Tensor&, int how) {
    c.how = how;
    if (how == 4) mul_(x, 2.0);
    c.save_for_backward({x});
    if (how == 5) return c.saved(0);
    return x * 1.0;
  }
  static Tensors backward(Context& c, const Tensors& g) {
    switch (c.how) {
      case 0:
        return {g[0]};
      case 1:
        return {Tensor(), narrow(g[0], 0, 0, 1)};
      case 2:
        return {to(g[0], DType::kFloat32), Tensor()};
      default:
        return {c.saved(1), Tensor()};
    }
  }
};

TEST(Function, SaysWhoseBackwardIsWrong) {
  const auto error = [](int how) {
    const Tensor x = leaf({3}) * 1.0;
    return error_of([&] { sum(Wrong::apply(x, leaf({3}, 2), how)).backward(); });
  };
  expect_holds(error(0), {"Wrong: ", "1 gradients for 2 tensor arguments"});
  expect_holds(error(1), {"Wrong: ", "float64 (1) for tensor argument 1", "float64 (3)"});
  expect_holds(error(2), {"Wrong: ", "float32 (3) for tensor argument 0", "float64 (3)"});
  expect_holds(error(3), {"Wrong: ", "saved tensor 1 of 1"});
  expect_holds(error(4), {"Wrong: ", "forward changed tensor argument 0 in place"});
  expect_holds(error(5), {"saved() is for backward"});
  const Tensor y = Cube::apply(leaf({1}));
  y.backward();
  expect_holds(error_of([&] { y.backward(); }), {"Cube ran before", "retain_graph"});
}

/// Copies its input, and negates the gradient.
struct Reverse : Function<Reverse> {
  static Tensor forward(Context&, const Tensor& x) { return x; }
  static Tensors backward(Context&, const Tensors& g) { return {-g[0]}; }
};

/// Returns a mark of ones, and the largest value of each row and its index. The mark and the index have no
/// gradients.
struct Largest : Function<Largest> {
  static Tensors forward(Context& c, const Tensor& x) {
    const Found found = max(x, 1);
    const Tensor mark = ones_like(x);
    c.save_for_backward({found.indices, x});
    c.mark_non_differentiable({mark});
    return {mark, found.values, found.indices};
  }
  static Tensor ones_like(const Tensor& x) { return Tensor::ones(x.shape(), x.dtype()); }
  static Tensors backward(Context& c, const Tensors& g) {
    EXPECT_EQ(amax(abs(g[0])).item(), 0) << "zeros";
    const Tensor x = c.saved(1), zeros = Tensor::zeros(x.shape(), x.dtype());
    return {scatter(zeros, 1, unsqueeze(c.saved(0), 1), unsqueeze(g[1], 1))};
  }
};

TEST(Function, MayGiveBackItsArgument) {
  const Tensor x = leaf({2});
  const Tensor y = Reverse::apply(x);
  EXPECT_NE(y.raw(), x.raw());
  mul_(y, 3.0);
  sum(y + x).backward();
  EXPECT_EQ(x.grad().to_vector<double>(), (Doubles{-2, -2}));
}

TEST(Function, MayHaveResultsWithoutAGradient) {
  const Tensor x = leaf({3, 4});
  const Tensors y = Largest::apply(x);
  EXPECT_FALSE(y[0].requires_grad());
  EXPECT_TRUE(y[1].requires_grad());
  EXPECT_FALSE(y[2].requires_grad());
  const DetectAnomaly search;
  const Tensor weights = leaf({3}, 5).detach();
  test::check_gradients([&] { return sum(Largest::apply(x)[1] * weights); }, {{"x", x}});
}

TEST(Function, WorksUnderRecompute) {
  const Tensor x = leaf({5});
  const auto block = [](const Tensors& in) { return Cube::apply(ScaledTanh::apply(in[0], 0.7)); };
  const auto gradient = [&](const Tensor& y) {
    x.set_grad({});
    sum(y).backward();
    return x.grad().to_vector<double>();
  };
  EXPECT_EQ(gradient(nn::recompute(block, {x * 1.0})), gradient(block({x * 1.0})));
}

TEST(Function, FreesWhatItSaved) {
  const Tensor x = leaf({1000});
  const std::size_t before = used();
  { const Tensor y = ScaledTanh::apply(Cube::apply(x * 1.0), 2.0); }
  EXPECT_EQ(used(), before) << "no cycle through saved results";
  const Tensor y = Cube::apply(x * 1.0);
  sum(y).backward();
  x.set_grad({});
  EXPECT_LT(used(), before + 2 * 8000 + 512) << "backward frees, y stays";
}

TEST(Function, BackwardMayRunAnotherPass) {
  struct Inner : Function<Inner> {
    static Tensor forward(Context& c, const Tensor& x) {
      c.save_for_backward({x});
      const EnableGrad on;
      return exp(x).detach();
    }
    static Tensors backward(Context& c, const Tensors& g) {
      const EnableGrad on;
      const Tensor x = c.saved(0).detach().set_requires_grad(true);
      return {grad(sum(exp(x)), {x}, {})[0] * g[0]};
    }
  };
  const Tensor x = leaf({3});
  test::check_gradients([&] { return sum(Inner::apply(x)); }, {{"x", x}});
}

}  // namespace
}  // namespace trireme
