#include "tests/support/extreme_logits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/amp/autocast.h"
#include "core/ops/ops.h"

namespace trireme::test {

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Row {
  std::string name;
  std::vector<double> logits;
  std::int64_t label = 0;
};

/// Returns a row of `width` logits, of which logit k is fn(k).
template <class Fn>
std::vector<double> made(std::int64_t width, const Fn& fn) {
  std::vector<double> logits;
  for (std::int64_t k = 0; k < width; ++k) logits.push_back(fn(k));
  return logits;
}

std::vector<Row> rows() {
  const double nan = std::numeric_limits<double>::quiet_NaN(), lowest = std::numeric_limits<float>::lowest();
  std::vector<Row> all{{"one", {5}},
                       {"one, large", {-1e30}},
                       {"far apart", {3e38, -3e38}, 0},
                       {"far apart, the lower one", {3e38, -3e38}, 1},
                       {"the lowest numbers", {lowest, lowest, lowest}, 1},
                       {"some of probability 0", {1, -kInf, 2, -kInf}, 2},
                       {"a label of probability 0", {1, -kInf, 2}, 1},
                       {"all of probability 0", {-kInf, -kInf, -kInf}, 1},
                       {"infinity", {1, kInf, 2}, 0},
                       {"infinity, the label", {1, kInf, 2}, 1},
                       {"NaN", {1, nan, 2}, 0},
                       {"only NaN", {nan, nan}, 0}};
  for (const std::int64_t width : {7, 64, 1000}) {
    const auto add = [&](const std::string& name, std::int64_t label, const auto& fn) {
      all.push_back({name + ", width " + std::to_string(width), made(width, fn), label});
    };
    for (const double v : {0.0, 1e4, -1e30, 3e38})
      add("equal numbers " + std::to_string(v), width / 2, [=](std::int64_t) { return v; });
    add("rising", width - 1, [](std::int64_t k) { return 0.5 * static_cast<double>(k); });
    add("falling", 3, [](std::int64_t k) { return -0.5 * static_cast<double>(k); });
    add("one above", 5, [=](std::int64_t k) { return k == width / 3 ? 1e30 : -1e30; });
    add("the last above", width - 1, [=](std::int64_t k) { return k == width - 1 ? 40 : 0; });
    add("only the last is possible", width - 1, [=](std::int64_t k) { return k == width - 1 ? 7 : -kInf; });
    add("NaN behind", 0, [=](std::int64_t k) { return k == width - 1 ? nan : 1; });
    add("waves on a large number", 2, [](std::int64_t k) { return 1e4 + 8 * static_cast<double>(k % 9); });
  }
  return all;
}

struct Answer {
  double loss;
  std::vector<double> gradient;
};

Answer defined(const std::vector<double>& x, std::size_t label, double smoothing) {
  double largest = -kInf, sum = 0, all = 0;
  for (const double v : x) largest = v > largest ? v : largest;
  for (const double v : x) sum += std::exp(v - largest);
  const auto log_p = [&](double v) { return v - largest - std::log(sum); };
  const double share = smoothing / static_cast<double>(x.size());
  Answer answer{smoothing < 1 ? -(1 - smoothing) * log_p(x[label]) : 0, {}};
  for (std::size_t k = 0; k < x.size(); ++k) {
    all += log_p(x[k]);
    answer.gradient.push_back(std::exp(log_p(x[k])) - share - (k == label ? 1 - smoothing : 0));
  }
  if (smoothing > 0) answer.loss -= share * all;
  return answer;
}

/// Fails the test unless `got` is near `wanted`. The tolerance is relative, and absolute below 1. Infinities
/// and NaN must match.
void expect_near(double got, double wanted, double tolerance, const std::string& what) {
  if (std::isfinite(wanted))
    EXPECT_LE(std::fabs(got - wanted), tolerance * std::max(1.0, std::fabs(wanted)))
        << what << ": " << got << ", not " << wanted;
  else
    EXPECT_TRUE(std::isnan(wanted) ? std::isnan(got) : got == wanted)
        << what << ": " << got << ", not " << wanted;
}

double unit(DType dtype) {
  if (dtype == DType::kFloat64) return 1e-13;
  return dtype == DType::kFloat32 ? 1e-6 : dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
}

}  // namespace

void expect_right_cross_entropy(Device device, DType dtype) {
  for (const Row& row : rows())
    for (const double smoothing : {0.0, 0.1, 1.0}) {
      const std::string what = row.name + ", smoothing " + std::to_string(smoothing);
      const Shape shape{1, static_cast<std::int64_t>(row.logits.size())};
      Tensor x = to_device(to_dtype(Tensor::from(row.logits, shape), dtype), device);
      const Tensor label = to_device(Tensor::from(std::vector{row.label}, {1}), device);
      const Answer wanted = defined(x.to_vector<double>(), static_cast<std::size_t>(row.label), smoothing);
      x.set_requires_grad(true);
      const amp::Autocast guard;  // keeps the loss in float32
      const Tensor loss = cross_entropy(x, label, {.label_smoothing = smoothing});
      loss.backward();
      const bool wide = dtype == DType::kFloat64;
      expect_near(loss.item(), wide ? wanted.loss : static_cast<double>(static_cast<float>(wanted.loss)),
                  wide ? 1e-13 : 1e-6, what + ", loss");
      const auto gradient = x.grad().to_vector<double>();
      for (std::size_t k = 0; k < gradient.size() && !testing::Test::HasFailure(); ++k)
        expect_near(gradient[k], wanted.gradient[k], unit(dtype), what + ", gradient " + std::to_string(k));
    }
}

}  // namespace trireme::test
