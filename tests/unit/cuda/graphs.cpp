// Tests that programs give the same results with work recorded into CUDA graphs as with work launched at
// once.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "core/optim/optimizer.h"
#include "kernels/cuda/engines.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/recorder.h"
#include "kernels/table.h"
#include "tests/support/cuda_emulator/emulator.h"
#include "tests/support/errors.h"
#include "tests/unit/cuda/words.h"

namespace trireme {
namespace {

using test::Words;

constexpr Device kCuda{DeviceType::kCuda, 0};
const KernelTable& kernels() { return kernels_of(kCuda); }

/// The parts of a program of steps that differ between tests.
struct Program {
  int steps = 8;
  std::function<std::int64_t(int step)> rows = [](int) { return std::int64_t{4}; };
  /// Called between forward and backward of each step.
  std::function<void(int step, const Tensor& loss)> middle = [](int, const Tensor&) {};
};

struct Outcome {
  std::vector<float> weights;
  RecordingStatistics said;
};

RecordingStatistics since(const RecordingStatistics& before) {
  const RecordingStatistics now = kernels().recording_statistics();
  return {now.rounds - before.rounds, now.graphs - before.graphs, now.made - before.made,
          now.work - before.work, now.changed - before.changed};
}

Outcome run(const Program& program, bool recorded) {
  nn::manual_seed(3);
  Words model;
  nn::move_to(model, kCuda);
  optim::AdamW adamw(model.parameters(), {.lr = 0.1});
  const RecordingStatistics before = kernels().recording_statistics();
  for (int step = 0; step < program.steps; ++step) {
    nn::set_random_context({5, static_cast<std::uint64_t>(step), 0, 0});
    if (recorded && step >= 2) kernels().begin_recording();
    const std::int64_t rows = program.rows(step);
    std::vector<std::int64_t> words, labels;
    for (std::int64_t i = 0; i < 3 * rows; ++i) {
      words.push_back((i + step) % 7);
      labels.push_back(i * step % 5);
    }
    const Tensor x = to_device(Tensor::from(words, {rows, 3}), kCuda),
                 y = to_device(Tensor::from(labels, {3 * rows}), kCuda);
    adamw.set_lr(0.1 / (1 + step));
    adamw.zero_grad();
    const Tensor loss = cross_entropy(reshape(model(x), {3 * rows, 5}), y);
    program.middle(step, loss);
    loss.backward();
    adamw.step();
    kernels().end_recording();
  }
  Outcome outcome{{}, since(before)};
  for (const NamedTensor& p : model.parameters())
    for (const float value : p.tensor.to_vector<float>()) outcome.weights.push_back(value);
  return outcome;
}

/// Runs the program with and without recording, compares the results, and returns the recorder's statistics.
RecordingStatistics expect_same(const Program& program) {
  const Outcome plain = run(program, false), recorded = run(program, true);
  EXPECT_EQ(plain.weights, recorded.weights);
  EXPECT_EQ(plain.said.work, 0);
  return recorded.said;
}

TEST(CudaGraphs, AreMadeInTheSecondRoundAndStartedInEachLaterOne) {
  // A new thread has a recorder that has not launched anything.
  std::thread([] {
    const RecordingStatistics said = expect_same({});
    EXPECT_EQ(said.rounds, 6);
    const std::int64_t with_graphs = said.rounds - 1;
    EXPECT_EQ(said.graphs % with_graphs, 0) << "as many in each";
    EXPECT_EQ(said.made, said.graphs / with_graphs) << "in the second round, and never again";
    EXPECT_LT(said.graphs, said.work / 6);
    EXPECT_GE(said.changed, with_graphs - 1) << "random numbers and learning rates differ";
    EXPECT_LT(said.changed, said.work / 4) << "most of the work is the same each time";
  }).join();
}

TEST(CudaGraphs, FollowShapesThatChange) {
  const RecordingStatistics said = expect_same({.steps = 12, .rows = [](int step) { return 2 + step % 3; }});
  EXPECT_GT(said.made, 3) << "matrix products of other shapes";
}

TEST(CudaGraphs, AreGivenUpWhereNoneFitsTwice) {
  const Program program{.steps = 80, .rows = [](int step) { return 1 + step % 5; }};
  const RecordingStatistics said = expect_same(program);
  EXPECT_LT(said.made, said.rounds / 2) << "of two places: in the first eight rounds, and one in eight later";
}

TEST(CudaGraphs, EndWhereTheHostLooks) {
  int looked = 0;
  const auto look = [&](int step, const Tensor& loss) {
    if (step % 2 == 0 && loss.item() > 0) ++looked;
  };
  expect_same({.middle = look});
  EXPECT_EQ(looked, 8);
}

TEST(CudaGraphs, TakeWhatOtherControlFlowBrings) {
  Tensor kept = to_device(Tensor::ones({3}), kCuda);
  expect_same({.steps = 10, .middle = [&](int step, const Tensor& loss) {
                 for (int i = 0; i < step % 4; ++i) kept = mul(kept, loss.detach());
               }});
}

TEST(CudaGraphs, GoOnAfterAnError) {
  const auto fails = [](int step, const Tensor& loss) {
    if (step != 4) return;
    EXPECT_THROW(embedding(loss.detach(), to_device(Tensor::from(std::vector<std::int64_t>{7}, {1}), kCuda)),
                 Error);
  };
  expect_same({.middle = fails});
}

TEST(CudaGraphs, AProgramMayLeaveAStepInTheMiddle) {
  const Outcome plain = run({.steps = 5}, false);
  const auto leaves = [](int step, const Tensor&) {
    if (step == 4) fail(ExitCode::kUsage, "test: leaves");
  };
  EXPECT_THROW(run({.steps = 5, .middle = leaves}, true), Error);
  const Tensor left = to_device(Tensor::ones({2}), kCuda);  // no open graph is in the way
  EXPECT_EQ((left + left).to_vector<float>(), (std::vector<float>{2, 2}));
  EXPECT_EQ(run({.steps = 5}, true).weights, plain.weights);
}

enum Failure : std::int64_t { kNever, kAlways, kInCaptures };

/// Adds `by` to one number in a call like that of a library. Throws after that if asked to.
struct Add {
  std::int64_t* to;
  std::int64_t by;
  Failure fails;
  void operator()(cuda::Stream stream) const {
    cuda::emulator::enqueue(stream, [to = to, by = by] { *to += by; });
    if (fails == kAlways || (fails == kInCaptures && cuda::emulator::is_capturing(stream)))
      fail(ExitCode::kInternal, "test: a library fails");
  }
};

TEST(CudaGraphs, CallsOfLibrariesAreComparedAndRedone) {
  const cuda::Stream stream = cuda::make_stream();
  std::int64_t sum = 0;
  const int before = cuda::emulator::ready_graphs();
  {
    cuda::Recorder recorder(stream);
    const auto call = [&](std::int64_t by, Failure fails = kNever) {
      const Add add{&sum, by, fails};
      recorder.enqueue(
          cuda::LibraryCall{[](const void* c, cuda::Stream s) { (*static_cast<const Add*>(c))(s); },
                            std::as_bytes(std::span(&add, 1))});
    };
    const auto after = [&](const std::vector<std::int64_t>& numbers) {
      recorder.begin_round();
      for (const std::int64_t by : numbers) call(by);
      recorder.end_round();
      cuda::synchronize(stream);
      return std::exchange(sum, 0);
    };
    EXPECT_EQ(after({1, 10, 100}), 111);
    EXPECT_EQ(recorder.statistics().made, 0) << "the code of the call has not been started before";
    EXPECT_EQ(after({1, 10, 100}), 111);
    EXPECT_EQ(after({1, 10, 100}), 111);
    EXPECT_EQ(recorder.statistics().made, 1);
    EXPECT_EQ(after({1, 20, 100}), 121);
    EXPECT_EQ(after({1, 20}), 21) << "fewer";
    EXPECT_EQ(after({1, 20, 300, 4000}), 4321) << "more";
    EXPECT_EQ(recorder.statistics().made, 4);
    EXPECT_EQ(after(std::vector<std::int64_t>(3000, 1)), 3000) << "more than one graph holds";
    EXPECT_GT(recorder.statistics().graphs, 5 + 3000 / 512);

    recorder.begin_round();
    call(1);
    call(2, kAlways);
    call(3);
    EXPECT_THROW(recorder.end_round(), Error);
    cuda::synchronize(stream);
    EXPECT_EQ(std::exchange(sum, 0), 3) << "the work before the failure runs, the work after it does not";
    EXPECT_EQ(after({1, 3}), 4) << "and later rounds are not affected";

    cuda::take_notices();
    for (int round = 0; round < 3; ++round) {
      recorder.begin_round();
      call(1);
      call(2, kInCaptures);
      call(3);
      recorder.end_round();
      cuda::synchronize(stream);
      EXPECT_EQ(std::exchange(sum, 0), 6) << "work that cannot be captured is started without a graph";
    }
    const std::vector<std::string> said = cuda::take_notices();
    ASSERT_EQ(said.size(), 1u) << "once";
    test::expect_holds(said[0], {"without a CUDA graph", "test: a library fails"});
  }
  EXPECT_EQ(cuda::emulator::ready_graphs(), before);
}

void add_one(std::int64_t count, const void* to) { **static_cast<std::int64_t* const*>(to) += count; }
void add_two(std::int64_t count, const void* to) { **static_cast<std::int64_t* const*>(to) += 2 * count; }

TEST(CudaGraphs, KernelsMayHaveOtherCounts) {
  const cuda::Stream stream = cuda::make_stream();
  std::int64_t sum = 0, *const to = &sum;
  cuda::Recorder recorder(stream);
  for (const std::int64_t count : {4000, 1, 20, 300}) {
    recorder.begin_round();
    recorder.enqueue(
        cuda::Kernel{reinterpret_cast<const void*>(add_one), 1, 1, count, std::as_bytes(std::span(&to, 1))});
    recorder.end_round();
  }
  cuda::synchronize(stream);
  EXPECT_EQ(sum, 4321);
  EXPECT_EQ(recorder.statistics().made, 1);
  EXPECT_EQ(recorder.statistics().changed, 2);
}

TEST(CudaGraphs, NewShapesAreNeverPlannedInACapture) {
  // Every step has a product of a new shape, whose plan is made while other work of the step is recorded. The
  // emulator aborts the program if a plan is made, or new code is launched, during a capture.
  const auto plans = [](int step, const Tensor& loss) {
    const Tensor wide = expand(reshape(loss.detach(), {1, 1}), {2, 100 + step});
    matmul(add(wide, wide), transpose(add(wide, wide), 0, 1));
  };
  expect_same({.steps = 6, .middle = plans});
}

TEST(CudaGraphsDeathTest, TheEmulatorRefusesPlansInTheMiddleOfACapture) {
  EXPECT_DEATH(
      {
        cuda::begin_capture(cuda::make_stream());
        cuda::emulator::making_plan();
      },
      "makes a plan in the middle of a capture");
  const auto never_started = [] {
    const cuda::Stream stream = cuda::make_stream();
    std::int64_t sum = 0, *const to = &sum;
    cuda::begin_capture(stream);
    cuda::start({reinterpret_cast<const void*>(add_two), 1, 1, 1, std::as_bytes(std::span(&to, 1))}, stream);
  };
  EXPECT_DEATH(never_started(), "a capture of code that was never started before");
}

TEST(CudaGraphs, OtherThreadsAreKeptOut) {
  std::thread([] {  // its recorder has not given up any capture
    const std::string kNothing = "nothing was thrown";
    const Tensor x = to_device(Tensor::ones({4}), kCuda);
    const auto elsewhere = [&] {
      std::string said;
      std::thread([&] {
        said = test::error_of([&] {
          const NoGrad off;
          mul(x, x);
        });
      }).join();
      return said;
    };
    EXPECT_EQ(elsewhere(), kNothing);
    kernels().begin_recording();
    EXPECT_EQ(elsewhere(), kNothing) << "nothing is recorded yet";
    const Tensor y = add(x, x);
    test::expect_holds(elsewhere(), {"in the middle of another one's step", "--cuda-graph"});
    EXPECT_EQ(y.to_vector<float>()[0], 2);
    EXPECT_EQ(elsewhere(), kNothing);
    add(x, x);
    kernels().end_recording();
    EXPECT_EQ(elsewhere(), kNothing);
  })
      .join();
}

TEST(CudaGraphs, OtherThreadsGetMemoryWhenTheWorkHasStarted) {
  constexpr std::size_t kMiB = std::size_t{1} << 20;
  cuda::release_cached_memory();
  cuda::emulator::set_device_bytes(80 * kMiB);
  std::thread([] {
    kernels().begin_recording();
    Tensor sum = to_device(Tensor::ones({4}), kCuda);
    Tensor big = Tensor::full({12 << 20}, 2, DType::kFloat32, kCuda);
    sum = add(sum, narrow(big, 0, 5, 4));
    big = Tensor();  // freed, but recorded work still uses the memory
    std::atomic<bool> arrived = false;
    std::thread loader([&] {
      const std::vector<float> host(10 << 20, 1.0f);
      // This only fits if the other memory goes back to the driver.
      const Upload upload(kCuda, host.data(), host.size() * sizeof(float));
      arrived = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_FALSE(arrived);
    kernels().end_recording();
    loader.join();
    EXPECT_TRUE(arrived);
    EXPECT_EQ(sum.to_vector<float>(), std::vector<float>(4, 3));
  }).join();
  cuda::emulator::set_device_bytes(1024 * kMiB);
}

TEST(CudaGraphs, HoldTheirStreamUntilTheyHaveStarted) {
  const cuda::Stream stream = cuda::make_stream();
  std::int64_t sum = 0, *const to = &sum;
  cuda::Recorder recorder(stream);
  bool held = false;
  cuda::emulator::set_while_making_ready([&] { held = cuda::is_held(stream); });
  for (int round = 0; round < 2; ++round) {
    recorder.begin_round();
    recorder.enqueue(
        cuda::Kernel{reinterpret_cast<const void*>(add_one), 1, 1, 1, std::as_bytes(std::span(&to, 1))});
    recorder.end_round();
  }
  cuda::emulator::set_while_making_ready({});
  EXPECT_TRUE(held);
  EXPECT_FALSE(cuda::is_held(stream));
  cuda::synchronize(stream);
}

TEST(CudaGraphs, TwoRecordersAreNotOnOneStream) {
  const cuda::Stream stream = cuda::make_stream();
  std::int64_t sum = 0, *const to = &sum;
  cuda::Recorder first(stream), second(stream);
  const cuda::Kernel kernel{reinterpret_cast<const void*>(add_one), 1, 1, 1,
                            std::as_bytes(std::span(&to, 1))};
  first.begin_round();
  second.begin_round();
  first.enqueue(kernel);
  test::expect_holds(test::error_of([&] { second.enqueue(kernel); }),
                     {"in the middle of another one's step"});
  first.end_round();
  second.enqueue(kernel);
  second.end_round();
  cuda::synchronize(stream);
  EXPECT_EQ(sum, 2);
}

TEST(CudaGraphs, KeepMemoryOfWorkThatHasNotStarted) {
  constexpr std::int64_t kMillion = 1 << 20;
  cuda::release_cached_memory();
  cuda::emulator::set_device_bytes(std::size_t{60} << 20);
  std::thread([] {  // its recorder has not given up any capture
    kernels().begin_recording();
    Tensor sum = to_device(Tensor::ones({4}), kCuda);
    Tensor big = Tensor::full({8 * kMillion}, 2, DType::kFloat32, kCuda);
    sum = add(sum, narrow(big, 0, 5, 4));
    // The first tensor is freed, but recorded work still uses it. The second one only fits if the memory of
    // the first goes back to the driver.
    big = Tensor();
    big = Tensor::empty({12 * kMillion}, DType::kFloat32, kCuda);
    sum = add(sum, sum);
    kernels().end_recording();
    EXPECT_EQ(sum.to_vector<float>(), std::vector<float>(4, 6));
  })
      .join();
  cuda::emulator::set_device_bytes(std::size_t{1} << 30);
}

}  // namespace
}  // namespace trireme
