// Tests that backward writes a leaf's gradient directly to memory that was provided for it.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

/// Expects that x's gradient equals `numbers`. It must be in the provided memory exactly if `wanted`.
void expect_grad(const Tensor& x, const Tensor& memory, bool wanted, const Tensor& numbers) {
  ASSERT_TRUE(x.grad().defined());
  EXPECT_EQ(x.grad().raw() == memory.raw(), wanted);
  EXPECT_EQ(x.grad().to_vector<float>(), numbers.to_vector<float>());
}

TEST(GradMemory, IsWrittenByProductsAndConvolutions) {
  const Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3}), image = reshape(x, {1, 1, 2, 3});
  Tensor w = Tensor::ones({4, 3}), m = Tensor::ones({3, 4}), k = Tensor::ones({2, 1, 1, 2});
  struct Use {
    Tensor leaf;
    std::function<Tensor()> run;
  };
  for (const Use& use : {Use{w, [&] { return linear(x, w, {}); }}, Use{m, [&] { return matmul(x, m); }},
                         Use{k, [&] { return conv2d(image, k, {}, {}); }}}) {
    Tensor leaf = use.leaf;
    leaf.set_requires_grad(true);
    sum(square(use.run())).backward();
    const Tensor wanted = leaf.grad();
    leaf.set_grad({});
    const Tensor memory = Tensor::full(leaf.shape(), -1);
    set_grad_memory(leaf, memory);
    sum(square(use.run())).backward();
    expect_grad(leaf, memory, true, wanted);
    sum(square(use.run())).backward();  // memory is provided once; this gradient must be added to it
    EXPECT_EQ(leaf.grad().to_vector<float>(), mul(wanted, 2).to_vector<float>());
  }
}

TEST(GradMemory, IsLeftAloneWhereTheGradientIsMadeOfMore) {
  const Tensor x = Tensor::from<float>({1, 2, 3, 4}, {2, 2});
  Tensor w = Tensor::ones({2, 2}).set_requires_grad(true);
  const auto loss = [&] { return sum(square(linear(linear(x, w, {}), w, {}))); };
  loss().backward();
  const Tensor wanted = w.grad();
  w.set_grad({});
  const Tensor memory = Tensor::full({2, 2}, -1);
  set_grad_memory(w, memory);
  loss().backward();
  expect_grad(w, memory, false, wanted);
}

TEST(GradMemory, IsNotForGradientsThatGoElsewhere) {
  const Tensor x = Tensor::from<float>({1, 2, 3, 4}, {2, 2});
  Tensor w = Tensor::ones({2, 2}).set_requires_grad(true);
  const Tensor memory = Tensor::full({2, 2}, -1);
  set_grad_memory(w, memory);
  const Tensor g = grad(sum(linear(x, w, {})), {w})[0];
  EXPECT_NE(g.raw(), memory.raw());
  backward(sum(linear(x, w, {})), {}, {.create_graph = true});
  EXPECT_NE(w.grad().raw(), memory.raw());
  EXPECT_EQ(memory.to_vector<float>(), std::vector<float>(4, -1));
  w.set_grad({});
  register_hook(w, [](const Tensor& gradient) { return mul(gradient, 3); });
  sum(linear(x, w, {})).backward();
  expect_grad(w, memory, false, mul(g, 3));
  test::expect_holds(test::error_of([&] { set_grad_memory(w, Tensor::ones({4})); }),
                     {"set_grad_memory", "(4)", "(2, 2)"});
}

}  // namespace
}  // namespace trireme
