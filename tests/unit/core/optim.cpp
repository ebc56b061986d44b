#include "core/optim/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>

#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme::optim {
namespace {

using test::error_of;
using test::expect_holds;

constexpr int kSteps = 10;

/// Returns the gradient of element i at a step, which varies in sign and size.
double gradient_at(int step, std::int64_t i) {
  return std::sin(1.7 * step + 0.9 * static_cast<double>(i)) * (1 + static_cast<double>(i % 3));
}

Tensor start(DType dtype) {
  return to_dtype(Tensor::from(std::vector<double>{1, -2, 0.5, 3, -0.25, 0}, {2, 3}), dtype)
      .set_requires_grad(true);
}

void set_gradient(const Tensor& p, int step) {
  const Tensor g = Tensor::empty({2, 3}, DType::kFloat64);
  for (std::int64_t i = 0; i < 6; ++i) g.data<double>()[i] = gradient_at(step, i);
  p.set_grad(to_dtype(g, p.dtype()));
}

/// Runs an optimizer for ten steps and compares it with `reference`, which updates one element by the
/// textbook.
template <class Make>
void compare(
    const Make& make,
    const std::function<void(int step, std::int64_t i, double g, double& p, double state[2])>& reference) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    const Tensor p = start(dtype);
    auto optimizer = make(ParameterList({{"p", p}}));
    std::vector<double> wanted = p.to_vector<double>();
    double state[6][2] = {};
    for (int step = 1; step <= kSteps; ++step) {
      set_gradient(p, step);
      optimizer->step();
      for (std::int64_t i = 0; i < 6; ++i)
        reference(step, i, gradient_at(step, i), wanted[static_cast<std::size_t>(i)], state[i]);
      for (std::size_t i = 0; i < 6; ++i)
        ASSERT_NEAR(p.to_vector<double>()[i], wanted[i], dtype == DType::kFloat32 ? 1e-5 : 1e-12)
            << "step " << step << ", element " << i;
    }
  }
}

TEST(SGD, MatchesTheTextbook) {
  for (const double momentum : {0.0, 0.9})
    for (const double decay : {0.0, 0.01})
      for (const bool nesterov : {false, true}) {
        if (nesterov && momentum == 0) continue;
        const SgdOptions o{.lr = 0.1, .momentum = momentum, .weight_decay = decay, .nesterov = nesterov};
        compare([&](ParameterList list) { return std::make_unique<SGD>(std::move(list), o); },
                [&](int step, std::int64_t, double g, double& p, double state[2]) {
                  // The first velocity is the gradient itself, as in torch.optim.SGD.
                  const double d = g + decay * p;
                  state[0] = step == 1 ? d : momentum * state[0] + d;
                  p -= 0.1 * (nesterov ? d + momentum * state[0] : momentum != 0 ? state[0] : d);
                });
      }
}

TEST(AdamW, MatchesTheTextbook) {
  const AdamWOptions o{.lr = 0.02, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.1};
  compare([&](ParameterList list) { return std::make_unique<AdamW>(std::move(list), o); },
          [&](int step, std::int64_t, double g, double& p, double state[2]) {
            p -= o.lr * o.weight_decay * p;
            state[0] = o.beta1 * state[0] + (1 - o.beta1) * g;
            state[1] = o.beta2 * state[1] + (1 - o.beta2) * g * g;
            const double m = state[0] / (1 - std::pow(o.beta1, step)),
                         v = state[1] / (1 - std::pow(o.beta2, step));
            p -= o.lr * m / (std::sqrt(v) + o.eps);
          });
}

TEST(Optimizer, LeavesParametersWithoutGradientsAlone) {
  const Tensor a = start(DType::kFloat32), b = start(DType::kFloat32);
  AdamW adamw(ParameterList({{"a", a}, {"b", b}}), {});
  for (int step = 1; step <= 3; ++step) {
    set_gradient(a, step);
    b.set_grad(step == 2 ? a.grad().clone() : Tensor());
    adamw.step();
  }
  std::vector<std::int64_t> steps;
  for (const NamedTensor& s : adamw.state())
    if (s.name == "step") steps = s.tensor.to_vector<std::int64_t>();
  EXPECT_EQ(steps, (std::vector<std::int64_t>{3, 1}));
  EXPECT_EQ(a.version(), 3u);
  EXPECT_EQ(b.version(), 1u);
  adamw.zero_grad();
  EXPECT_FALSE(a.grad().defined());
  const auto before = a.to_vector<float>();
  adamw.step();
  EXPECT_EQ(a.to_vector<float>(), before);
}

