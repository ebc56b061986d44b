// Tests that ops do not lose precision: compares results in 16 and 32 bits with float64 for the same inputs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/autograd/autograd.h"
#include "tests/support/op_table.h"

namespace trireme::test {
namespace {

constexpr DType kSmall[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

/// Returns the largest relative error of rounding to a dtype.
double rounding(DType dtype) {
  return dtype == DType::kBFloat16 ? 0x1p-8 : dtype == DType::kFloat16 ? 0x1p-11 : 0x1p-24;
}

Tensor spread(const Input& in, std::size_t which, DType dtype) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < in.shape.numel(); ++i) {
    const double unit =
        std::fmod(0.377 + 0.61803398875 * static_cast<double>(i) + 0.2718 * static_cast<double>(which), 1.0);
    values.push_back(in.kind == Kind::kLabel ? std::floor(unit * in.high)
                                             : in.low + (in.high - in.low) * unit);
  }
  return to_dtype(Tensor::from(values, in.shape), in.kind == Kind::kLabel ? DType::kInt64 : dtype);
}

/// Returns the result and the gradients of an op's inputs, converted to float64.
std::vector<std::vector<double>> results_of(const OpRow& row, const Case& c, const Tensors& inputs) {
  std::vector<std::vector<double>> all;
  const Tensor out = c.call(inputs);
  all.push_back(out.to_vector<double>());
  if (row.second == Second::kNone || !out.requires_grad()) return all;
  // The gradients are numbers that 16 bits hold exactly.
  backward(out, to_dtype(spread({out.shape(), 0.5, 1.5}, 7, DType::kBFloat16), out.dtype()));
  for (const Tensor& in : inputs)
    all.push_back(in.grad().defined() ? in.grad().to_vector<double>() : std::vector<double>());
  return all;
}

Tensors inputs_of(const OpRow& row, const Case& c, DType rounded, DType dtype) {
  Tensors inputs;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    const Tensor values = spread(c.inputs[i], i, rounded);
    inputs.push_back(is_floating(values.dtype()) ? to_dtype(values, dtype).clone() : values);
    const Kind kind = c.inputs[i].kind;
    if (row.second != Second::kNone && (kind == Kind::kValue || kind == Kind::kOptional))
      inputs.back().set_requires_grad(true);
  }
  return inputs;
}

/// Ops that are composed of several ops, each of which rounds its result to 16 bits.
const std::set<std::string> kSeveralOps = {"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
                                           "einsum"};

TEST(Precision, EveryOpIsAsGoodAsOneRounding) {
  for (const OpRow& row : op_table()) {
    if (kSeveralOps.contains(row.name()) || row.name() == "uniform" || row.name() == "normal") continue;
    for (const Case& c : row.cases)
      for (const DType dtype : kSmall) {
        SCOPED_TRACE(row.declaration + ": " + c.label + " " + std::string(name_of(dtype)));
        std::vector<std::vector<double>> got, wanted;
        try {
          got = results_of(row, c, inputs_of(row, c, dtype, dtype));
          wanted = results_of(row, c, inputs_of(row, c, dtype, DType::kFloat64));
        } catch (const std::exception& e) {
          ADD_FAILURE() << "threw: " << e.what();
          continue;
        }
        ASSERT_EQ(got.size(), wanted.size());
        for (std::size_t k = 0; k < got.size(); ++k) {
          ASSERT_EQ(got[k].size(), wanted[k].size());
          double largest = 0;
          for (const double v : wanted[k]) largest = std::max(largest, std::isfinite(v) ? std::fabs(v) : 0);
          // Derivatives are computed from rounded results.
          const double factor =
              (k == 0 ? 1.01 : 3) + (dtype == DType::kFloat32 ? row.float32_tolerance / 0x1p-24 : 0);
          for (std::size_t i = 0; i < got[k].size(); ++i) {
            if (got[k][i] == wanted[k][i] || (std::isnan(got[k][i]) && std::isnan(wanted[k][i]))) continue;
            const double size = k == 0 && dtype != DType::kFloat32 ? std::fabs(wanted[k][i]) + 1e-3 * largest
                                                                   : std::fabs(wanted[k][i]) + largest;
            // Numbers near 0 have less precision in float16.
            const double least = dtype == DType::kFloat16 ? 0x1p-25 : 1e-12;
            if (std::fabs(got[k][i] - wanted[k][i]) <= factor * rounding(dtype) * size + least) continue;
            ADD_FAILURE() << (k == 0 ? "result" : "gradient") << ' ' << k << '[' << i << "] is " << got[k][i]
                          << " for " << wanted[k][i];
            break;
          }
        }
      }
  }
}

