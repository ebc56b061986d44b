// Hooks that remove themselves; gradients of results.
#include <gtest/gtest.h>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using test::error_of;
using test::expect_holds;
using Floats = std::vector<float>;

Tensor leaf() { return Tensor::ones({2}).set_requires_grad(true); }

std::size_t used() { return allocator_statistics(kCpu).used_bytes; }

TEST(Hooks, MayRemoveThemselves) {
  const Tensor x = leaf();
  const auto alive = std::make_shared<int>(0);
  HookHandle once;
  once = register_hook(x, [&, alive](const Tensor& g) {
    once.remove();
    ++*alive;
    return g * 2.0;
  });
  HookHandle after;
  after = register_post_accumulate_hook(x, [&, alive](const Tensor&) {
    after.remove();
    *alive += 10;
  });
  for (int pass = 0; pass < 2; ++pass) sum(x).backward();
  EXPECT_EQ(*alive, 11);
  EXPECT_EQ(alive.use_count(), 1) << "removed hooks are freed";
  EXPECT_EQ(x.grad().to_vector<float>(), (Floats{3, 3}));
}

TEST(RetainGrad, KeepsTheGradientOfAResult) {
  const Tensor x = leaf();
  const Tensor y = x * 2.0, plain = y * 3.0;
  y.retain_grad();
  y.retain_grad();
  x.retain_grad();
  register_hook(y, [](const Tensor& g) { return g * 10.0; });
  const Tensor loss = sum(plain + y);
  EXPECT_FALSE(y.grad().defined());
  grad(loss, {x}, {}, {.retain_graph = true});
  EXPECT_FALSE(y.grad().defined()) << "grad() leaves grads alone";
  backward(loss, {}, {.retain_graph = true});
  EXPECT_EQ(y.grad().to_vector<float>(), (Floats{40, 40})) << "as hooks leave it, also later ones";
  EXPECT_EQ(x.grad().to_vector<float>(), (Floats{80, 80}));
  EXPECT_FALSE(plain.grad().defined());
  loss.backward();
  EXPECT_EQ(y.grad().to_vector<float>(), (Floats{80, 80})) << "adds up";
  fill_(y.grad(), 5);
  EXPECT_EQ(x.grad().to_vector<float>(), (Floats{160, 160})) << "and shares no memory";
  y.set_grad({});
  EXPECT_FALSE(y.grad().defined());
  expect_holds(error_of([] { Tensor::ones({1}).retain_grad(); }), {"retain_grad"});
}

TEST(RetainGrad, GivesMemoryOfItsOwn) {
  const Tensor x = leaf(), seed = Tensor::ones({2});
  const Tensor y = x * 1.0, z = y + x;  // the gradient of z is that of y and a part of x's
  y.retain_grad();
  z.retain_grad();
  backward(z, seed);
  fill_(z.grad(), 5);
  EXPECT_EQ(seed.to_vector<float>(), (Floats{1, 1})) << "the caller's";
  EXPECT_EQ(y.grad().to_vector<float>(), (Floats{1, 1}));
  fill_(y.grad(), 7);
  EXPECT_EQ(z.grad().to_vector<float>(), (Floats{5, 5}));
  EXPECT_EQ(x.grad().to_vector<float>(), (Floats{2, 2}));
}

TEST(RetainGrad, FollowsInPlaceChanges) {
  const Tensor x = leaf();
  const Tensor y = x * 2.0, base = x * 1.0, view = narrow(base, 0, 0, 1);
  y.retain_grad();
  view.retain_grad();
  mul_(y, 5.0);
  mul_(base, 7.0);
  sum(y * 3.0).backward();
  EXPECT_EQ(y.grad().to_vector<float>(), (Floats{3, 3})) << "of what y is now";
  sum(view * 4.0).backward();
  EXPECT_EQ(view.grad().to_vector<float>(), (Floats{4}));
  EXPECT_EQ(x.grad().to_vector<float>(), (Floats{30 + 28, 30}));
}

TEST(RetainGrad, CanBeDifferentiatedAndMakesNoCycle) {
  const Tensor x = leaf();
  const std::size_t before = used();
  {
    const Tensor y = exp(x);
    y.retain_grad();
    sum(y * y).backward();
  }
  x.set_grad({});
  EXPECT_EQ(used(), before);
  const Tensor y = x * 2.0;
  y.retain_grad();
  backward(sum(y * y), {}, {.create_graph = true});
  EXPECT_EQ(grad(sum(y.grad()), {x})[0].to_vector<float>(), (Floats{4, 4}));
  // A gradient with a graph holds what it was made from, which holds it.
  for (const Tensor& t : {x, y}) t.set_grad({});
}

}  // namespace
}  // namespace trireme