TEST(Optimizer, TakesGradientsInAnyMemoryOrder) {
  const Tensor a = start(DType::kFloat32), b = start(DType::kFloat32);
  set_gradient(a, 1);
  b.set_grad(transpose(transpose(a.grad(), 0, 1).row_major(), 0, 1));
  EXPECT_FALSE(b.grad().is_contiguous());
  SGD sgd(ParameterList({{"a", a}, {"b", b}}), {.lr = 0.1});
  sgd.step();
  EXPECT_EQ(a.to_vector<float>(), b.to_vector<float>());
}

TEST(Optimizer, NamesItsState) {
  const Tensor a = start(DType::kFloat32), b = start(DType::kFloat64);
  const auto names = [](const Optimizer& o) {
    std::string all;
    for (const NamedTensor& s : o.state())
      all += s.name + " " + std::string(name_of(s.tensor.dtype())) + s.tensor.shape().to_string() + "; ";
    return all;
  };
  EXPECT_EQ(names(SGD(ParameterList({{"a", a}}), {})), "");
  EXPECT_EQ(names(SGD(ParameterList({{"a", a}, {"b", b}}), {.momentum = 0.9})),
            "momentum.a float32(2, 3); momentum.b float64(2, 3); ");
  EXPECT_EQ(names(AdamW(ParameterList({{"a", a}}), {})),
            "step int64(1); exp_avg.a float32(2, 3); exp_avg_sq.a float32(2, 3); ");
  SGD sgd(ParameterList({{"a", a}}), {.lr = 0.5});
  EXPECT_EQ(sgd.lr(), 0.5);
  sgd.set_lr(0.25);
  set_gradient(a, 1);
  const double before = a.to_vector<double>()[0];
  sgd.step();
  EXPECT_NEAR(a.to_vector<double>()[0], before - 0.25 * gradient_at(1, 0), 1e-6);
}

struct Source : GradientSource {
  void finish() override { ++finished; }
  void attach(Optimizer&) override { ++attached; }
  void detach(Optimizer&) override { --attached; }
  int finished = 0, attached = 0;
};

TEST(Optimizer, WaitsForItsSource) {
  const auto source = std::make_shared<Source>();
  const ParameterList list({{"a", start(DType::kFloat32)}}, source);
  {
    SGD sgd(list, {});
    EXPECT_EQ(source->attached, 1);
    sgd.step();
  }
  EXPECT_EQ(source->attached, 0);
  clip_grad_norm(list, 1);
  EXPECT_EQ(source->finished, 2);
}

TEST(ClipGradNorm, ScalesToTheNorm) {
  const Tensor a = start(DType::kFloat32), b = start(DType::kFloat32), unused = start(DType::kFloat32);
  set_gradient(a, 1);
  set_gradient(b, 2);
  const ParameterList list({{"a", a}, {"unused", unused}, {"b", b}});
  double squares = 0;
  for (std::int64_t i = 0; i < 6; ++i)
    squares += std::pow(gradient_at(1, i), 2) + std::pow(gradient_at(2, i), 2);
  EXPECT_NEAR(clip_grad_norm(list, 0), std::sqrt(squares), 1e-5);
  EXPECT_NEAR(clip_grad_norm(list, 100), std::sqrt(squares), 1e-5);
  EXPECT_NEAR(a.grad().to_vector<double>()[1], gradient_at(1, 1), 1e-6) << "small enough: nothing changes";
  EXPECT_NEAR(clip_grad_norm(list, 0.5), std::sqrt(squares), 1e-5);
  EXPECT_NEAR(clip_grad_norm(list, 0), 0.5, 1e-5);
  EXPECT_NEAR(a.grad().to_vector<double>()[1], gradient_at(1, 1) * 0.5 / std::sqrt(squares), 1e-5);
  a.set_grad(Tensor::full({2, 3}, std::nan("")));
  EXPECT_TRUE(std::isnan(clip_grad_norm(list, 0.5)));
  EXPECT_NEAR(b.grad().to_vector<double>()[0], gradient_at(2, 0) * 0.5 / std::sqrt(squares), 1e-5)
      << "nothing is scaled by NaN";
}

TEST(ClipGradNorm, ScalesGradientsThatStartedShared) {
  const Tensor a = start(DType::kFloat64), b = start(DType::kFloat64);
  sum(add(a, b)).backward();
  clip_grad_norm(ParameterList({{"a", a}, {"b", b}}), 1);
  for (double g : b.grad().to_vector<double>()) EXPECT_NEAR(g, 1 / std::sqrt(12.0), 1e-6);
}

