// Tests autocast and loss scaling.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/amp/autocast.h"
#include "core/nn/layers.h"
#include "core/nn/recompute.h"
#include "core/optim/grad_scaler.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using amp::Autocast;
using amp::GradScaler;
using test::error_of;
using test::expect_holds;

Tensor values(const Shape& shape, std::uint64_t seed = 1) {
  nn::manual_seed(seed);
  const Tensor t = Tensor::empty(shape);
  kernels_of(kCpu).normal(t.view(), nn::next_initial_key(), 0, 1);
  return t;
}

Tensor low(const Tensor& t, DType dtype = DType::kBFloat16) { return to_dtype(t, dtype); }

TEST(AutocastTest, ProductsAreLowAndTheRestIsFull) {
  const Tensor a = values({4, 8}), b = values({8, 4}), image = values({2, 3, 5, 5}),
               kernel = values({4, 3, 3, 3});
  const Tensor labels = Tensor::from<std::int64_t>({0, 1, 2, 3}, {4});
  const Autocast guard;
  const Tensor y = matmul(a, b);
  EXPECT_EQ(y.dtype(), DType::kBFloat16);
  EXPECT_EQ(linear(a, b.alias({4, 8}, {1, 4}, 0), values({4})).dtype(), DType::kBFloat16);
  EXPECT_EQ(bmm(reshape(a, {1, 4, 8}), reshape(b, {1, 8, 4})).dtype(), DType::kBFloat16);
  EXPECT_EQ(relu(y).dtype(), DType::kBFloat16) << "elementwise ops stay with what they get";
  for (const Tensor& full : {softmax(y),
                             log_softmax(y),
                             sum(y),
                             mean(y),
                             var(y),
                             norm(y),
                             prod(y),
                             cumsum(y, 0),
                             logsumexp(y, {1}),
                             cross_entropy(y, labels),
                             nll_loss(y, labels),
                             mse_loss(y, y),
                             l1_loss(y, y),
                             huber_loss(y, y),
                             bce_with_logits(y, y),
                             kl_div(y, y),
                             layer_norm(y, Tensor::ones({4})),
                             rms_norm(y),
                             group_norm(y, 2),
                             batch_norm(low(image), Tensor::ones({3}), Tensor::zeros({3}), {}, {})})
    EXPECT_EQ(full.dtype(), DType::kFloat32);
  const Tensor heads = reshape(a, {1, 2, 4, 4});
  EXPECT_EQ(scaled_dot_product_attention(heads, low(heads), heads, {.attn_mask = values({4, 4})}).dtype(),
            DType::kBFloat16);
  EXPECT_EQ(lstm_cell(low(values({2, 12})), values({2, 3})).c.dtype(), DType::kFloat32);
  EXPECT_EQ(gru_cell(low(values({2, 9})), values({2, 9}), values({2, 3})).dtype(), DType::kFloat32);
  const Tensor rounded =
      conv2d(to_dtype(low(image), DType::kFloat32), to_dtype(low(kernel), DType::kFloat32));
  EXPECT_EQ(conv2d(image, kernel).to_vector<float>(), rounded.to_vector<float>());
  EXPECT_EQ(matmul(to_dtype(a, DType::kFloat64), to_dtype(b, DType::kFloat64)).dtype(), DType::kFloat64);
}

TEST(AutocastTest, ComputesWhatTheOpDoesInLowPrecision) {
  const Tensor a = values({4, 8}), b = values({8, 4});
  const Tensor expected = matmul(low(a), low(b));
  {
    const Autocast guard;
    EXPECT_EQ(matmul(a, b).to_vector<float>(), expected.to_vector<float>());
    const Autocast half(true, DType::kFloat16);
    EXPECT_EQ(matmul(a, b).dtype(), DType::kFloat16);
    const Autocast off(false);
    EXPECT_EQ(matmul(a, b).dtype(), DType::kFloat32);
  }
  EXPECT_EQ(matmul(a, b).dtype(), DType::kFloat32);
  EXPECT_FALSE(autocast_mode.on);
  expect_holds(error_of([] { Autocast(true, DType::kFloat32); }), {"bfloat16 or float16"});
}

TEST(AutocastTest, AnErrorInAnOpLeavesItOn) {
  const Autocast guard;
  EXPECT_THROW(matmul(values({2, 3}), values({2, 3})), Error);
  EXPECT_EQ(matmul(values({2, 3}), values({3, 2})).dtype(), DType::kBFloat16);
}

