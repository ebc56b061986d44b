// Tests hooks that remove themselves, and gradients of tensors that are results of ops.
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
  const Tensor y = x * 1.0, z = y + x;  // the gradient of z is y's, and a part of x's
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
  // Break cycles: a gradient with a graph owns the tensors that it was computed from, which own the gradient.
  for (const Tensor& t : {x, y}) t.set_grad({});
}

/// An op may give two results the same gradient memory. Later additions to one must not change the other.
TEST(Gathering, ChangesNoGradientThatOthersSee) {
  for (const bool late : {false, true}) {
    const Tensor x = leaf();
    Tensor seen;
    const Tensor a = x * 2.0, b = x * 3.0;
    const HookHandle hook = register_hook(a, [&](const Tensor& g) {
      seen = g;
      return g;
    });
    Tensor more = late ? Tensor() : b * 5.0;
    const Tensor both = a + b;  // gives a and b the same gradient memory
    if (late) more = b * 5.0;
    sum(both + more).backward();
    EXPECT_EQ(seen.to_vector<float>(), (Floats{1, 1})) << late;
    EXPECT_EQ(x.grad().to_vector<float>(), (Floats{20, 20})) << late;
  }
}

TEST(Gathering, AddsWindowsToWhatIsThere) {
  const Tensor x = Tensor::ones({2, 3}).set_requires_grad(true);
  const Tensor y = x * 1.0;
  Tensor seen;
  const HookHandle hook = register_hook(y, [&](const Tensor& g) {
    seen = g;
    return g;
  });
  const Tensor left = narrow(y, 1, 0, 2), right = narrow(y, 1, 1, 2), row = narrow(y, 0, 1, 1);
  (sum(left) + sum(right) * 10.0 + sum(row) * 100.0 + sum(transpose(y, 0, 1)) * 1000.0).backward();
  const Floats expected{1001, 1011, 1010, 1101, 1111, 1110};
  EXPECT_EQ(seen.to_vector<float>(), expected);
  EXPECT_EQ(x.grad().to_vector<float>(), expected);
}

/// A hook may return memory that the engine does not own.
TEST(Gathering, LeavesLentMemoryAlone) {
  std::vector<float> lent{7, 7};
  const Tensor x = leaf(), y = x * 1.0, a = y * 1.0;
  const HookHandle hook = register_hook(a, [&](const Tensor&) {
    auto impl = make_ref<TensorImpl>();
    impl->storage = make_ref<Storage>(lent.data(), sizeof(float) * 2, kCpu, [] {});
    impl->shape = {2};
    impl->strides = {1};
    return Tensor(impl);
  });
  (sum(a) + sum(y * 2.0)).backward();
  EXPECT_EQ(x.grad().to_vector<float>(), (Floats{9, 9}));
  EXPECT_EQ(lent, (Floats{7, 7}));
}

}  // namespace
}  // namespace trireme
