// Tests how an engine of a library is chosen and recorded.
#include "kernels/cuda/engines.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/ops/ops.h"
#include "kernels/cuda/fused_attention.h"
#include "tests/support/cuda_emulator/emulator.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using cuda::PlanAttempt;

constexpr Device kCuda{DeviceType::kCuda, 0};
const PlanAttempt kMade{}, kUnsupported{PlanAttempt::kNotSupported, "no such kernel"},
    kOutOfMemory{PlanAttempt::kFailed, "out of memory"};

/// A list of plans whose attempts have given outcomes. Records which plans were tried.
struct FakeList {
  std::vector<std::vector<PlanAttempt>> attempts;  ///< outcomes of each candidate's attempts
  std::vector<std::size_t> tried;
  int releases = 0;

  std::optional<std::size_t> choose() {
    std::vector<std::size_t> next(attempts.size());
    return cuda::choose_plan(
        attempts.size(),
        [&](std::size_t i) {
          tried.push_back(i);
          return attempts.at(i).at(next[i]++);
        },
        [&] { ++releases; }, "a test");
  }
};

TEST(ChoosePlan, TakesTheFirstThatIsSupported) {
  FakeList list{{{kUnsupported}, {kUnsupported}, {kMade}, {kMade}}, {}};
  EXPECT_EQ(list.choose(), 2u);
  EXPECT_EQ(list.tried, (std::vector<std::size_t>{0, 1, 2}));
  EXPECT_EQ(list.releases, 0);
}

TEST(ChoosePlan, IsEmptyIfNoneIsSupported) {
  FakeList list{{{kUnsupported}, {kUnsupported}}, {}}, none;
  EXPECT_EQ(list.choose(), std::nullopt);
  EXPECT_EQ(none.choose(), std::nullopt);
}

TEST(ChoosePlan, TriesTheSameOneAgainAfterMemoryWasReleased) {
  FakeList list{{{kUnsupported}, {kOutOfMemory, kMade}, {kMade}}, {}};
  EXPECT_EQ(list.choose(), 1u);
  EXPECT_EQ(list.tried, (std::vector<std::size_t>{0, 1, 1}));
  EXPECT_EQ(list.releases, 1);
}

TEST(ChoosePlan, GoesOnIfTheSecondAttemptIsNotSupported) {
  FakeList list{{{kOutOfMemory, kUnsupported}, {kMade}}, {}};
  EXPECT_EQ(list.choose(), 1u);
}

TEST(ChoosePlan, NeverTakesAnotherEngineAfterAFailure) {
  FakeList list{{{kOutOfMemory, {PlanAttempt::kFailed, "still out of memory"}}, {kMade}}, {}};
  test::expect_holds(test::error_of([&] { list.choose(); }),
                     {"a test", "plan 1 of 2", "out of memory", "still out of memory"});
  EXPECT_EQ(list.tried, (std::vector<std::size_t>{0, 0}));
}

TEST(ChoosePlan, TheFrontEndsMessagesAreToldApart) {
  const auto outcome = [](const char* error) { return cuda::front_end_attempt(error).outcome; };
  EXPECT_EQ(outcome(""), PlanAttempt::kMade);
  EXPECT_EQ(outcome("For cuDNN version below 9.6, hidden dim must be at most 128"),
            PlanAttempt::kNotSupported);
  EXPECT_EQ(outcome("CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: cudnnFinalize Descriptor Failed cudnn_status: "
                    "CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH"),
            PlanAttempt::kNotSupported);
  EXPECT_EQ(outcome("CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: cudnnFinalize Descriptor Failed cudnn_status: "
                    "CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER"),
            PlanAttempt::kFailed);
  EXPECT_EQ(outcome("tried CUDNN_STATUS_NOT_SUPPORTED before, and code: CUDNN_STATUS_ALLOC_FAILED"),
            PlanAttempt::kFailed)
      << "the last status counts";
  EXPECT_EQ(cuda::front_end_attempt("cudaMalloc failed with out of memory", true).outcome,
            PlanAttempt::kFailed);
  EXPECT_EQ(cuda::front_end_attempt("two\nlines").reason, "two lines");
}

/// Multiplies matrices of a size that no other test uses, with a bias.
Tensor product(std::int64_t rows) {
  const Tensor x = to_device(Tensor::ones({rows, 8}), kCuda), w = to_device(Tensor::ones({5, 8}), kCuda),
               bias = to_device(Tensor::ones({5}), kCuda);
  return linear(x, w, bias);
}

/// Returns the engines that were chosen since `before`.
EngineChoices since(const EngineChoices& before) {
  EngineChoices added;
  for (const auto& choice : cuda::engine_choices())
    if (!before.contains(choice.first)) added.insert(choice);
  return added;
}

TEST(CudaEngines, AProductIsRecordedWithItsAlgorithm) {
  const EngineChoices before = cuda::engine_choices();
  product(31);
  const EngineChoices added = since(before);
  ASSERT_EQ(added.size(), 1u);
  test::expect_holds(added.begin()->first, {"matmul float32", "with bias", "31"});
  test::expect_holds(added.begin()->second, {"cuBLASLt id 1", "adds bias", "workspace 4096"});
  product(31);
  EXPECT_EQ(since(before), added) << "the shape is known";
}

TEST(CudaEngines, AFailureOfTheHeuristicDoesNotChangeTheEngine) {
  const EngineChoices before = cuda::engine_choices();
  cuda::emulator::fail_heuristics(1);
  EXPECT_EQ(product(33).to_vector<float>(), std::vector<float>(33 * 5, 9));
  const EngineChoices added = since(before);
  ASSERT_EQ(added.size(), 1u);
  test::expect_holds(added.begin()->second, {"adds bias"});
}

TEST(CudaEngines, AFailureThatStaysIsAnError) {
  const EngineChoices before = cuda::engine_choices();
  cuda::emulator::fail_heuristics(2);
  test::expect_holds(test::error_of([] { product(35); }),
                     {"making plan 1 of 2", "failed twice", "CUBLAS_STATUS_ALLOC_FAILED"});
  EXPECT_EQ(since(before), EngineChoices());
  EXPECT_EQ(product(35).to_vector<float>(), std::vector<float>(35 * 5, 9))
      << "the next attempt is not affected";
}

TEST(CudaEngines, ANoticeComesOnce) {
  cuda::take_notices();
  cuda::add_notice("one");
  cuda::add_notice("two");
  cuda::add_notice("one");
  EXPECT_EQ(cuda::take_notices(), (std::vector<std::string>{"one", "two"}));
  cuda::add_notice("two");
  EXPECT_EQ(cuda::take_notices(), std::vector<std::string>());
}

}  // namespace
}  // namespace trireme