TEST(AutocastTest, ParametersAndTheirGradientsStayFloat32) {
  nn::Linear first(6, 8), second(8, 3);
  const Tensor x = values({5, 6}), labels = Tensor::from<std::int64_t>({0, 1, 2, 0, 1}, {5});
  const auto gradients = [&](bool on) {
    const Autocast guard(on);
    cross_entropy(second(relu(first(x))), labels).backward();  // runs backward under autocast
    std::vector<float> all;
    for (const Tensor& p : {first.weight, first.bias, second.weight, second.bias}) {
      EXPECT_EQ(p.dtype(), DType::kFloat32);
      EXPECT_EQ(p.grad().dtype(), DType::kFloat32);
      for (const float g : p.grad().to_vector<float>()) all.push_back(g);
      p.set_grad({});
    }
    return all;
  };
  const auto full = gradients(false), mixed = gradients(true);
  EXPECT_NE(full, mixed);
  double distance = 0, size = 0;
  for (std::size_t i = 0; i < full.size(); ++i) {
    distance += std::pow(full[i] - mixed[i], 2);
    size += std::pow(full[i], 2);
  }
  EXPECT_LT(std::sqrt(distance / size), 0.02);
}

TEST(AutocastTest, AParameterIsConvertedOncePerGuardAndAgainAfterAChange) {
  const Tensor w = values({4, 4}).set_requires_grad(true), x = values({2, 4});
  const auto taken = [&](std::size_t i) { return Tensor(amp::Cast("matmul", {&x, &w})[i]); };
  const Autocast guard;
  EXPECT_EQ(taken(1).raw(), taken(1).raw());
  const Tensor one = taken(0), other = taken(0);
  EXPECT_NE(one.raw(), other.raw()) << "data is not kept";
  {
    const NoGrad off;
    EXPECT_FALSE(taken(1).requires_grad());
    mul_(w, 2);
  }
  const Tensor changed = taken(1);
  EXPECT_TRUE(changed.requires_grad());
  EXPECT_EQ(changed.to_vector<float>(), low(w).to_vector<float>());
  {
    const Autocast inner;
    EXPECT_EQ(taken(1).raw(), changed.raw());
  }
  EXPECT_EQ(taken(1).raw(), changed.raw()) << "the outermost guard keeps it";
}

TEST(AutocastTest, BackwardRunsAnyNumberOfTimesUnderOneGuard) {
  Tensor w = Tensor::ones({2, 2});
  w.set_requires_grad(true);
  const Tensor x = Tensor::ones({1, 2});
  const Autocast guard;
  for (int pass = 1; pass <= 3; ++pass) {
    sum(linear(x, w)).backward();
    EXPECT_EQ(w.grad().to_vector<float>(), std::vector<float>(4, static_cast<float>(pass)));
  }
}

TEST(AutocastTest, GradientsOfAllUsesMeetInFloat32) {
  Tensor w = Tensor::ones({1, 1});
  w.set_requires_grad(true);
  const Autocast guard;
  Tensor total = Tensor::zeros({1, 1});
  // 256 + 1 needs more bits than bfloat16 has.
  for (const double scale : {256.0, 1.0})
    total = total + to(linear(Tensor::ones({1, 1}), w), DType::kFloat32) * scale;
  sum(total).backward();
  EXPECT_EQ(w.grad().item(), 257);
}

TEST(AutocastTest, NothingIsKeptWhenTheGuardIsGone) {
  const Tensor w = values({4, 4}).set_requires_grad(true), x = values({2, 4});
  Tensor taken;
  {
    const Autocast guard;
    taken = amp::Cast("matmul", {&x, &w})[1];
  }
  EXPECT_EQ(taken.impl()->use_count(), 1u);
}

TEST(AutocastTest, RecomputationDoesTheSameAfterTheGuard) {
  nn::Linear layer(4, 4);
  const Tensor x = values({3, 4}).set_requires_grad(true);
  const auto gradient = [&](bool again) {
    Tensor loss;
    {
      const Autocast guard;
      const auto body = [&](const std::vector<Tensor>& in) { return tanh(layer(in[0])); };
      loss = sum(square(again ? recompute(body, {x}) : body({x})));
    }
    loss.backward();
    const auto g = layer.weight.grad().to_vector<float>();
    layer.weight.set_grad({});
    return g;
  };
  EXPECT_EQ(gradient(true), gradient(false));
}

/// An optimizer with one parameter whose gradient the test sets.
struct Scene {
  Tensor w = Tensor::ones({2}).set_requires_grad(true);
  optim::SGD sgd{{{{"w", w}}}, {.lr = 1}};
  void gradient(float a, float b) { w.set_grad(Tensor::from<float>({a, b}, {2})); }
};

