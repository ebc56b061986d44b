// Tests that activation checkpointing gives the same bits with less memory.
#include <gtest/gtest.h>

#include "core/autograd/autograd.h"
#include "core/nn/layers.h"
#include "core/nn/recompute.h"
#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using test::error_of;
using test::expect_holds;

std::size_t used() { return allocator_statistics(kCpu).used_bytes; }

struct Block : nn::Module {
  nn::Conv2d conv{3, 3, 3, {.padding = 1}};
  nn::BatchNorm2d norm{3};
  nn::Dropout drop{0.3};
  Tensor forward(const Tensor& x) override { return max_pool2d(drop(silu(norm(conv(x)))), {3, 1, 1}) + x; }
  void visit(nn::Visitor& v) override {
    v.module("conv", conv);
    v.module("norm", norm);
    v.module("drop", drop);
  }
};

struct Trained {
  std::vector<std::vector<float>> bits;
  std::size_t held;  ///< bytes in use between forward and backward
  int forwards = 0;
};

Trained train(bool recomputes, bool twice = false) {
  nn::manual_seed(5);
  Block block;
  nn::name_modules(block, "block");
  Trained run;
  const Tensor x = uniform({4, 3, 16, 16}, RandomKey{3}).set_requires_grad(true);
  const std::size_t before = used();
  for (int step = 0; step < 2; ++step) {
    nn::set_random_context({.seed = 9, .step = static_cast<std::uint64_t>(step)});
    const auto fn = [&](const std::vector<Tensor>& in) {
      ++run.forwards;
      const Tensor y = block(in[0]);
      return twice ? block(y) : y;
    };
    const Tensor h = x * 2.0;
    const Tensor y = recomputes ? nn::recompute(fn, {h}) : fn({h});
    const Tensor loss = sum(square(block(y)));  // uses the same layers again without checkpointing
    run.held = used() - before;
    loss.backward();
  }
  run.bits.push_back(x.grad().to_vector<float>());
  for (const NamedTensor& p : block.parameters()) run.bits.push_back(p.tensor.grad().to_vector<float>());
  for (const NamedTensor& b : block.buffers()) run.bits.push_back(b.tensor.to_vector<float>());
  return run;
}

TEST(Recompute, GivesTheSameBitsWithLessMemory) {
  for (const bool twice : {false, true}) {
    const Trained kept = train(false, twice), again = train(true, twice);
    EXPECT_EQ(kept.bits, again.bits) << "gradients, dropout masks and running statistics";
    EXPECT_EQ(kept.forwards, 2);
    EXPECT_EQ(again.forwards, 4);
    EXPECT_LT(again.held, kept.held * 3 / 4);
  }
}

TEST(Recompute, NestsAndDifferentiatesAgain) {
  const Tensor x = Tensor::from(std::vector<double>{0.5, 1.5}, {2}).set_requires_grad(true);
  const auto inner = [](const std::vector<Tensor>& in) { return exp(in[0]) * in[0]; };
  const auto outer = [&](const std::vector<Tensor>& in) { return sin(recompute(inner, {square(in[0])})); };
  const auto second = [&](const std::function<Tensor(const std::vector<Tensor>&)>& fn) {
    const Tensor g = grad(sum(fn({x})), {x}, {}, {.create_graph = true})[0];
    return std::pair{g.to_vector<double>(), grad(sum(g * g), {x})[0].to_vector<double>()};
  };
  EXPECT_EQ(second([&](const std::vector<Tensor>& in) { return recompute(outer, in); }),
            second([&](const std::vector<Tensor>& in) { return sin(inner({square(in[0])})); }));
}

TEST(Recompute, FreesEverything) {
  const Tensor x = Tensor::ones({1000}).set_requires_grad(true);
  const std::size_t before = used();
  for (const bool runs : {false, true}) {
    const Tensor y =
        sum(recompute([](const std::vector<Tensor>& in) { return exp(in[0]) * exp(in[0]); }, {x * 1.0}));
    if (runs) y.backward();
    x.set_grad({});
  }
  EXPECT_EQ(used(), before);
}

TEST(Recompute, SaysWhatWentWrong) {
  const Tensor x = Tensor::ones({3}).set_requires_grad(true), h = x * 2.0;
  int runs = 0;
  const Tensor y =
      recompute([&](const std::vector<Tensor>& in) { return runs++ ? exp(in[0]) * in[0] : exp(in[0]); }, {h});
  expect_holds(error_of([&] { sum(y).backward(); }),
               {"recompute:", "saved 1 tensors", "3 when it was run again"});
  const Tensor z = recompute([](const std::vector<Tensor>& in) { return exp(in[0]); }, {h});
  mul_(h, 3.0);
  expect_holds(error_of([&] { sum(z).backward(); }), {"recompute:", "input 0", "mul_"});
}

TEST(Recompute, NoticesWhatIsChangedAfterItWasSaved) {
  const Tensor x = Tensor::ones({2}).set_requires_grad(true);
  const Tensor y = recompute(
      [](const std::vector<Tensor>& in) {
        const Tensor h = exp(in[0]);
        add_(h, 1.0);
        return h * 1.0;
      },
      {x});
  expect_holds(error_of([&] { sum(y).backward(); }), {"exp:", "saved for backward", "add_"});
  const Tensor z = recompute(
      [](const std::vector<Tensor>& in) {
        const Tensor h = in[0] * 1.0, squared = h * h;
        mul_(h, 10.0);
        return squared + h;
      },
      {x});
  expect_holds(error_of([&] { sum(z).backward(); }), {"mul:", "saved for backward", "mul_"});
}

TEST(Recompute, CanBeTriedAgainAfterAFailure) {
  const Tensor x = uniform({3}, RandomKey{1}).set_requires_grad(true);
  int runs = 0;
  const auto fn = [&](const std::vector<Tensor>& in) {
    const Tensor y = exp(in[0]);
    if (++runs == 2) fail(ExitCode::kData, "fn: no data");
    return sin(y);
  };
  const Tensor loss = sum(nn::recompute(fn, {x}));
  expect_holds(error_of([&] { backward(loss, {}, {.retain_graph = true}); }), {"no data"});
  loss.backward();
  EXPECT_EQ(runs, 3);
  EXPECT_EQ(x.grad().to_vector<float>(), grad(sum(sin(exp(x))), {x})[0].to_vector<float>());
}

TEST(Recompute, AnotherShapeInTheSecondRunIsAnError) {
  const Tensor x = uniform({4}, RandomKey{1}).set_requires_grad(true);
  int runs = 0;
  const Tensor y = nn::recompute(
      [&](const std::vector<Tensor>& in) { return exp(runs++ ? narrow(in[0], 0, 0, 1) : in[0] * 1.0); }, {x});
  expect_holds(error_of([&] { sum(y).backward(); }), {"recompute:", "(4) at first", "is float32 (1) when"});
}

TEST(Recompute, AnotherNumberOfTensorsIsAnErrorEachTime) {
  const Tensor x = uniform({4}, RandomKey{1}).set_requires_grad(true);
  int runs = 0;
  const Tensor y = nn::recompute(
      [&](const std::vector<Tensor>& in) { return runs++ ? exp(in[0] * 1.0) : exp(exp(in[0] * 1.0)); }, {x});
  for (int i = 0; i < 2; ++i)
    expect_holds(error_of([&] { backward(sum(y), {}, {.retain_graph = true}); }),
                 {"saved 2 tensors", "and 1 when"});
}

}  // namespace
}  // namespace trireme
