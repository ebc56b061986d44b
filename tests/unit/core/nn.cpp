#include "core/nn/module.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <type_traits>

#include "core/autograd/autograd.h"
#include "core/nn/layers.h"

namespace trireme::nn {
namespace {

std::vector<std::string> names_of(const std::vector<NamedTensor>& tensors) {
  std::vector<std::string> names;
  for (const NamedTensor& t : tensors) names.push_back(t.name);
  return names;
}
using Names = std::vector<std::string>;

struct Pair : Module {
  Linear first{3, 4}, second{4, 2, false};
  Tensor forward(const Tensor& x) override { return second(relu(first(x))); }
  void visit(Visitor& v) override {
    v.module("first", first);
    v.module("second", second);
  }
};

struct Tied : Module {
  Pair inner;
  Linear head{3, 4, false};
  Tied() { head.weight = inner.first.weight; }
  void visit(Visitor& v) override {
    v.module("inner", inner);
    v.module("head", head);
  }
};

TEST(Module, NamesItsTensorsInVisitingOrder) {
  Pair pair;
  EXPECT_EQ(names_of(pair.parameters()), (Names{"first.weight", "first.bias", "second.weight"}));
  EXPECT_TRUE(pair.buffers().empty());
  Sequential net(Conv2d(1, 2, 3), BatchNorm2d(2), Sequential(Flatten(), Linear(8, 3)));
  EXPECT_EQ(names_of(net.parameters()),
            (Names{"0.weight", "0.bias", "1.weight", "1.bias", "2.1.weight", "2.1.bias"}));
  EXPECT_EQ(names_of(net.buffers()), (Names{"1.running_mean", "1.running_var"}));
  EXPECT_EQ(names_of(net.statistics()), names_of(net.buffers()));
  EXPECT_EQ(names_of(BasicBlock(4, 8, 2).parameters()),
            (Names{"conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias",
                   "downsample.0.weight", "downsample.1.weight", "downsample.1.bias"}));
}

TEST(Module, ListsASharedTensorOnce) {
  Tied tied;
  EXPECT_EQ(names_of(tied.parameters()),
            (Names{"inner.first.weight", "inner.first.bias", "inner.second.weight"}));
  sum(tied.head(Tensor::ones({1, 3})) + tied.inner.first(Tensor::ones({1, 3}))).backward();
  EXPECT_EQ(tied.inner.first.weight.grad().to_vector<float>(), std::vector<float>(12, 2));
}

TEST(Module, AnyMemberCanBeSwapped) {
  Pair pair;
  pair.second = Linear(4, 5);
  EXPECT_EQ(pair.parameters().size(), 4u);
  EXPECT_EQ(pair(Tensor::ones({2, 3})).shape(), (Shape{2, 5}));
  pair.first.weight = Tensor::full({4, 3}, 0.5).set_requires_grad(true);
  EXPECT_EQ(pair.parameters()[0].tensor.data<float>()[0], 0.5f);
  Sequential net(Linear(3, 4), ReLU());
  net[1] = std::make_shared<Linear>(4, 1);
  EXPECT_EQ(net(Tensor::ones({2, 3})).shape(), (Shape{2, 1}));
  EXPECT_THROW(net[2], Error);
}

TEST(Module, SequentialsNestAndCopy) {
  Sequential inner(Linear(3, 3), ReLU());
  Sequential outer(inner, Linear(3, 2)), copy(inner);
  EXPECT_EQ(names_of(outer.parameters()), (Names{"0.0.weight", "0.0.bias", "1.weight", "1.bias"}));
  EXPECT_EQ(names_of(copy.parameters()), (Names{"0.weight", "0.bias"}));
  EXPECT_TRUE(copy.parameters()[0].tensor.is_same(inner.parameters()[0].tensor));
  EXPECT_EQ(Sequential().size(), 0u);
}

TEST(Module, TrainAndEvalReachEverything) {
  Sequential net(Dropout(0.5), Sequential(Dropout(1.0)));
  EXPECT_TRUE(net.training());
  net.eval();
  const Tensor x = Tensor::ones({2, 3});
  EXPECT_EQ(net(x).to_vector<float>(), x.to_vector<float>());
  net.train();
  EXPECT_EQ(net(x).to_vector<float>(), std::vector<float>(6, 0));
}

TEST(Module, WithoutForwardSaysSo) {
  Tied tied;
  EXPECT_THROW(tied(Tensor::ones({1})), Error);
}

TEST(InitialValues, AreThoseOfPyTorch) {
  // torch.nn.Linear and Conv2d use kaiming_uniform_(a=sqrt(5)) for weights. With it, weights and biases are
  // uniform in +-1/sqrt(fan_in).
  manual_seed(1);
  Linear layer(400, 300);
  Conv2d conv(64, 80, 3, {.groups = 2});
  const auto check = [](const Tensor& t, double bound) {
    double sum = 0, squares = 0, largest = 0;
    for (double v : t.to_vector<double>())
      sum += v, squares += v * v, largest = std::max(largest, std::fabs(v));
    const auto n = static_cast<double>(t.numel());
    EXPECT_LT(std::fabs(sum / n), 4 * bound / std::sqrt(3 * n));
    EXPECT_NEAR(squares / n, bound * bound / 3, 0.1 * bound * bound / 3 + 2 * bound * bound / std::sqrt(n));
    EXPECT_LE(largest, bound);
    EXPECT_GT(largest, 0.95 * bound);
    EXPECT_TRUE(t.requires_grad());
  };
  check(layer.weight, 1 / std::sqrt(400.0));
  check(layer.bias, 1 / std::sqrt(400.0));
  check(conv.weight, 1 / std::sqrt(32.0 * 9));
  check(conv.bias, 1 / std::sqrt(32.0 * 9));
  BatchNorm2d norm(3);
  EXPECT_EQ(norm.weight.to_vector<float>(), (std::vector<float>(3, 1)));
  EXPECT_EQ(norm.bias.to_vector<float>(), (std::vector<float>(3, 0)));
  EXPECT_EQ(norm.running_var.to_vector<float>(), (std::vector<float>(3, 1)));
  EXPECT_FALSE(norm.running_mean.requires_grad());
}

TEST(InitialValues, FollowTheSeedAndTheOrder) {
  manual_seed(5);
  Linear a(3, 4), b(3, 4);
  manual_seed(5);
  Linear c(3, 4);
  manual_seed(6);
  Linear d(3, 4);
  EXPECT_EQ(a.weight.to_vector<float>(), c.weight.to_vector<float>());
  EXPECT_NE(a.weight.to_vector<float>(), b.weight.to_vector<float>());
  EXPECT_NE(a.weight.to_vector<float>(), d.weight.to_vector<float>());
  EXPECT_THROW(Conv2d(3, 4, 3, {.groups = 2}), Error);
}

/// Returns the mean and the variance (divided by count - less) of channel c of x (N,C,H,W).
std::pair<double, double> moments(const Tensor& x, std::int64_t c, double less) {
  const auto v = narrow(x, 1, c, 1).to_vector<double>();
  double mean = 0, variance = 0;
  for (double one : v) mean += one / static_cast<double>(v.size());
  for (double one : v) variance += (one - mean) * (one - mean) / (static_cast<double>(v.size()) - less);
  return {mean, variance};
}

TEST(BatchNorm2d, KeepsRunningStatistics) {
  BatchNorm2d norm(2);
  double mean[2] = {0, 0}, variance[2] = {1, 1};
  for (std::uint64_t step = 0; step < 3; ++step) {
    const Tensor x = normal({4, 2, 3, 3}, {step}, 2, 3);
    norm(x);
    for (int c = 0; c < 2; ++c) {
      const auto [m, v] = moments(x, c, 1);
      mean[c] = 0.9 * mean[c] + 0.1 * m;
      variance[c] = 0.9 * variance[c] + 0.1 * v;
    }
  }
  for (int c = 0; c < 2; ++c) {
    EXPECT_NEAR(norm.running_mean.data<float>()[c], mean[c], 1e-5);
    EXPECT_NEAR(norm.running_var.data<float>()[c], variance[c], 1e-5);
  }
  norm.eval();
  const Tensor x = normal({2, 2, 2, 2}, {9}, 0, 1);
  const Tensor plain =
                   [&] {
                     const NoGrad off;
                     return norm(x);
                   }(),
               recorded = norm(x);  // one uses the fused kernel, the other is composed of ops
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const auto c = static_cast<std::size_t>(i / 4 % 2);
    const double wanted =
        (x.to_vector<double>()[static_cast<std::size_t>(i)] - mean[c]) / std::sqrt(variance[c] + 1e-5);
    EXPECT_NEAR(plain.to_vector<double>()[static_cast<std::size_t>(i)], wanted, 1e-5);
    EXPECT_NEAR(recorded.to_vector<double>()[static_cast<std::size_t>(i)], wanted, 1e-5);
  }
}

struct Recorder : StatisticsSink {
  bool observe(const Tensor& running, const Tensor& value, double momentum) override {
    seen.push_back({running, value, momentum});
    return takes;
  }
  struct One {
    Tensor running, value;
    double momentum;
  };
  std::vector<One> seen;
  bool takes = true;
};

TEST(BatchNorm2d, HandsStatisticsToTheSink) {
  BatchNorm2d norm(2);
  Recorder sink;
  statistics_sink() = &sink;
  const Tensor x = normal({4, 2, 3, 3}, {1}, 2, 3);
  norm(x);
  statistics_sink() = nullptr;
  ASSERT_EQ(sink.seen.size(), 2u);
  EXPECT_TRUE(sink.seen[0].running.is_same(norm.running_mean));
  EXPECT_TRUE(sink.seen[1].running.is_same(norm.running_var));
  EXPECT_EQ(norm.running_var.to_vector<float>(), std::vector<float>(2, 1))
      << "the sink decides when they change";
  for (int c = 0; c < 2; ++c) {
    EXPECT_NEAR(sink.seen[0].value.data<float>()[c], moments(x, c, 0).first, 1e-5);
    EXPECT_NEAR(sink.seen[1].value.data<float>()[c], moments(x, c, 1).second, 1e-4);
  }
  EXPECT_EQ(sink.seen[0].momentum, 0.1);
  sink.takes = false;
  statistics_sink() = &sink;
  norm(x);
  statistics_sink() = nullptr;
  EXPECT_NEAR(norm.running_mean.data<float>()[0], 0.1 * moments(x, 0, 0).first, 1e-5)
      << "what the sink leaves is updated at once";
}

TEST(BatchNorm2d, TakesItsOptionsByName) {
  const BatchNorm2d plain(2), other(2, {.eps = 1e-3, .momentum = 0.5, .relu = true});
  EXPECT_FALSE(plain.options.relu);
  EXPECT_EQ(plain.options.eps, 1e-5);
  EXPECT_TRUE(other.options.relu);
  EXPECT_EQ(other.options.eps, 1e-3);
  EXPECT_EQ(other.options.momentum, 0.5);
  static_assert(!std::is_constructible_v<BatchNorm2d, int, double> &&
                !std::is_constructible_v<BatchNorm2d, int, bool>);
}

TEST(Dropout, DependsOnTheSampleNotOnTheBatch) {
  Dropout layer(0.4);
  layer.set_path("block.drop");
  const Tensor x = Tensor::ones({10, 3, 5});
  set_random_context({.seed = 3, .step = 8, .first_sample = 100});
  const Tensor whole = layer(x);
  for (std::int64_t cut = 1; cut < 10; ++cut) {
    set_random_context({.seed = 3, .step = 8, .first_sample = 100});
    const Tensor head = layer(narrow(x, 0, 0, cut));
    set_random_context({.seed = 3, .step = 8, .first_sample = 100 + cut});
    const Tensor tail = layer(narrow(x, 0, cut, 10 - cut));
    EXPECT_EQ(cat({head, tail}).to_vector<float>(), whole.to_vector<float>()) << cut;
  }
  const auto differs = [&](RandomContext context, const char* path) {
    Dropout other(0.4);
    other.set_path(path);
    set_random_context(context);
    return other(x).to_vector<float>() != whole.to_vector<float>();
  };
  EXPECT_FALSE(differs({3, 8, 100}, "block.drop"));
  EXPECT_TRUE(differs({4, 8, 100}, "block.drop"));
  EXPECT_TRUE(differs({3, 9, 100}, "block.drop"));
  EXPECT_TRUE(differs({3, 8, 100}, "block.drop2"));
  EXPECT_TRUE(differs({3, 8, 100, 1}, "block.drop"));
  set_random_context({});
}

TEST(Dropout, DrawsNewNumbersInEveryCall) {
  Dropout layer(0.5);
  layer.set_path("cell.drop");
  const Tensor x = Tensor::ones({4, 64});
  const auto run = [&] { return layer(x).to_vector<float>(); };
  set_random_context({.seed = 3, .step = 1});
  const auto first = run(), second = run();
  EXPECT_NE(first, second) << "a layer that is called for each word of a sentence";
  set_random_context({.seed = 3, .step = 1});
  EXPECT_EQ(run(), first) << "calls are counted from the start of the shard";
  EXPECT_EQ(run(), second);
  set_random_context({});
}

TEST(Dropout, NeedsNeitherNamesNorALoop) {
  const Tensor x = Tensor::ones({4, 64});
  const auto draw = [&](std::uint64_t seed) {
    manual_seed(seed);
    Dropout one(0.5), other(0.5);
    std::vector<std::vector<float>> all;
    for (int step = 0; step < 3; ++step) {
      all.push_back(one(x).to_vector<float>());
      all.push_back(other(x).to_vector<float>());
    }
    return all;
  };
  const auto drawn = draw(5);
  EXPECT_EQ(std::set(drawn.begin(), drawn.end()).size(), 6u) << "masks repeat";
  EXPECT_EQ(draw(5), drawn);
  EXPECT_NE(draw(6), drawn);
  set_random_context({});
}

TEST(Dropout, DiffersBetweenModelsOfOneShape) {
  Sequential one(Dropout(0.5)), other(Dropout(0.5));
  name_modules(one);
  name_modules(other, "critic:");
  const Tensor x = Tensor::ones({4, 64});
  EXPECT_NE(one(x).to_vector<float>(), other(x).to_vector<float>());
}

TEST(Dropout, DropsTheShareItShould) {
  for (const double p : {0.1, 0.5, 0.9}) {
    const Tensor y = dropout(Tensor::ones({1000, 100}), p, {1});
    double dropped = 0, sum = 0;
    for (double v : y.to_vector<double>()) dropped += v == 0, sum += v;
    EXPECT_NEAR(dropped / 1e5, p, 4 * std::sqrt(p * (1 - p) / 1e5));
    EXPECT_NEAR(sum / 1e5, 1, 4 * std::sqrt(p / (1 - p) / 1e5));
  }
}

TEST(Dropout, TakesItsKeyFromItsName) {
  Sequential net(Dropout(0.5), Sequential(Dropout(0.5)));
  name_modules(net);
  const Tensor x = Tensor::ones({4, 64});
  EXPECT_NE((*net[0])(x).to_vector<float>(), (*net[1])(x).to_vector<float>());
}

/// Uses float64, in which central differences are precise enough.
TEST(BasicBlock, GradientsMatchFiniteDifferences) {
  for (const std::int64_t stride : {1, 2}) {
    manual_seed(2);
    BasicBlock block(2, stride == 1 ? 2 : 3, stride);
    struct Widen : Visitor {
      void parameter(const std::string&, Tensor& t) override {
        if (t.defined()) t = to_dtype(t.detach(), DType::kFloat64).set_requires_grad(true);
      }
      void buffer(const std::string&, Tensor& t) override { t = to_dtype(t, DType::kFloat64); }
      void module(const std::string&, Module& m) override { m.visit(*this); }
    } widen;
    block.visit(widen);
    Recorder ignore;
    statistics_sink() = &ignore;
    const Tensor x = normal({3, 2, 4, 4}, {5}, 0, 1, DType::kFloat64).set_requires_grad(true);
    const Tensor weights = normal(block(x).shape(), {6}, 0, 1, DType::kFloat64);
    const auto loss = [&] { return sum(block(x) * weights); };
    loss().backward();
    std::vector<NamedTensor> checked = block.parameters();
    checked.push_back({"x", x});
    const NoGrad off;
    for (const NamedTensor& p : checked) {
      ASSERT_TRUE(p.tensor.grad().defined()) << p.name;
      const auto gradient = p.tensor.grad().to_vector<double>();
      double* data = p.tensor.data<double>();
      for (std::int64_t i = 0; i < p.tensor.numel(); i += 1 + p.tensor.numel() / 12) {
        const double at = data[i];
        data[i] = at + 1e-6;
        const double up = loss().item();
        data[i] = at - 1e-6;
        const double slope = (up - loss().item()) / 2e-6;
        data[i] = at;
        EXPECT_NEAR(gradient[static_cast<std::size_t>(i)], slope, 1e-6 * (1 + std::fabs(slope)))
            << p.name << " " << i;
      }
    }
    statistics_sink() = nullptr;
  }
}

}  // namespace
}  // namespace trireme::nn