TEST(Precision, MeansOfEqualNumbersAreThatNumber) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16})
    for (std::int64_t n = 1; n < 3000; ++n) {
      ASSERT_EQ(mean(Tensor::ones({n}, dtype)).item(), 1) << n << name_of(dtype);
      if (n > 100) continue;
      ASSERT_EQ(mean(Tensor::ones({n, 3}, dtype), {0}).to_vector<double>(), (std::vector<double>{1, 1, 1}))
          << n;
      if (n > 12) continue;
      const Tensor image = Tensor::ones({1, 1, n, n}, dtype);
      ASSERT_EQ(avg_pool2d(image, {.kernel = n}).item(), 1) << n;
      ASSERT_EQ(adaptive_avg_pool2d(image, 1, 1).item(), 1) << n;
    }
  EXPECT_EQ(mean(Tensor::full({1000}, 60000, DType::kFloat16)).item(), 60000)
      << "the sum is infinite in float16";
  EXPECT_EQ(mse_loss(Tensor::full({9}, 300, DType::kFloat16), Tensor::zeros({9}, DType::kFloat16)).item(),
            INFINITY);
  EXPECT_EQ(mse_loss(Tensor::full({9}, 248, DType::kFloat16), Tensor::zeros({9}, DType::kFloat16)).item(),
            61504);
}

TEST(Precision, SpreadOfNumbersFarFromZero) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64})
    for (const double far : {0.1, 1e3, 0x1p22}) {
      for (std::int64_t n = 2; n < 60; ++n) {
        const Tensor equal = Tensor::full({n}, far, dtype).set_requires_grad(true);
        const Tensor deviation = std(equal);
        ASSERT_EQ(deviation.item(), 0) << far << ", " << n;
        deviation.backward();
        ASSERT_EQ(equal.grad().to_vector<double>(), std::vector<double>(static_cast<std::size_t>(n)));
      }
      const Tensor near = add(to_dtype(arange(0, 4), dtype), std::floor(far));
      EXPECT_NEAR(var(near).item(), 5.0 / 3, 1e-6) << far;
      EXPECT_NEAR(std(near, {0}, 0).item(), std::sqrt(1.25), 1e-6) << far;
    }
  EXPECT_EQ(norm(Tensor::full({4}, 300, DType::kFloat16)).item(), 600)
      << "the squares are infinite in float16";
  EXPECT_EQ(var(Tensor::from(std::vector<float>{0x1p24f, 0x1p24f + 2}, {2})).item(), 2);
}

TEST(Precision, SquaresNeitherOverflowNorVanish) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16})
    for (const double size : {0x1p100, 0x1p-100, 0x1p-120}) {
      SCOPED_TRACE(size);
      const Tensor x = to_dtype(Tensor::from(std::vector<double>{3 * size, 0, 4 * size}, {3}), dtype);
      for (const double p : {1.5, 2.0, 3.0, -1.0}) {
        const Tensor leaf = x.clone().set_requires_grad(true),
                     exact = to(x, DType::kFloat64).clone().set_requires_grad(true);
        const Tensor got = norm(leaf, p), wanted = norm(exact, p);
        EXPECT_NEAR(got.item() / size, wanted.item() / size, 10 * rounding(dtype)) << p;
        got.backward();
        wanted.backward();
        const auto slopes = leaf.grad().to_vector<double>(), right = exact.grad().to_vector<double>();
        for (std::size_t i = 0; i < right.size(); ++i) EXPECT_NEAR(slopes[i], right[i], rounding(dtype)) << p;
      }
      const Tensor leaf = x.clone().set_requires_grad(true), deviation = std(leaf);
      EXPECT_NEAR(deviation.item() / size, std::sqrt(13.0 / 3), 3 * rounding(dtype));
      deviation.backward();
      EXPECT_NEAR(leaf.grad().to_vector<double>()[2], (4 - 7.0 / 3) / 2 / std::sqrt(13.0 / 3),
                  rounding(dtype));
    }
  EXPECT_EQ(norm(Tensor::full({4}, 0x1p70)).item(), 0x1p71);
}