TEST(Schedule, Constant) {
  const Schedule s{.peak = 0.5, .warmup = 4, .total = 10};
  for (int step = 0; step < 4; ++step) EXPECT_DOUBLE_EQ(learning_rate(s, step), 0.5 * (step + 1) / 4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 9), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate({.peak = 0.5}, 0), 0.5);
}

TEST(Schedule, Cosine) {
  // The schedule is torch.optim.lr_scheduler.CosineAnnealingLR(T_max = 100): lr/2 (1 + cos(pi t / T)).
  const Schedule s{.kind = Schedule::Kind::kCosine, .peak = 0.2, .total = 100};
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 0.2);
  EXPECT_NEAR(learning_rate(s, 25), 0.2 * 0.85355339, 1e-8);
  EXPECT_NEAR(learning_rate(s, 50), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate(s, 100), 0, 1e-12);
  EXPECT_NEAR(learning_rate(s, 200), 0, 1e-12);
  const Schedule warm{.kind = Schedule::Kind::kCosine, .peak = 0.2, .warmup = 20, .total = 100};
  EXPECT_DOUBLE_EQ(learning_rate(warm, 9), 0.1);
  EXPECT_NEAR(learning_rate(warm, 60), 0.1, 1e-12);
}

TEST(Optimizer, RefusesWhatItCannotUpdate) {
  const Tensor a = Tensor::ones({2}), half = Tensor::zeros({2}, DType::kBFloat16);
  expect_holds(error_of([&] { SGD({{{"a", a}, {"b", a}}}, {}); }), {"a and b are one tensor"});
  expect_holds(error_of([&] { AdamW({{{"a", a}, {"half", half}}}, {}); }), {"half is bfloat16", "float32"});
  expect_holds(error_of([&] { a.set_grad(Tensor::ones({3})); }), {"set_grad", "(3)", "(2)"});
  expect_holds(error_of([&] { a.set_grad(Tensor::ones({2}, DType::kFloat64)); }), {"float64", "float32"});
}

TEST(Schedule, OneCycle) {
  // The schedule is torch.optim.lr_scheduler.OneCycleLR(max_lr = 1, total_steps = 100) with its defaults:
  // pct_start 0.3, cosine, div_factor 25, final_div_factor 1e4. The rate rises until step 29 and falls until
  // step 99.
  const Schedule s{.kind = Schedule::Kind::kOneCycle, .peak = 1, .total = 100};
  EXPECT_NEAR(learning_rate(s, 0), 0.04, 1e-12);
  EXPECT_NEAR(learning_rate(s, 10), 0.04 + 0.96 * 0.5 * (1 - std::cos(M_PI * 10 / 29)), 1e-12);
  EXPECT_NEAR(learning_rate(s, 29), 1, 1e-12);
  EXPECT_NEAR(learning_rate(s, 64), 4e-6 + (1 - 4e-6) * 0.5, 1e-12);
  EXPECT_NEAR(learning_rate(s, 99), 4e-6, 1e-12);
}

TEST(Schedule, Step) {
  const Schedule s{.kind = Schedule::Kind::kStep, .peak = 1, .total = 100};
  EXPECT_DOUBLE_EQ(learning_rate(s, 49), 1);
  EXPECT_DOUBLE_EQ(learning_rate(s, 50), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(s, 74), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(s, 75), 0.01);
}

TEST(Optimizer, RefusesWhatItCannotTrain) {
  const Tensor x = Tensor::ones({2}).set_requires_grad(true);
  const auto refused = [](const ParameterList& list, double lr) {
    return test::error_of([&] { optim::SGD(list, {.lr = lr}); });
  };
  EXPECT_NE(refused({{{"w", Tensor()}}}, 1).find("w is an undefined tensor"), std::string::npos);
  EXPECT_NE(refused({{{"w", x * 2.0}}}, 1).find("w is the result of an op"), std::string::npos);
  for (const double lr : {-1.0, std::nan("")})
    EXPECT_NE(refused({{{"w", x}}}, lr).find("lr is"), std::string::npos);
  optim::SGD sgd({{{"w", x}}}, {.lr = 1});
  EXPECT_NE(test::error_of([&] { sgd.set_lr(-1); }).find("lr is -1"), std::string::npos);
}

}  // namespace
}  // namespace trireme::optim
