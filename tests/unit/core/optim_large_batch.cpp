// Compares LARS and LAMB with the formulas of their papers.
#include "core/optim/large_batch.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme::optim {
namespace {

using Numbers = std::vector<double>;

double norm(const Numbers& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

Numbers gradient_at(int step, std::size_t count) {
  Numbers g(count);
  for (std::size_t i = 0; i < count; ++i)
    g[i] = std::sin(1.7 * step + 0.9 * static_cast<double>(i)) * (1 + static_cast<double>(i % 3));
  return g;
}

/// Optimizes a matrix and a vector for some steps, and compares with `reference(adapted, step, g, p, first,
/// second)`.
template <class Make, class Reference>
void compare(const Make& make, const Reference& reference) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    const Numbers begin{1, -2, 0.5, 3, -0.25, 0};
    const Tensor matrix = to_dtype(Tensor::from(begin, {2, 3}), dtype).set_requires_grad(true),
                 vector = to_dtype(Tensor::from(begin, {6}), dtype).set_requires_grad(true);
    const auto optimizer = make(ParameterList({{"matrix", matrix}, {"vector", vector}}));
    Numbers wanted[2] = {begin, begin}, first[2] = {Numbers(6), Numbers(6)},
            second[2] = {Numbers(6), Numbers(6)};
    for (int step = 1; step <= 10; ++step) {
      const Numbers g = gradient_at(step, 6);
      matrix.set_grad(to_dtype(Tensor::from(g, {2, 3}), dtype));
      vector.set_grad(to_dtype(Tensor::from(g, {6}), dtype));
      optimizer->step();
      for (int k = 0; k < 2; ++k) reference(k == 0, step, g, wanted[k], first[k], second[k]);
      for (std::size_t i = 0; i < 6; ++i) {
        const double near = dtype == DType::kFloat32 ? 2e-5 : 1e-12;
        ASSERT_NEAR(matrix.to_vector<double>()[i], wanted[0][i], near)
            << "step " << step << ", element " << i;
        ASSERT_NEAR(vector.to_vector<double>()[i], wanted[1][i], near)
            << "step " << step << ", element " << i;
      }
    }
  }
}

TEST(LARS, MatchesItsPaper) {
  for (const double decay : {0.0, 0.02}) {
    const LayerwiseOptions o{.lr = 0.5, .weight_decay = decay, .momentum = 0.8, .trust = 0.05};
    compare([&](ParameterList list) { return std::make_unique<LARS>(std::move(list), o); },
            [&](bool adapted, int, const Numbers& g, Numbers& p, Numbers& velocity, Numbers&) {
              const double rate = adapted ? o.trust * norm(p) / (norm(g) + decay * norm(p)) : 1;
              for (std::size_t i = 0; i < p.size(); ++i) {
                velocity[i] = o.momentum * velocity[i] + rate * (g[i] + (adapted ? decay * p[i] : 0));
                p[i] -= o.lr * velocity[i];
              }
            });
  }
}

TEST(LAMB, MatchesItsPaper) {
  for (const double decay : {0.0, 0.1}) {
    const LayerwiseOptions o{.lr = 0.03, .weight_decay = decay, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6};
    compare([&](ParameterList list) { return std::make_unique<LAMB>(std::move(list), o); },
            [&](bool adapted, int step, const Numbers& g, Numbers& p, Numbers& m, Numbers& v) {
              Numbers r(p.size());
              for (std::size_t i = 0; i < p.size(); ++i) {
                m[i] = o.beta1 * m[i] + (1 - o.beta1) * g[i];
                v[i] = o.beta2 * v[i] + (1 - o.beta2) * g[i] * g[i];
                r[i] = m[i] / (1 - std::pow(o.beta1, step)) /
                           (std::sqrt(v[i] / (1 - std::pow(o.beta2, step))) + o.eps) +
                       (adapted ? decay * p[i] : 0);
              }
              const double rate = adapted ? norm(p) / norm(r) : 1;
              for (std::size_t i = 0; i < p.size(); ++i) p[i] -= o.lr * rate * r[i];
            });
  }
}

TEST(LARS, DecaysByItsRuleWithoutAGradient) {
  const Tensor p = Tensor::full({2, 2}, 3).set_requires_grad(true);
  LARS lars(ParameterList({{"p", p}}), {.lr = 1, .weight_decay = 0.1, .momentum = 0, .trust = 0.01});
  p.set_grad(Tensor::zeros({2, 2}));
  lars.step();
  // The step is trust |p| / (decay |p|) * decay p.
  for (const float x : p.to_vector<float>()) EXPECT_NEAR(x, 3 - 0.01 * 3, 1e-6);
}

TEST(LargeBatch, ZerosMoveAsWithoutAdaptation) {
  for (const bool lamb : {false, true}) {
    const Tensor p = Tensor::zeros({2, 2}).set_requires_grad(true);
    const ParameterList list({{"p", p}});
    const LayerwiseOptions o{.lr = 0.1, .momentum = 0};
    std::unique_ptr<Optimizer> optimizer;
    if (lamb)
      optimizer = std::make_unique<LAMB>(list, o);
    else
      optimizer = std::make_unique<LARS>(list, o);
    p.set_grad(Tensor::ones({2, 2}));
    optimizer->step();
    for (const float x : p.to_vector<float>()) EXPECT_NEAR(x, -0.1, 1e-5);
    p.set_grad({});
    const auto before = p.to_vector<float>();
    optimizer->step();
    EXPECT_EQ(p.to_vector<float>(), before) << "without a gradient nothing moves";
    p.set_grad(Tensor::zeros({2, 2}));
    optimizer->step();
    for (const float x : p.to_vector<float>()) EXPECT_TRUE(std::isfinite(x));
  }
}

TEST(LargeBatch, StateIsWhatCheckpointsNeed) {
  const ParameterList list({{"p", Tensor::zeros({2, 2}).set_requires_grad(true)}});
  const auto names = [](const Optimizer& o) {
    std::vector<std::string> all;
    for (const NamedTensor& t : o.state()) all.push_back(t.name);
    return all;
  };
  EXPECT_EQ(names(LARS(list, {})), (std::vector<std::string>{"momentum.p"}));
  EXPECT_EQ(names(LAMB(list, {})), (std::vector<std::string>{"step", "exp_avg.p", "exp_avg_sq.p"}));
  EXPECT_NE(test::error_of([&] { LARS(list, {.lr = -1}); }).find("lr is -1"), std::string::npos);
}

}  // namespace
}  // namespace trireme::optim