TEST(GradScalerTest, ScalesUnscalesAndSteps) {
  Scene scene;
  GradScaler scaler({.initial_scale = 8});
  scaler.scale(sum(scene.w)).backward();
  EXPECT_EQ(scene.w.grad().to_vector<float>(), (std::vector<float>{8, 8}));
  scaler.unscale_(scene.sgd);
  EXPECT_EQ(scene.w.grad().to_vector<float>(), (std::vector<float>{1, 1}));
  expect_holds(error_of([&] { scaler.unscale_(scene.sgd); }), {"twice"});
  EXPECT_TRUE(scaler.step(scene.sgd));
  EXPECT_EQ(scene.w.to_vector<float>(), (std::vector<float>{0, 0}));
  scaler.update();
  EXPECT_EQ(scaler.scale(), 8);
  expect_holds(error_of([&] { scaler.update(); }), {"without a step"});
}

TEST(GradScalerTest, AnOverflowIsLeftOutAndLowersTheScale) {
  Scene scene;
  GradScaler scaler;
  EXPECT_EQ(scaler.scale(), 65536);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const double before = scaler.scale();
    scene.gradient(1, bad);
    EXPECT_FALSE(scaler.step(scene.sgd));
    scaler.update();
    EXPECT_EQ(scaler.scale(), before / 2);
  }
  EXPECT_EQ(scene.w.to_vector<float>(), (std::vector<float>{1, 1}));
  scene.gradient(16384, 0);
  EXPECT_TRUE(scaler.step(scene.sgd)) << "the next one is looked at anew";
  EXPECT_EQ(scene.w.to_vector<float>(), (std::vector<float>{0, 1}));
}

TEST(GradScalerTest, GrowsAfterStepsWithoutOverflow) {
  Scene scene;
  GradScaler scaler({.initial_scale = 4, .growth_interval = 3});
  const auto step = [&](float g) {
    scene.gradient(g, 0);
    scaler.step(scene.sgd);
    scaler.update();
    return scaler.scale();
  };
  EXPECT_EQ(step(1), 4);
  EXPECT_EQ(step(1), 4);
  EXPECT_EQ(step(1), 8);
  EXPECT_EQ(step(1), 8);
  EXPECT_EQ(step(INFINITY), 4);
  EXPECT_EQ(step(1), 4);
  EXPECT_EQ(step(1), 4) << "an overflow starts the count anew";
  EXPECT_EQ(step(1), 8);
}

/// A source of gradients that are not finite after the reduction.
struct BadSource : GradientSource {
  ExitCode code = ExitCode::kNonFinite;
  void finish() override { throw AgreedError(code, "a gradient"); }
  void attach(optim::Optimizer&) override {}
  void detach(optim::Optimizer&) override {}
};

TEST(GradScalerTest, WhatTheReducerRefusesIsAnOverflow) {
  const auto source = std::make_shared<BadSource>();
  const Tensor w = Tensor::ones({1}).set_requires_grad(true);
  optim::SGD sgd({{{"w", w}}, source}, {.lr = 1});
  GradScaler scaler;
  EXPECT_FALSE(scaler.step(sgd));
  scaler.update();
  EXPECT_EQ(scaler.scale(), 32768);
  source->code = ExitCode::kPeer;
  EXPECT_THROW(scaler.step(sgd), Error);
}

TEST(GradScalerTest, OffItDoesNothing) {
  Scene scene;
  GradScaler scaler({.enabled = false});
  EXPECT_EQ(scaler.scale(sum(scene.w)).item(), 2);
  scene.gradient(INFINITY, 0);
  EXPECT_TRUE(scaler.step(scene.sgd));
  scaler.update();
  EXPECT_EQ(scaler.scale(), 1);
  expect_holds(error_of([] { GradScaler({.backoff = 2}); }), {"backoff 2"});
}

TEST(GradScalerTest, AStepWithoutUpdateIsRefused) {
  Scene scene;
  GradScaler scaler;
  scene.gradient(65536, 0);
  scaler.step(scene.sgd);
  expect_holds(error_of([&] { scaler.step(scene.sgd); }), {"step() was called twice", "update()"});
  scaler.update();
  EXPECT_TRUE(scaler.step(scene.sgd));
}

TEST(GradScalerTest, TheScaledLossIsWide) {
  const Tensor loss = GradScaler().scale(Tensor::full({}, 2, DType::kFloat16));
  EXPECT_EQ(loss.dtype(), DType::kFloat32);
  EXPECT_EQ(loss.item(), 131072);
}

}  // namespace
}  // namespace trireme
