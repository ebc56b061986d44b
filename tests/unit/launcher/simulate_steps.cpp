#include "launcher/simulate_steps.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace trireme {
namespace {

/// Returns a profile with 10 ms forward, 30 ms backward with a bucket after each 10 ms, and 2 ms optimizer.
StepProfile profile(double bytes = 4 << 20) {
  StepProfile p;
  for (int i = 1; i <= 3; ++i)
    p.buckets.push_back({.name = "bucket", .bytes = bytes, .ready_ms = 10.0 + 10 * i});
  p.backward_begin_ms = 10;
  p.compute_ms = 40;
  p.tail_ms = 2;
  return p;
}

Simulated simulate(const StepProfile& p, int ranks, double spread, double sum_seconds) {
  return simulate_steps(p, p.buckets, ranks, {spread, 1, {}}, [&](double) { return sum_seconds; });
}

TEST(Simulate, OnlyTheLastSumIsExposedWhereAllOthersHide) {
  const Simulated s = simulate(profile(), 8, 0, 5e-3);
  EXPECT_NEAR(s.compute_ms, 42, 1e-9);
  EXPECT_NEAR(s.exposed_ms, 5, 1e-9);  // exposes the sum of the last bucket only
  EXPECT_NEAR(s.step_ms, 47, 1e-9);
  EXPECT_NEAR(s.comm_ms, 15, 1e-9);
  EXPECT_NEAR(s.straggler_ms, 0, 1e-9);
  EXPECT_NEAR(s.efficiency(), 42.0 / 47, 1e-9);
}

TEST(Simulate, SumsWaitForEachOther) {
  // Sums run one after another from 20 to 120 ms. The optimizer follows.
  const Simulated s = simulate(profile(), 8, 0, 100.0 / 3 * 1e-3);
  EXPECT_NEAR(s.step_ms, 122, 1e-9);
  EXPECT_NEAR(s.exposed_ms, 80, 1e-9);
}

TEST(Simulate, EverythingHidden) {
  StepProfile p = profile();
  p.compute_ms = 100;  // backward continues long after the last bucket
  const Simulated s = simulate(p, 8, 0, 5e-3);
  EXPECT_NEAR(s.exposed_ms, 0, 1e-9);
  EXPECT_NEAR(s.efficiency(), 1, 1e-9);
}

TEST(Simulate, NothingHidden) {
  StepProfile p = profile();
  for (auto& bucket : p.buckets) bucket.ready_ms = p.compute_ms;
  EXPECT_NEAR(simulate(p, 8, 0, 5e-3).exposed_ms, 15, 1e-9);
}

TEST(Simulate, StragglersAreWaitedFor) {
  // A step lasts as long as its slowest rank: exp(0.1 E[max of 64 normals]), and the expectation is 2.35.
  const Simulated s = simulate(profile(), 64, 0.1, 0);
  EXPECT_NEAR(s.step_ms, 42 * std::exp(0.1 * 2.35), 1.5);
  EXPECT_NEAR(s.exposed_ms, 0, 1e-9);
  EXPECT_GT(simulate(profile(), 1024, 0.1, 0).straggler_ms, s.straggler_ms);
}

TEST(Simulate, StragglersAreLogNormalAndRepeat) {
  const Stragglers stragglers{0.2, 7, {}};
  double sum = 0, squares = 0;
  constexpr int kRanks = 100, kSteps = 100;
  for (int step = 0; step < kSteps; ++step)
    for (int rank = 0; rank < kRanks; ++rank) {
      const double z = std::log(stragglers.factor(step, rank, kRanks)) / 0.2;
      sum += z;
      squares += z * z;
    }
  EXPECT_NEAR(sum / (kRanks * kSteps), 0, 0.03);
  EXPECT_NEAR(squares / (kRanks * kSteps), 1, 0.05);
  EXPECT_EQ(stragglers.factor(3, 5, 8), (Stragglers{0.2, 7, {}}.factor(3, 5, 8)));
  EXPECT_NE(stragglers.factor(3, 5, 8), stragglers.factor(5, 3, 8));
  EXPECT_NE(stragglers.factor(3, 5, 8), (Stragglers{0.2, 8, {}}.factor(3, 5, 8)));
  EXPECT_EQ(simulate(profile(), 32, 0.1, 1e-3).step_ms, simulate(profile(), 32, 0.1, 1e-3).step_ms);
}

TEST(Simulate, StragglersAsTraced) {
  const Stragglers traced{0, 1, {{1, 1.5}, {2, 1}, {1, 1}}};
  // With as many ranks as in the trace, each rank repeats its traced factors, step by step.
  for (int step = 0; step < 6; ++step)
    for (int rank = 0; rank < 2; ++rank)
      EXPECT_EQ(traced.factor(step, rank, 2),
                traced.traced[static_cast<std::size_t>(step % 3)][static_cast<std::size_t>(rank)]);
  // With more ranks, each draws a factor: a sixth of them draw 2, and a sixth 1.5.
  int twos = 0;
  for (int rank = 0; rank < 6000; ++rank) twos += traced.factor(0, rank, 6000) == 2;
  EXPECT_NEAR(twos, 1000, 150);
  // The slowest rank determines the time of a step: 1.5, 2 and 1 times 42 ms.
  const StepProfile p = profile();
  EXPECT_NEAR(simulate_steps(p, p.buckets, 2, traced, [](double) { return 0.0; }).step_ms, 63, 1e-9);
}

TEST(Simulate, ThreadsTakeTheirTime) {
  StepProfile p = profile();
  p.start_ms = 1;
  p.buckets.back().after_ms = 2;
  EXPECT_NEAR(simulate(p, 8, 0, 5e-3).exposed_ms, 8, 1e-9);
  EXPECT_NEAR(simulate(p, 1, 0, 5e-3).exposed_ms, 2, 1e-9) << "one rank sums nothing";
}

TEST(CutBuckets, KeepsBytesAndInterpolatesTimes) {
  const StepProfile p = profile(2 << 20);
  const auto cut = cut_buckets(p, 3 << 20);
  ASSERT_EQ(cut.size(), 3u);  // 1, 3 and 2 MiB
  EXPECT_EQ(cut[0].bytes, 1 << 20);
  EXPECT_EQ(cut[1].bytes, 3 << 20);
  EXPECT_EQ(cut[2].bytes, 2 << 20);
  EXPECT_NEAR(cut[0].ready_ms, 15, 1e-9);
  EXPECT_NEAR(cut[1].ready_ms, 30, 1e-9);
  EXPECT_NEAR(cut[2].ready_ms, 40, 1e-9);
}

TEST(CutBuckets, LeavesOtherSumsAlone) {
  StepProfile p = profile();
  p.buckets.push_back({.name = "loss", .bytes = 16, .ready_ms = 40, .is_gradients = false});
  const auto cut = cut_buckets(p, 1e9);
  ASSERT_EQ(cut.size(), 3u);
  EXPECT_EQ(cut[1].bytes, 11 << 20);
  EXPECT_EQ(cut[2].name, "loss");
}

TEST(Advise, SaysNothingWhereNothingIsNeeded) {
  const Advice advice = advise(
      profile(), {},
      [] {
        Cluster c = cluster_of("IB");
        c.ranks = 8;
        return c;
      }(),
      {}, 0.9);
  EXPECT_EQ(advice.text, "nothing");
}

Advice advice_for(const StepProfile& p, const std::string& link, int ranks, double spread, double wanted) {
  Cluster cluster = cluster_of(link);
  cluster.ranks = ranks;
  return advise(p, {}, cluster, {spread, 1, {}}, wanted);
}

TEST(Advise, BlamesStragglersWhereTheyAlonePrevent) {
  EXPECT_EQ(advice_for(profile(), "IB", 64, 0.3, 0.9).text.find("stragglers: 0."), 0u);
}

TEST(Advise, SmallerBucketsWhereTheLastOneIsExposed) {
  StepProfile p = profile();
  p.buckets = {{.name = "bucket", .bytes = 12 << 20, .ready_ms = 40}};
  EXPECT_EQ(advice_for(p, "10GbE", 8, 0, 0.9).text.find("--bucket-mb"), 0u);
}

TEST(Advise, SixteenBitsWhereBytesAreTooMany) {
  StepProfile p = profile(12.5e6);  // sums take 56 ms with 8 ranks, but backward only 30 ms
  EXPECT_NE(advice_for(p, "10GbE", 8, 0, 0.85).text.find("--comm-hook bf16"), std::string::npos);
  // If that is not enough, the advice tells the efficiency that can be reached.
  EXPECT_NE(advice_for(profile(1e9), "10GbE", 8, 0, 0.9).text.find("then more samples a rank"),
            std::string::npos);
}

TEST(Advise, ATreeWhereMessagesAreTooMany) {
  const Advice advice = advice_for(profile(1e4), "10GbE", 1024, 0, 0.9);
  EXPECT_EQ(advice.best, AllReduce::kTree);
  EXPECT_GT(advice.best_efficiency, 0.9);
}

}  // namespace
}  // namespace trireme