/// Compares fn and the gradients of its inputs in float32 with float64, relative to the size of each result.
void expect_relative(const std::function<Tensor(const Tensors&)>& fn,
                     const std::vector<std::vector<double>>& at, double tolerance) {
  std::vector<std::vector<double>> results[2];
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    Tensors inputs;
    for (const auto& values : at) {
      const Tensor exact =
          to_dtype(Tensor::from(values, {static_cast<std::int64_t>(values.size())}), DType::kFloat32);
      inputs.push_back(to_dtype(exact, dtype).clone().set_requires_grad(true));
    }
    auto& all = results[dtype == DType::kFloat64];
    const Tensor out = fn(inputs);
    all.push_back(out.to_vector<double>());
    backward(out, Tensor::ones(out.shape(), dtype));
    for (const Tensor& in : inputs) all.push_back(in.grad().to_vector<double>());
  }
  for (std::size_t k = 0; k < results[0].size(); ++k)
    for (std::size_t i = 0; i < results[0][k].size(); ++i)
      ASSERT_LE(std::fabs(results[0][k][i] - results[1][k][i]),
                tolerance * std::fabs(results[1][k][i]) + 1e-37)
          << "result " << k << ", element " << i << ": " << results[0][k][i] << " for " << results[1][k][i];
}

TEST(Precision, NothingCancels) {
  std::vector<double> line, targets, small, inside;
  for (int i = -320; i <= 320; ++i)
    for (const double t : {0.0, 1.0}) {
      line.push_back(i / 4.0);
      targets.push_back(t);
    }
  for (int i = -60; i <= 3; ++i)
    for (const double sign : {1.0, -1.0}) small.push_back(sign * std::exp2(i / 2.0) * 1.1);
  for (int i = 1; i <= 40; ++i) inside.push_back(1 - std::exp2(-i / 2.0));
  const auto unary = [](Tensor (*op)(const Tensor&)) {
    return [op](const Tensors& in) { return op(in[0]); };
  };
  expect_relative(
      [](const Tensors& in) {
        return bce_with_logits(in[0], in[1].detach(), LossReduction::kNone) + in[1] * 0;
      },
      {line, targets}, 2e-6);
  for (const auto op : {log_sigmoid, softplus}) expect_relative(unary(op), {line}, 2e-6);
  expect_relative(unary(expm1), {line}, 2e-6);
  for (const auto op : {expm1, sinh, erf}) expect_relative(unary(op), {small}, 2e-6);
  for (const auto op : {asin, acos}) expect_relative(unary(op), {inside}, 2e-6);
  const auto huber = [](const Tensors& in) {
    return huber_loss(in[0], Tensor::zeros(in[0].shape(), in[0].dtype()), 1, LossReduction::kNone);
  };
  expect_relative(huber, {small}, 2e-6);
}

TEST(Precision, GeluOfNegativeNumbers) {
  for (const Gelu how : {Gelu::kNone, Gelu::kTanh})
    for (double at = -5; at < 5; at += 0.01) {
      const Tensor x = Tensor::full({1}, at);
      const double got = gelu(x, how).item(), wanted = gelu(to(x, DType::kFloat64), how).item();
      ASSERT_LE(std::fabs(got - wanted), 2e-5 * std::fabs(wanted)) << at;
    }
  EXPECT_NEAR(gelu(Tensor::full({1}, -7)).item() / gelu(Tensor::full({1}, -7, DType::kFloat64)).item(), 1,
              0.01);
  EXPECT_EQ(gelu(Tensor::full({1}, -20)).item(), 0);
}

