// Tests cross entropy with extreme logits and with 16-bit logits, and what it saves for backward.
#include <gtest/gtest.h>

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "core/profiler/profile.h"
#include "tests/support/errors.h"
#include "tests/support/extreme_logits.h"

namespace trireme {
namespace {

constexpr DType kLow[] = {DType::kBFloat16, DType::kFloat16};

TEST(CrossEntropy, OfExtremeLogits) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16}) {
    SCOPED_TRACE(name_of(dtype));
    test::expect_right_cross_entropy(kCpu, dtype);
  }
}

Tensor some_labels(std::int64_t rows, std::int64_t classes) {
  return to(mul(uniform({rows}, {5}, 0, 1), static_cast<double>(classes)), DType::kInt64);
}

/// The loss of 16-bit logits, and the gradient of the logits.
struct Result {
  Tensor loss, gradient;
};

template <class Loss>
Result differentiated(const Tensor& logits, const Loss& loss) {
  const Tensor x = logits.clone().set_requires_grad(true), y = loss(x);
  backward(y, to(uniform(y.shape(), {7}, 0.5, 2), y.dtype()));
  return {y, x.grad()};
}

std::vector<std::pair<std::string, CrossEntropyOptions>> all_options() {
  const Tensor weight = uniform({37}, {9}, 0.5, 2);
  return {{"plain", {}},
          {"of each row", {.reduction = LossReduction::kNone}},
          {"smooth", {.label_smoothing = 0.1}},
          {"smooth sum", {.label_smoothing = 0.3, .reduction = LossReduction::kSum}},
          {"ignoring some", {.ignore_index = some_labels(1, 37).value<std::int64_t>()}},
          {"weighted", {.label_smoothing = 0.1, .weight = weight, .reduction = LossReduction::kNone}}};
}

TEST(CrossEntropy, UnderAutocastHasTheBitsOfLogitsConvertedByHand) {
  for (const DType dtype : kLow)
    for (const auto& [name, options] : all_options())
      for (const Shape& shape : {Shape{50, 37}, Shape{4, 37, 3}}) {
        SCOPED_TRACE(name + " of " + shape.to_string() + ", " + std::string(name_of(dtype)));
        const Tensor logits = to(uniform(shape, {1}, -5, 5), dtype);
        const Tensor labels = shape.size() == 2 ? some_labels(50, 37) : reshape(some_labels(12, 37), {4, 3});
        const auto& o = options;
        const Result by_hand = differentiated(
            logits, [&](const Tensor& x) { return cross_entropy(to(x, DType::kFloat32), labels, o); });
        const Result got = differentiated(logits, [&](const Tensor& x) {
          const amp::Autocast guard;
          return cross_entropy(x, labels, o);
        });
        EXPECT_EQ(got.loss.dtype(), DType::kFloat32);
        EXPECT_EQ(got.loss.to_vector<float>(), by_hand.loss.to_vector<float>());
        EXPECT_EQ(got.gradient.dtype(), dtype);
        EXPECT_EQ(got.gradient.to_vector<float>(), by_hand.gradient.to_vector<float>());
      }
}

TEST(CrossEntropy, OutsideAutocastIsRoundedToTheTypeOfItsLogits) {
  for (const DType dtype : kLow)
    for (const auto& [name, options] : all_options()) {
      if (options.weight.defined()) continue;
      SCOPED_TRACE(name);
      const Tensor logits = to(uniform({50, 37}, {1}, -5, 5), dtype), labels = some_labels(50, 37);
      const auto& o = options;
      const Result by_hand = differentiated(logits, [&](const Tensor& x) {
        return to(cross_entropy(to(x, DType::kFloat32), labels, o), dtype);
      });
      const Result got = differentiated(logits, [&](const Tensor& x) { return cross_entropy(x, labels, o); });
      EXPECT_EQ(got.loss.dtype(), dtype);
      EXPECT_EQ(got.loss.to_vector<float>(), by_hand.loss.to_vector<float>());
      EXPECT_EQ(got.gradient.to_vector<float>(), by_hand.gradient.to_vector<float>());
    }
}

TEST(CrossEntropy, NeedsNoMemoryOfItsLogitsSizeButForTheirGradient) {
  constexpr std::int64_t kRows = 64, kClasses = 4096, kElements = kRows * kClasses;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const auto bytes = static_cast<std::int64_t>(size_of(dtype)) * kElements;
    const Tensor logits = to(uniform({kRows, kClasses}, {1}, -5, 5), dtype).set_requires_grad(true),
                 labels = some_labels(kRows, kClasses);
    Tensor loss;
    {
      const profiler::Profile forward;
      const amp::Autocast guard;
      loss = cross_entropy(logits, labels, {.label_smoothing = 0.1});
      EXPECT_LT(forward.peak_bytes(), bytes / 16) << "forward";
    }
    const profiler::Profile all;
    loss.backward();
    EXPECT_LT(all.peak_bytes(), bytes + bytes / 16) << "backward";
    EXPECT_EQ(logits.grad().dtype(), dtype);
  }
}

TEST(CrossEntropy, OfSixteenBitsHasSecondDerivatives) {
  const Tensor labels = some_labels(6, 5);
  const auto second = [&](bool by_hand) {
    const Tensor x = to(uniform({6, 5}, {1}, -2, 2), DType::kBFloat16).set_requires_grad(true);
    const amp::Autocast guard;
    const Tensor in = by_hand ? to(x, DType::kFloat32) : x;
    const Tensor losses =
        cross_entropy(in, labels, {.label_smoothing = 0.1, .reduction = LossReduction::kNone});
    const auto first = grad({losses}, {x}, {uniform({6}, {3}, 0.5, 2)}, {.create_graph = true});
    sum(square(to(first[0], DType::kFloat32))).backward();
    EXPECT_EQ(x.grad().dtype(), DType::kBFloat16);
    return x.grad().to_vector<float>();
  };
  EXPECT_EQ(second(false), second(true));
}

TEST(CrossEntropy, ReadsItsLogitsAgainBackward) {
  const Tensor x = uniform({3, 4}, {1}).set_requires_grad(true), y = mul(x, 2);
  const Tensor loss = cross_entropy(y, some_labels(3, 4));
  {
    const NoGrad off;
    mul_(y, 3);
  }
  test::expect_holds(test::error_of([&] { loss.backward(); }), {"cross_entropy", "mul_"});
}

}  // namespace
}  // namespace trireme
