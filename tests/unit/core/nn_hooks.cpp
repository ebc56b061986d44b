#include <gtest/gtest.h>

#include "core/autograd/autograd.h"
#include "core/nn/layers.h"
#include "core/nn/recompute.h"
#include "tests/support/errors.h"

namespace trireme::nn {
namespace {

using test::error_of;
using test::expect_holds;
using Tensors = std::vector<Tensor>;
using Floats = std::vector<float>;

Tensor ones(bool wants_gradient) { return Tensor::ones({1, 2}).set_requires_grad(wants_gradient); }

/// Computes y = 3 x + 1.
struct Line : Module {
  Tensor slope = Tensor::full({1}, 3).set_requires_grad(true);
  Tensor forward(const Tensor& x) override { return x * slope + 1.0; }
  void visit(Visitor& v) override { v.parameter("slope", slope); }
};

TEST(ModuleHooks, SeeAndReplaceInputsAndResults) {
  Line line;
  std::vector<std::string> order;
  HookHandle before = line.register_forward_pre_hook([&](const Tensors& in) {
    order.push_back("before");
    return Tensors{in[0] * 2.0};
  });
  HookHandle after = line.register_forward_hook([&](const Tensors& in, const Tensors& out) {
    order.push_back("after");
    EXPECT_EQ(in[0].to_vector<float>(), (Floats{2, 2})) << "as the other hook left it";
    EXPECT_EQ(out[0].to_vector<float>(), (Floats{7, 7}));
    return Tensors{out[0] * 10.0};
  });
  line.register_forward_hook([&](const Tensors&, const Tensors&) {
    order.push_back("silent");
    return Tensors{};
  });
  EXPECT_EQ(line(ones(false)).to_vector<float>(), (Floats{70, 70}));
  EXPECT_EQ(order, (std::vector<std::string>{"before", "after", "silent"}));
  EXPECT_EQ(line.forward(ones(false)).to_vector<float>(), (Floats{4, 4})) << "forward() itself has no hooks";
  before.remove();
  after.remove();
  after.remove();
  EXPECT_EQ(line(ones(false)).to_vector<float>(), (Floats{4, 4}));
  EXPECT_EQ(order.size(), 4u);
  line.register_forward_hook([](const Tensors&, const Tensors&) { return Tensors(2); });
  expect_holds(error_of([&] { line(ones(false)); }), {"forward hook", "2 tensors", "replace 1"});
}

TEST(ModuleHooks, MayRemoveThemselves) {
  Line line;
  int calls = 0;
  const auto alive = std::make_shared<int>(7);
  HookHandle once;
  once = line.register_forward_pre_hook([&, alive](const Tensors&) {
    once.remove();
    EXPECT_GE(alive.use_count(), 2) << "the hook itself is still there";
    calls += *alive;
    return Tensors{};
  });
  line(ones(false));
  line(ones(false));
  EXPECT_EQ(calls, 7);
  EXPECT_EQ(alive.use_count(), 1) << "and gone now";
}

TEST(ModuleHooks, ReachModulesInsideOthers) {
  Sequential net{Line(), Line()};
  int calls = 0;
  for (std::size_t i = 0; i < 2; ++i)
    net[i]->register_forward_hook([&](const Tensors&, const Tensors&) {
      ++calls;
      return Tensors{};
    });
  net(ones(false));
  EXPECT_EQ(calls, 2);
  BasicBlock block(2, 2);
  block.bn2.register_forward_pre_hook([&](const Tensors& in) {
    EXPECT_EQ(in.size(), 2u) << "x and shortcut";
    ++calls;
    return Tensors{};
  });
  block(Tensor::ones({1, 2, 3, 3}));
  EXPECT_EQ(calls, 3);
}

TEST(ModuleHooks, SeeAndReplaceGradients) {
  for (const bool through_inputs : {true, false}) {
    Line line;
    std::vector<Floats> seen;
    HookHandle handle = line.register_full_backward_hook([&](const Tensors& in, const Tensors& out) {
      EXPECT_EQ(in.size(), 1u);
      EXPECT_EQ(in[0].defined(), through_inputs);
      if (in[0].defined()) seen.push_back(in[0].to_vector<float>());
      seen.push_back(out[0].to_vector<float>());
      return through_inputs ? Tensors{in[0] * 10.0} : Tensors{};
    });
    const Tensor x = ones(through_inputs);
    sum(line(x) * 2.0).backward();
    EXPECT_EQ(seen, through_inputs ? (std::vector<Floats>{{6, 6}, {2, 2}}) : (std::vector<Floats>{{2, 2}}));
    if (through_inputs) {
      EXPECT_EQ(x.grad().to_vector<float>(), (Floats{60, 60}));
    }
    EXPECT_EQ(line.slope.grad().to_vector<float>(), (Floats{4})) << "parameters' gradients stay";
    handle.remove();
    seen.clear();
    x.set_grad({});
    sum(line(x)).backward();
    EXPECT_TRUE(seen.empty());
    if (through_inputs) {
      EXPECT_EQ(x.grad().to_vector<float>(), (Floats{3, 3}));
    }
  }
}

TEST(ModuleHooks, OfBackwardSeeTheSumOverAllUsesOfAnInput) {
  struct Twice : Module {
    Tensor forward(const Tensor& x) override { return x * 2.0 + x * x; }
  } twice;
  int calls = 0;
  twice.register_full_backward_hook([&](const Tensors& in, const Tensors&) {
    ++calls;
    EXPECT_EQ(in[0].to_vector<float>(), (Floats{4, 4}));
    return Tensors{};
  });
  const Tensor x = ones(true);
  sum(twice(x)).backward();
  EXPECT_EQ(calls, 1);
}

TEST(ModuleHooks, OfBackwardSeeResultsAsTheyWereBeforeAChangeInPlace) {
  struct Views : Module {  // returns a view of new memory
    Tensor forward(const Tensor& x) override { return narrow(x * 3.0, 1, 0, 1); }
  } views;
  Line line;
  for (Module* module : std::initializer_list<Module*>{&line, &views})
    for (const bool through_inputs : {true, false}) {
      std::vector<Floats> seen;
      HookHandle handle = module->register_full_backward_hook([&](const Tensors&, const Tensors& out) {
        seen.push_back(out[0].to_vector<float>());
        return Tensors{};
      });
      const Tensor x = ones(through_inputs), y = (*module)(x);
      if (!y.requires_grad()) continue;
      mul_(y, 5.0);
      relu_(y);
      sum(y * 2.0).backward();
      const Floats wanted(static_cast<std::size_t>(y.numel()), 10);
      EXPECT_EQ(seen, std::vector<Floats>{wanted});
      if (through_inputs) {
        EXPECT_EQ(x.grad().to_vector<float>(), module == &line ? (Floats{30, 30}) : (Floats{30, 0}));
      }
      handle.remove();
    }
}

TEST(ModuleHooks, OfBackwardRefuseChangesInPlaceThatTheyCannotFollow) {
  const auto watch = [](Module& module) {
    module.register_full_backward_hook([](const Tensors&, const Tensors&) { return Tensors{}; });
  };
  struct Doubles : Module {
    Tensor forward(const Tensor& x) override { return mul_(x, 2.0); }
  } doubles;
  watch(doubles);
  const Tensor x = ones(true), h = x * 1.0;
  const auto refusal = {"module: memory of an input was changed in place", "clone it first"};
  expect_holds(error_of([&] { doubles(h); }), refusal);
  struct Same : Module {
    Tensor forward(const Tensor& t) override { return t; }
  } same;
  watch(same);
  sum(same(x * 1.0) * 2.0).backward();
  EXPECT_EQ(x.grad().to_vector<float>(), (Floats{2, 2}));
  const Tensor k = x * 1.0, y = same(k), z = same(x * 1.0);
  mul_(y, 3.0);
  expect_holds(error_of([&] { sum(y); }), refusal);
  expect_holds(error_of([&] { sum(y); }), refusal);
  EXPECT_EQ(sum(k).item(), 6);
  {
    const NoGrad off;
    mul_(z, 3.0);
  }
  EXPECT_EQ(sum(z).item(), 6) << "what is not recorded loses no history";
}

TEST(ModuleHooks, OfBackwardKnowResultsThatWereNotUsed) {
  struct Aside : Module {
    Tensor loss;
    Tensor forward(const Tensor& x) override {
      loss = sum(x);
      return x * 2.0;
    }
  } aside;
  std::size_t results = 0;
  aside.register_full_backward_hook([&](const Tensors&, const Tensors& out) {
    results = out.size();
    EXPECT_FALSE(out[0].defined());
    return Tensors{};
  });
  const Tensor x = ones(true);
  aside(x);
  aside.loss.backward();
  EXPECT_EQ(results, 1u);
}

TEST(ModuleHooks, OfBackwardDifferentiateAgainAndRunUnderRecompute) {
  Line line;
  int calls = 0;
  line.register_full_backward_hook([&](const Tensors& in, const Tensors&) {
    ++calls;
    return Tensors{in[0] * in[0]};
  });
  const Tensor x = ones(true);
  const Tensor g = grad(sum(line(x)), {x}, {}, {.create_graph = true})[0];
  EXPECT_EQ(g.to_vector<float>(), (Floats{9, 9}));
  EXPECT_EQ(grad(sum(g), {line.slope})[0].to_vector<float>(), (Floats{12})) << "2 * d(slope^2)/d(slope)";
  const Tensor y = nn::recompute([&](const Tensors& in) { return line(exp(in[0])); }, {x * 0.0});
  calls = 0;
  sum(y).backward();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(line.slope.grad().to_vector<float>(), (Floats{2}));
}

TEST(ModuleHooks, CostNothingWithoutGradients) {
  Line line;
  line.register_full_backward_hook([](const Tensors&, const Tensors&) { return Tensors{}; });
  const NoGrad off;
  EXPECT_FALSE(line(ones(true)).requires_grad());
}

}  // namespace
}  // namespace trireme::nn