TEST(Precision, BatchNormFarFromZero) {
  const Tensor offsets = to_dtype(arange(0, 8), DType::kFloat64), gamma = Tensor::ones({1}, DType::kFloat64),
               beta = Tensor::zeros({1}, DType::kFloat64);
  BatchStatistics measured;
  batch_norm(reshape(add(offsets, 1e9), {8, 1, 1, 1}), gamma, beta, {}, {.measured = &measured});
  EXPECT_EQ(measured.mean.item(), 1e9 + 3.5);
  EXPECT_EQ(measured.variance.item(), 5.25);
}

TEST(Precision, LogSumExpJustAboveTheLargest) {
  for (const double low : {-5.0, -17.0, -25.0}) {
    const Tensor x =
        Tensor::from(std::vector<float>{0, static_cast<float>(low)}, {2}).set_requires_grad(true);
    const Tensor y = logsumexp(x, {0});
    EXPECT_NEAR(y.item() / std::log1p(std::exp(low)), 1, 1e-5) << low;
    y.backward();
    EXPECT_NEAR(x.grad().to_vector<double>()[1] / (std::exp(low) / (1 + std::exp(low))), 1, 1e-6) << low;
  }
}

TEST(Precision, SoftmaxBesideLargeLogits) {
  for (const double large : {0.0, 1e9, 1e15}) {
    const Tensor x = Tensor::full({1, 4}, large);
    for (const double v : log_softmax(x).to_vector<double>()) EXPECT_NEAR(v, -std::log(4), 1e-6) << large;
    EXPECT_EQ(log_softmax(to(x, DType::kFloat64)).to_vector<double>(),
              std::vector<double>(4, -std::log(4.0)));
  }
  const Tensor x = to(mul(arange(0, 12), -1), DType::kBFloat16);
  const auto got = softmax(x).to_vector<double>(),
             wanted = softmax(to(x, DType::kFloat64)).to_vector<double>();
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i] / wanted[i], 1, 0x1p-8);
}

TEST(Precision, GradientsOfCrossEntropyAtASureLabelKeepTheirDigits) {
  for (const double rest : {-1.0, -5.0, -10.0, -17.0, -20.0})
    for (const std::int64_t label : {0, 1}) {
      const Tensor x = Tensor::from(std::vector<float>{0, static_cast<float>(rest), -90}, {1, 3}),
                   labels = Tensor::from(std::vector<std::int64_t>{label}, {1});
      const Tensor small = x.clone().set_requires_grad(true);
      cross_entropy(small, labels).backward();
      const double others = std::exp(rest) + std::exp(-90.0), sum = 1 + others;
      const std::vector<double> wanted = label == 0 ? std::vector<double>{-others / sum, std::exp(rest) / sum}
                                                    : std::vector<double>{1 / sum, std::exp(rest) / sum - 1};
      const auto got = small.grad().to_vector<double>();
      for (std::size_t i = 0; i < wanted.size(); ++i)
        EXPECT_NEAR(got[i] / wanted[i], 1, 5e-7) << rest << ", label " << label << ", logit " << i;
    }
}

TEST(Precision, SumsOverEqualIndicesIn16Bits) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    const Tensor to_one = Tensor::zeros({1}, dtype), ones = Tensor::ones({1000}, dtype),
                 at = Tensor::zeros({1000}, DType::kInt64);
    EXPECT_EQ(index_add(to_one, 0, at, ones).item(), 1000);
    EXPECT_EQ(scatter_add(to_one, 0, at, ones).item(), 1000);
    const Tensor table = Tensor::ones({2, 1}, dtype).set_requires_grad(true);
    sum(embedding(table, at)).backward();
    EXPECT_EQ(table.grad().to_vector<double>(), (std::vector<double>{1000, 0}));
  }
}

TEST(Precision, EndsOfLerp) {
  for (const double a : {1e-8, 0.1, 3.0, 1e8})
    for (const double b : {-1e8, 1e-3, 0.7}) {
      const Tensor start = Tensor::full({1}, a), end = Tensor::full({1}, b);
      EXPECT_EQ(lerp(start, end, 1).item(), end.item());
      EXPECT_EQ(lerp(start, end, 0).item(), start.item());
    }
}

}  // namespace
}  // namespace trireme::test
