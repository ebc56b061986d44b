#include "launcher/step_profile.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "kernels/error.h"
#include "tests/unit/core/metrics_scratch.h"

namespace trireme {
namespace {

using test::Scratch;

constexpr std::int64_t kMs = 1'000'000;

/// Writes a trace of steps of 50 ms: 10 ms forward, 30 ms backward, sums of two buckets of which the second
/// is exposed for 6 ms, and 4 ms of other work.
void write_rank(const std::filesystem::path& folder, int rank, int steps, std::int64_t late_ms = 0) {
  Trace trace(folder, rank);
  for (int step = 1; step <= steps; ++step) {
    const std::int64_t at = step * 100 * kMs, late = late_ms * kMs;
    const auto sum = [&](const char* name, std::int64_t enqueued, std::int64_t begin, std::int64_t end,
                         double bytes) {
      trace.span(name, "communication", at + begin * kMs, at + end * kMs, Trace::kCommunication,
                 {{"bytes", bytes}, {"queued_us", static_cast<double>(begin - enqueued) * 1e3}});
    };
    trace.span("forward shard 0", "compute", at + late, at + 10 * kMs);
    trace.span("backward", "compute", at + 10 * kMs, at + 40 * kMs);
    // The first step has another plan of buckets, as in a real run.
    sum(step == 1 ? "sum bucket 0 (a)" : "sum bucket 0 (b ...)", 20, 20 + late_ms, 30, 1000);
    sum("sum bucket 1 (c)", 40, 41, 45, 2000);
    trace.span("run bucket 1 (c)", "communication", at + 45 * kMs, at + 46 * kMs, Trace::kCommunication);
    trace.span("step " + std::to_string(step), "step", at, at + 50 * kMs);
  }
  trace.close();
}

TEST(StepProfile, TellsWhatAStepIsMadeOf) {
  const Scratch scratch;
  write_rank(scratch / "trace", 0, 5);
  write_rank(scratch / "trace", 1, 5, 3);
  const StepProfile p = profile_of(read_traced_steps(scratch.path()));
  EXPECT_EQ(p.ranks, 2);
  EXPECT_EQ(p.steps, 3);  // all except the first step, and the first step with the final plan
  EXPECT_NEAR(p.backward_begin_ms, 10, 1e-6);
  EXPECT_NEAR(p.compute_ms, 40, 1e-6);
  EXPECT_NEAR(p.tail_ms, 4, 1e-6);
  EXPECT_NEAR(p.exposed_ms, 6, 1e-6);
  EXPECT_NEAR(p.step_ms, 50, 1e-6);
  EXPECT_NEAR(p.start_ms, 3, 1e-6) << "the larger of 3 ms, for which rank 1 is late, and 1 ms";
  EXPECT_EQ(p.factors, (std::vector<std::vector<double>>(3, {1, 1})));
  ASSERT_EQ(p.buckets.size(), 2u);
  EXPECT_EQ(p.buckets[0].name, "bucket 0 (b ...)");
  EXPECT_EQ(p.buckets[0].bytes, 1000);
  EXPECT_TRUE(p.buckets[0].is_gradients);
  EXPECT_NEAR(p.buckets[0].ready_ms, 20, 1e-6) << "when it was enqueued, not when it began";
  EXPECT_NEAR(p.buckets[0].seconds, 7e-3, 1e-9) << "from when the last rank came";
  EXPECT_NEAR(p.buckets[1].ready_ms, 40, 1e-6);
  EXPECT_NEAR(p.buckets[0].after_ms, 0, 1e-6);
  EXPECT_NEAR(p.buckets[1].after_ms, 1, 1e-6);
}

ExitCode code_of(const std::filesystem::path& folder) {
  try {
    profile_of(read_traced_steps(folder));
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.code();
  }
  return ExitCode::kDone;
}

TEST(StepProfile, FoldersThatHoldNoTraceOfSteps) {
  const Scratch scratch;
  EXPECT_EQ(code_of(scratch.path()), ExitCode::kUsage);
  EXPECT_EQ(code_of(scratch / "none"), ExitCode::kUsage);
  { Trace trace(scratch / "empty", 0); }
  EXPECT_EQ(code_of(scratch / "empty"), ExitCode::kData);
  {
    Trace trace(scratch / "silent", 0);
    trace.span("step 1", "step", 1, 2);
  }
  EXPECT_EQ(code_of(scratch / "silent"), ExitCode::kData);
  test::write_text(scratch / "trace-rank-0.json", "no trace\n");
  EXPECT_EQ(code_of(scratch.path()), ExitCode::kData);
}

TEST(StepProfile, TracesOfTwoRuns) {
  const Scratch scratch;
  write_rank(scratch.path(), 0, 5);
  {
    Trace trace(scratch.path(), 1);
    trace.span("step 1", "step", 1, 2);
  }
  EXPECT_EQ(code_of(scratch.path()), ExitCode::kData);
}

}  // namespace
}  // namespace trireme
