// Tests that the size of buckets follows the cost of the link.
#include "distributed/comm/link_cost.h"

#include <gtest/gtest.h>

#include <clocale>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "distributed/comm/host_communicator.h"
#include "distributed/comm/local.h"

namespace trireme {
namespace {

constexpr std::size_t kMiB = 1 << 20;

TEST(BestBucketBytes, GrowsWithTheModelAndTheLink) {
  const LinkCost slow{2e-4, 118e6}, fast{2e-5, 1.2e9}, memory{1e-5, 1.3e10};
  const std::size_t gpt = 43'000'000;
  EXPECT_NEAR(static_cast<double>(best_bucket_bytes(gpt, slow)), 3.3e6, 0.2e6);
  EXPECT_LT(best_bucket_bytes(gpt, slow), best_bucket_bytes(gpt, fast));
  EXPECT_LT(best_bucket_bytes(gpt, fast), best_bucket_bytes(gpt, memory));
  EXPECT_LT(best_bucket_bytes(2'000'000, slow), best_bucket_bytes(gpt, slow));
}

TEST(BestBucketBytes, StaysWithinBounds) {
  EXPECT_EQ(best_bucket_bytes(1000, {1e-5, 1e8}), kMiB / 2);
  EXPECT_EQ(best_bucket_bytes(std::size_t{1} << 40, {1e-3, 1e11}), 25 * kMiB);
  EXPECT_EQ(best_bucket_bytes(1000, {}), 25 * kMiB) << "nothing was measured";
}

TEST(MeasureLink, SaysTheSameOnAllRanks) {
  for (const bool apart : {false, true}) {
    std::mutex mutex;
    std::vector<LinkCost> all;
    run_local_ranks(
        4, std::chrono::seconds(30),
        [&](Communicator& comm) {
          const LinkCost link = measure_link(comm);
          const std::lock_guard lock(mutex);
          all.push_back(link);
        },
        [&](int rank) { return apart ? rank : 0; });
    ASSERT_EQ(all.size(), 4u);
    for (const LinkCost& link : all) {
      EXPECT_GT(link.bytes_per_second, 0);
      EXPECT_GE(link.seconds, 0);
      EXPECT_EQ(link.bytes_per_second, all[0].bytes_per_second);
      EXPECT_EQ(link.seconds, all[0].seconds);
    }
  }
}

TEST(MeasureLink, IsReadAlikeInAProgramWithADecimalComma) {
  const std::string before = setlocale(LC_NUMERIC, nullptr);
  if (!setlocale(LC_NUMERIC, "de_DE.UTF-8")) {
    const std::string folder = testing::TempDir(),
                      make = "localedef -i de_DE -f UTF-8 " + folder + "de_DE.UTF-8";
    if (std::system((make + " >/dev/null 2>&1").c_str()) != 0)
      GTEST_SKIP() << "skipped: no locale with a decimal comma can be made here";
    setenv("LOCPATH", folder.c_str(), 1);
    ASSERT_TRUE(setlocale(LC_NUMERIC, "de_DE.UTF-8"));
    unsetenv("LOCPATH");
  }
  ASSERT_STREQ(localeconv()->decimal_point, ",");
  run_local_ranks(2, std::chrono::seconds(30), [&](Communicator& comm) {
    const LinkCost link = measure_link(comm);
    EXPECT_GT(link.seconds, 0);
    EXPECT_LT(link.seconds, 1);
    EXPECT_GT(link.bytes_per_second, 1e3);
  });
  setlocale(LC_NUMERIC, before.c_str());
}

TEST(MeasureLink, AloneThereIsNone) {
  EXPECT_EQ(measure_link(*make_alone_communicator()).bytes_per_second, 0);
}

}  // namespace
}  // namespace trireme
