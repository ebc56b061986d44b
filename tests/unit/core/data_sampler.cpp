#include "core/data/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "tests/unit/core/data_files.h"

namespace trireme {
namespace {

std::vector<std::int64_t> order(std::uint64_t seed, std::int64_t size, std::int64_t epoch) {
  const Sampler sampler(seed, size, true);
  std::vector<std::int64_t> result;
  for (std::int64_t position = 0; position < size; ++position)
    result.push_back(sampler.index(epoch, position));
  return result;
}

/// Returns Pearson's chi-square for equal expected counts, in standard deviations from its mean.
double chi_square_score(const std::vector<std::int64_t>& counts) {
  double total = 0, statistic = 0;
  for (const std::int64_t count : counts) total += static_cast<double>(count);
  const double expected = total / static_cast<double>(counts.size());
  for (const std::int64_t count : counts)
    statistic += std::pow(static_cast<double>(count) - expected, 2) / expected;
  const double freedom = static_cast<double>(counts.size()) - 1;
  return (statistic - freedom) / std::sqrt(2 * freedom);
}

TEST(Sampler, IsABijectionForEverySize) {
  std::vector<std::int64_t> sizes{999, 1000, 1023, 1024, 1025, 4097, 60000, 65536, 65537};
  for (std::int64_t size = 1; size <= 130; ++size) sizes.push_back(size);
  for (const std::int64_t size : sizes) {
    for (const std::int64_t epoch : {0, 1, 17}) {
      std::vector<std::int64_t> seen = order(7, size, epoch);
      std::sort(seen.begin(), seen.end());
      for (std::int64_t i = 0; i < size; ++i)
        ASSERT_EQ(seen[static_cast<std::size_t>(i)], i) << "size " << size;
    }
  }
}

TEST(Sampler, DiffersByEpochAndSeed) {
  std::set<std::vector<std::int64_t>> orders;
  for (std::uint64_t seed = 0; seed < 10; ++seed)
    for (std::int64_t epoch = 0; epoch < 10; ++epoch) orders.insert(order(seed, 100, epoch));
  EXPECT_EQ(orders.size(), 100u);
}

TEST(Sampler, WithoutShuffleIsTheIdentity) {
  const Sampler sampler(3, 50, false);
  for (std::int64_t position = 0; position < 50; ++position) EXPECT_EQ(sampler.index(4, position), position);
}

// The expected values are from an independent implementation in Python. A change of these numbers breaks the
// resume of every running job.
TEST(Sampler, KnownAnswers) {
  struct Case {
    std::uint64_t seed;
    std::int64_t size, epoch;
    std::vector<std::int64_t> first;
  };
  const std::vector<Case> cases{
      {0, 60000, 0, {3654, 24629, 34822, 37800, 47217, 14426, 15223, 3009}},
      {0, 60000, 1, {42680, 43884, 43297, 57604, 16505, 22661, 34453, 38366}},
      {1, 60000, 0, {48551, 9443, 31591, 27172, 26811, 43874, 47016, 26071}},
      {42, 10, 3, {5, 2, 6, 3, 1, 8, 7, 9}},
      {7, 1000, 2, {221, 699, 754, 982, 903, 672, 117, 402}},
      {123456789, std::int64_t{1} << 40, 5, {200172497208, 617928776813, 861378047087, 715103510177}},
  };
  for (const Case& c : cases) {
    const Sampler sampler(c.seed, c.size, true);
    for (std::size_t i = 0; i < c.first.size(); ++i)
      EXPECT_EQ(sampler.index(c.epoch, static_cast<std::int64_t>(i)), c.first[i])
          << "size " << c.size << " at " << i;
  }
}

// Over epochs, every permutation of a tiny dataset must be about equally likely.
TEST(Sampler, TinyPermutationsAreUniform) {
  for (const std::int64_t size : {2, 3, 5, 6}) {
    std::map<std::vector<std::int64_t>, std::int64_t> counts;
    for (std::int64_t epoch = 0; epoch < 12000; ++epoch) ++counts[order(11, size, epoch)];
    std::int64_t permutations = 1;
    for (std::int64_t i = 2; i <= size; ++i) permutations *= i;
    ASSERT_EQ(static_cast<std::int64_t>(counts.size()), permutations);
    std::vector<std::int64_t> values;
    for (const auto& [permutation, count] : counts) values.push_back(count);
    EXPECT_LT(std::abs(chi_square_score(values)), 4.5) << "size " << size;
  }
}

// Tests the distribution of the sample at one position over epochs, and that of the distance between
// neighbours in one epoch.
TEST(Sampler, PositionsAndNeighboursAreUniform) {
  constexpr std::int64_t kSize = 1000, kBins = 20;
  const Sampler sampler(5, kSize, true);
  for (const std::int64_t position : {0, 1, 499, 999}) {
    std::vector<std::int64_t> counts(kBins);
    for (std::int64_t epoch = 0; epoch < 10000; ++epoch)
      ++counts[static_cast<std::size_t>(sampler.index(epoch, position) * kBins / kSize)];
    EXPECT_LT(std::abs(chi_square_score(counts)), 4.5) << "position " << position;
  }
  for (const std::int64_t size : {60000, 65536}) {
    const std::vector<std::int64_t> shuffled = order(5, size, 0);
    for (const std::size_t distance : {1, 2, 256}) {
      std::vector<std::int64_t> counts(100);
      for (std::size_t i = 0; i + distance < shuffled.size(); ++i) {
        const std::int64_t gap = (shuffled[i + distance] - shuffled[i] + size) % size;
        ++counts[static_cast<std::size_t>(gap * 100 / size)];
      }
      EXPECT_LT(std::abs(chi_square_score(counts)), 4.5) << "size " << size << " distance " << distance;
    }
  }
}

TEST(Sampler, RefusesWhatItCannotServe) {
  test::expect_error(ExitCode::kData, {"0 samples"}, [] { Sampler(0, 0, true); });
  const Sampler sampler(0, 10, true);
  test::expect_error(ExitCode::kInternal, {"position 10", "0..9"}, [&] { sampler.index(0, 10); });
  test::expect_error(ExitCode::kInternal, {"position -1"}, [&] { sampler.index(0, -1); });
  test::expect_error(ExitCode::kInternal, {"epoch -1"}, [&] { sampler.index(-1, 0); });
}

TEST(Steps, CoverEveryEpochExactlyOnce) {
  for (const std::int64_t size : {1, 7, 10, 12}) {
    for (const std::int64_t batch : {1, 2, 3, 5, 10, 11, 100}) {
      std::int64_t step = 0;
      for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
        std::int64_t covered = 0;
        while (covered < size) {
          const StepPlan plan = plan_step(step++, size, batch);
          EXPECT_EQ(plan.epoch, epoch);
          EXPECT_EQ(plan.first, covered);
          EXPECT_GE(plan.count, 1);
          EXPECT_LE(plan.count, batch);
          covered += plan.count;
          EXPECT_TRUE(covered == size || plan.count == batch);
        }
        EXPECT_EQ(covered, size);
        EXPECT_EQ(step, (epoch + 1) * steps_per_epoch(size, batch));
      }
    }
  }
  EXPECT_EQ(plan_step(468, 60000, 128), (StepPlan{0, 59904, 96}));
  EXPECT_EQ(plan_step(469, 60000, 128), (StepPlan{1, 0, 128}));
  test::expect_error(ExitCode::kInternal, {"step -1"}, [] { plan_step(-1, 10, 2); });
  test::expect_error(ExitCode::kInternal, {"global batch of 0"}, [] { plan_step(0, 10, 0); });
}

TEST(Shards, CutAtFloors) {
  for (const std::int64_t count : {0, 1, 5, 7, 8, 64, 96, 1000}) {
    for (const std::int64_t shards : {1, 2, 3, 5, 8, 64}) {
      for (std::int64_t shard = 0; shard < shards; ++shard) {
        const PositionRange range = shard_positions(count, shards, shard);
        EXPECT_EQ(range.first, shard * count / shards);
        EXPECT_EQ(range.last, (shard + 1) * count / shards);
      }
    }
  }
  const std::int64_t huge = std::int64_t{1} << 60;
  EXPECT_EQ(shard_positions(huge, 1024, 1023), (PositionRange{huge / 1024 * 1023, huge}));
  test::expect_error(ExitCode::kInternal, {"shard 4", "[0, 4)"}, [] { shard_positions(8, 4, 4); });
}

}  // namespace
}  // namespace trireme
