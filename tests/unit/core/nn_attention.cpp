#include "core/nn/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "core/autograd/autograd.h"
#include "core/nn/layers.h"
#include "tests/support/errors.h"
#include "tests/unit/core/nn_check.h"

namespace trireme::nn {
namespace {

using test::error_of;
using test::expect_holds;
using test::expect_near;
using test::Names;
using test::names_of;
using test::numbers;
using Vector = std::vector<double>;

constexpr std::int64_t kBatch = 2, kQueries = 3, kKeys = 4, kWidth = 6, kHeads = 2;

/// Returns a layer with random weights and biases.
MultiheadAttention make(MultiheadAttentionOptions options = {}) {
  manual_seed(3);
  MultiheadAttention layer(kWidth, kHeads, options);
  if (options.bias) {
    init::normal_(layer.in_proj_bias);
    init::normal_(layer.out_proj.bias);
  }
  to(layer, DType::kFloat64);
  return layer;
}

/// Returns the number to add to the score of query l and key s in head h of sample n. Minus infinity hides
/// the key.
using Bias = std::function<double(std::int64_t n, std::int64_t h, std::int64_t l, std::int64_t s)>;
double free_to_look(std::int64_t, std::int64_t, std::int64_t, std::int64_t) { return 0; }

struct Expected {
  Vector output;   ///< shape (N,L,E)
  Vector weights;  ///< shape (N,heads,L,S)
};

/// Computes the layer in plain loops. Tensors are (N,...,E).
Expected reference(const MultiheadAttention& layer, const Tensor& query, const Tensor& key,
                   const Tensor& value, const Bias& bias) {
  const std::int64_t batch = query.size(0), queries = query.size(1), keys = key.size(1),
                     head = kWidth / kHeads;
  const Vector w = layer.in_proj_weight.to_vector<double>(),
               out_w = layer.out_proj.weight.to_vector<double>();
  const auto bias_of = [](const Tensor& b, std::int64_t i) {
    return b.defined() ? b.to_vector<double>()[static_cast<std::size_t>(i)] : 0.0;
  };
  const auto project = [&](const Tensor& x, std::int64_t n, std::int64_t t, std::int64_t row) {
    const Vector token = select(select(x, 0, n), 0, t).to_vector<double>();
    double sum = bias_of(layer.in_proj_bias, row);
    for (std::size_t i = 0; i < token.size(); ++i)
      sum += w[static_cast<std::size_t>(row) * token.size() + i] * token[i];
    return sum;
  };
  Expected expected;
  for (std::int64_t n = 0; n < batch; ++n) {
    Vector joined(static_cast<std::size_t>(queries * kWidth));
    for (std::int64_t h = 0; h < kHeads; ++h)
      for (std::int64_t l = 0; l < queries; ++l) {
        Vector row(static_cast<std::size_t>(keys));
        double total = 0;
        for (std::int64_t s = 0; s < keys; ++s) {
          double score = 0;
          for (std::int64_t e = h * head; e < (h + 1) * head; ++e)
            score += project(query, n, l, e) * project(key, n, s, kWidth + e) /
                     std::sqrt(static_cast<double>(head));
          total += row[static_cast<std::size_t>(s)] = std::exp(score + bias(n, h, l, s));
        }
        for (std::int64_t s = 0; s < keys; ++s) {
          const double weight = total > 0 ? row[static_cast<std::size_t>(s)] / total : 0;
          expected.weights.push_back(weight);
          for (std::int64_t e = h * head; e < (h + 1) * head; ++e)
            joined[static_cast<std::size_t>(l * kWidth + e)] += weight * project(value, n, s, 2 * kWidth + e);
        }
      }
    for (std::int64_t l = 0; l < queries; ++l)
      for (std::int64_t e = 0; e < kWidth; ++e) {
        double sum = bias_of(layer.out_proj.bias, e);
        for (std::int64_t i = 0; i < kWidth; ++i)
          sum += out_w[static_cast<std::size_t>(e * kWidth + i)] *
                 joined[static_cast<std::size_t>(l * kWidth + i)];
        expected.output.push_back(sum);
      }
  }
  return expected;
}

const double kNever = -std::numeric_limits<double>::infinity();

struct Masked {
  const char* label;
  AttentionMask mask;
  Bias bias;
};

Tensor hidden(const std::vector<double>& zeros_and_ones, const Shape& shape) {
  return gt(Tensor::from(zeros_and_ones, shape), 0.5);
}

std::vector<Masked> masks() {
  const Tensor pairs = hidden({0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0}, {kQueries, kKeys});
  const Tensor padding = hidden({0, 0, 0, 1, 0, 1, 1, 0}, {kBatch, kKeys});
  const Tensor added = numbers({kQueries, kKeys}, 7).detach();
  const Tensor each = numbers({kBatch * kHeads, kQueries, kKeys}, 8).detach();
  const Tensor soft = numbers({kBatch, kKeys}, 9).detach();
  const auto at = [](const Tensor& t, std::int64_t i, std::int64_t j) {
    return to(select(select(t, 0, i), 0, j), DType::kFloat64).item();
  };
  const Bias by_pair = [=](auto, auto, auto l, auto s) { return at(pairs, l, s) > 0 ? kNever : 0; };
  const Bias by_padding = [=](auto n, auto, auto, auto s) { return at(padding, n, s) > 0 ? kNever : 0; };
  const Bias by_added = [=](auto, auto, auto l, auto s) { return at(added, l, s); };
  const Bias by_each = [=](auto n, auto h, auto l, auto s) {
    return at(select(each, 0, n * kHeads + h), l, s);
  };
  const Bias causal = [](auto, auto, auto l, auto s) { return s > l ? kNever : 0; };
  const auto both = [](Bias a, Bias b) -> Bias {
    return [=](auto n, auto h, auto l, auto s) { return a(n, h, l, s) + b(n, h, l, s); };
  };
  return {{"none", {}, free_to_look},
          {"bool", {.mask = pairs}, by_pair},
          {"added", {.mask = added}, by_added},
          {"per head", {.mask = each}, by_each},
          {"padding", {.key_padding_mask = padding}, by_padding},
          {"soft padding",
           {.key_padding_mask = soft},
           [=](auto n, auto, auto, auto s) { return at(soft, n, s); }},
          {"causal", {.is_causal = true}, causal},
          {"bool, padding", {.mask = pairs, .key_padding_mask = padding}, both(by_pair, by_padding)},
          {"per head, padding", {.mask = each, .key_padding_mask = padding}, both(by_each, by_padding)},
          {"added, causal", {.mask = added, .is_causal = true}, both(by_added, causal)},
          {"padding, causal", {.key_padding_mask = padding, .is_causal = true}, both(by_padding, causal)}};
}

TEST(MultiheadAttention, MatchesPlainLoops) {
  const Tensor q = numbers({kBatch, kQueries, kWidth}, 1), k = numbers({kBatch, kKeys, kWidth}, 2),
               v = numbers({kBatch, kKeys, kWidth}, 4);
  for (const bool bias : {true, false})
    for (const Masked& m : masks()) {
      SCOPED_TRACE(m.label);
      MultiheadAttention layer = make({.bias = bias, .batch_first = true});
      const Expected expected = reference(layer, q, k, v, m.bias);
      expect_near(layer(q, k, v, m.mask), expected.output, 1e-12);
      const Attended seen = layer.with_weights(q, k, v, m.mask, false);
      expect_near(seen.output, expected.output, 1e-12);
      expect_near(seen.weights, expected.weights, 1e-12);
      expect_near(layer.with_weights(q, k, v, m.mask).weights, mean(seen.weights, {1}).to_vector<double>(),
                  1e-14);
      expect_near(layer(q, k, k, m.mask), reference(layer, q, k, k, m.bias).output, 1e-12);
    }
}

TEST(MultiheadAttention, TakesEveryLayout) {
  const Tensor x = numbers({kBatch, kQueries, kWidth}, 1);
  MultiheadAttention first = make({.batch_first = true}), second = make();
  const Vector expected = reference(first, x, x, x, free_to_look).output;
  expect_near(first(x), expected, 1e-12);
  expect_near(first(x, x, x), expected, 1e-12);
  const Tensor turned = transpose(x, 0, 1);
  expect_near(transpose(second(turned), 0, 1), expected, 1e-12);
  expect_near(transpose(second(turned, turned * 1.0, turned * 1.0), 0, 1), expected, 1e-12);
  const Tensor alone = select(x, 0, 1);
  for (MultiheadAttention* layer : {&first, &second}) {
    EXPECT_EQ((*layer)(alone).shape(), (Shape{kQueries, kWidth}));
    expect_near((*layer)(alone), select(first(x), 0, 1).to_vector<double>(), 1e-12);
  }
}

TEST(MultiheadAttention, GradientsMatchFiniteDifferences) {
  const Tensor x = numbers({kQueries, kBatch, kWidth}, 1), memory = numbers({kKeys, kBatch, kWidth}, 2);
  MultiheadAttention layer = make();
  const Tensor weights = numbers({kQueries, kBatch, kWidth}, 5).detach();
  std::vector<NamedTensor> checked = layer.parameters();
  checked.push_back({"x", x});
  test::check_gradients([&] { return sum(layer(x, x, x, {.is_causal = true}) * weights); }, checked);
  checked.push_back({"memory", memory});
  for (const Masked& m : {masks()[7], masks()[3]})
    test::check_gradients([&] { return sum(layer(x, memory, memory, m.mask) * weights); }, checked);
  test::check_gradients([&] { return sum(layer.with_weights(x, memory, memory).output * weights); }, checked);
  const auto penalty = [&] {
    return sum(square(grad(sum(layer(x) * weights), {x}, {}, {.create_graph = true})[0]));
  };
  test::check_gradients(penalty, {{"x", x}, {"in_proj_weight", layer.in_proj_weight}});
}

TEST(MultiheadAttention, HasTheNamesAndValuesOfPyTorch) {
  manual_seed(1);
  MultiheadAttention layer(64, 4);
  EXPECT_EQ(names_of(state_dict(layer)),
            (Names{"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}));
  EXPECT_EQ(names_of(MultiheadAttention(4, 2, {.bias = false}).parameters()),
            (Names{"in_proj_weight", "out_proj.weight"}));
  const double bound = std::sqrt(6.0 / (4 * 64));
  EXPECT_LE(amax(abs(layer.in_proj_weight)).item(), bound);
  EXPECT_GT(amax(abs(layer.in_proj_weight)).item(), 0.98 * bound);
  EXPECT_LE(amax(abs(layer.out_proj.weight)).item(), 1.0 / 8);
  EXPECT_EQ(amax(abs(layer.in_proj_bias)).item(), 0);
  EXPECT_EQ(amax(abs(layer.out_proj.bias)).item(), 0);
}

TEST(MultiheadAttention, DropsWeightsBySample) {
  for (const bool batch_first : {true, false}) {
    manual_seed(2);
    MultiheadAttention layer(8, 2, {.dropout = 0.5, .batch_first = batch_first});
    name_modules(layer, "attention");
    const int batch = batch_first ? 0 : 1;
    const Tensor x = normal(batch_first ? Shape{5, 7, 8} : Shape{7, 5, 8}, RandomKey{1});
    const auto run = [&](const Tensor& part, std::int64_t first) {
      set_random_context({.seed = 3, .step = 8, .first_sample = first});
      return layer(part);
    };
    const Tensor whole = run(x, 10);
    expect_near(cat({run(narrow(x, batch, 0, 2), 10), run(narrow(x, batch, 2, 3), 12)}, batch),
                whole.to_vector<double>(), 1e-6);
    set_random_context({.seed = 3, .step = 8, .first_sample = 10});
    const Attended seen = layer.with_weights(x, x, x, {}, false);
    expect_near(seen.output, whole.to_vector<double>(), 1e-5);
    EXPECT_GT(sum(to(eq(seen.weights, 0), DType::kFloat32)).item(), 100);
    EXPECT_GT(amax(abs(layer(x) - whole)).item(), 1e-3) << "another call, other numbers";
    layer.eval();
    EXPECT_EQ(layer(x).to_vector<float>(), layer(x).to_vector<float>());
    EXPECT_GT(amax(abs(run(x, 10) - whole)).item(), 1e-3);
    set_random_context({});
  }
}

TEST(MultiheadAttention, HooksSeeItsThreeInputs) {
  MultiheadAttention layer = make();
  int calls = 0;
  layer.register_full_backward_hook([&](const std::vector<Tensor>& in, const std::vector<Tensor>& out) {
    ++calls;
    EXPECT_EQ(in.size(), 3u);
    EXPECT_EQ(out.size(), 1u);
    return std::vector<Tensor>{};
  });
  const Tensor x = numbers({kQueries, kBatch, kWidth}, 1);
  const auto gradient = [&](const Tensor& y) { return grad(sum(y), {x})[0].to_vector<double>(); };
  expect_near(grad(sum(layer(x, x, x)), {x})[0], gradient(layer.forward(x, x, x)), 1e-12);
  EXPECT_EQ(calls, 1);
}

TEST(MultiheadAttention, SaysWhatDoesNotFit) {
  MultiheadAttention layer = make();
  const Tensor x = numbers({kQueries, kBatch, kWidth}, 1);
  expect_holds(error_of([] { MultiheadAttention(6, 4); }), {"width 6", "4 heads"});
  expect_holds(error_of([&] { layer(numbers({kQueries, kBatch, 5}, 1)); }), {"(2, 3, 5)", "6 wide"});
  expect_holds(error_of([&] { layer(numbers({6}, 1)); }), {"(L,N,E)", "(6)"});
  expect_holds(error_of([&] {
                 layer(x, x, x, {.mask = numbers({3, 3, 3}, 1)});
               }),
               {"(3, 3, 3)", "(N*heads,L,S)"});
  for (const Shape& mask : {Shape{1, 3}, Shape{3, 1}, Shape{2, 3, 3}, Shape{3}})  // all would broadcast
    expect_holds(error_of([&] { layer(x, x, x, {.mask = Tensor::ones(mask)}); }),
                 {mask.to_string().c_str(), "2 samples, 2 heads, 3 queries and 3 keys"});
  const auto refused = [&](const Shape& query, const Shape& key, const Shape& value) {
    const std::string error =
        error_of([&] { layer(Tensor::ones(query), Tensor::ones(key), Tensor::ones(value)); });
    expect_holds(error, {"MultiheadAttention: query ", query.to_string().c_str(), key.to_string().c_str(),
                         value.to_string().c_str(), "the same samples, and each key needs a value"});
  };
  refused({3, 2, 6}, {3, 1, 6}, {3, 1, 6});
  refused({3, 1, 6}, {3, 2, 6}, {3, 2, 6});
  refused({3, 2, 6}, {4, 2, 6}, {3, 2, 6});
  refused({3, 2, 6}, {4, 2, 6}, {1, 2, 6});
  refused({3, 6}, {3, 1, 6}, {3, 1, 6});
  expect_holds(error_of([&] {
                 layer(x, x, x, {.key_padding_mask = numbers({3, 2}, 1)});
               }),
               {"key_padding_mask (3, 2)", "2 samples", "3 keys"});
}

}  // namespace
}  // namespace trireme::nn
