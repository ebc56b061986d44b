#include "launcher/cost_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/error.h"

namespace trireme {
namespace {

constexpr Link kFar{.latency_s = 20e-6, .message_s = 2e-6, .bytes_per_s = 1e9};
constexpr Link kNear{.latency_s = 1e-6, .message_s = 0.5e-6, .bytes_per_s = 50e9};

Cluster flat(int ranks) { return {.ranks = ranks, .ranks_per_host = 1, .between = kFar, .within = kNear}; }
Cluster hosts_of(int ranks, int per_host) {
  return {.ranks = ranks, .ranks_per_host = per_host, .between = kFar, .within = kNear};
}

TEST(CostModel, OneRankSendsNothing) {
  for (const AllReduce algorithm : kAllReduces) EXPECT_EQ(all_reduce_seconds(algorithm, 1e9, flat(1)), 0);
}

TEST(CostModel, RingIsTheClosedForm) {
  for (const int ranks : {2, 3, 8, 64}) {
    const double steps = 2.0 * (ranks - 1);
    EXPECT_DOUBLE_EQ(all_reduce_seconds(AllReduce::kRing, 25e6, flat(ranks)),
                     steps * 22e-6 + steps / ranks * 25e6 / 1e9);
  }
}

TEST(CostModel, TreeTakesTheBestNumberOfBlocks) {
  for (const double bytes : {1e3, 1e6, 25e6}) {
    double best = std::numeric_limits<double>::infinity();
    for (double blocks = 1; blocks < 1e4; blocks *= 1.001)
      best = std::min(best, 2 * (6 - 1 + blocks) * (22e-6 + bytes / 1e9 / blocks));
    EXPECT_NEAR(all_reduce_seconds(AllReduce::kTree, bytes, flat(64)), best, 1e-4 * best) << bytes;
  }
}

TEST(CostModel, HierarchicalIsARingInsideAndOneBetween) {
  // The cluster has 4 hosts with 8 ranks each.
  EXPECT_DOUBLE_EQ(all_reduce_seconds(AllReduce::kHierarchical, 8e6, hosts_of(32, 8)),
                   14 * (1.5e-6 + 1e6 / 50e9) + 6 * (22e-6 + 2e6 / 1e9));
  EXPECT_DOUBLE_EQ(all_reduce_seconds(AllReduce::kHierarchical, 8e6, flat(4)),
                   all_reduce_seconds(AllReduce::kRing, 8e6, flat(4)));
}

TEST(CostModel, OrderedSendsWhatARingOfHostsDoes) {
  Cluster cluster = flat(8);
  cluster.between.message_s = cluster.between.latency_s = 0;
  EXPECT_DOUBLE_EQ(all_reduce_seconds(AllReduce::kOrdered, 25e6, cluster), 2 * 25e6 * 7 / 8 / 1e9);
  // Latency counts three times. There are 7 messages to agree, and 14 for each piece of 512 KiB per rank.
  cluster.between = kFar;
  EXPECT_DOUBLE_EQ(all_reduce_seconds(AllReduce::kOrdered, 25e6, cluster),
                   2 * 25e6 * 7 / 8 / 1e9 + 3 * 20e-6 + (7 + 6 * 14) * 2e-6);
  // A short vector is sent with the messages of the agreement.
  EXPECT_DOUBLE_EQ(all_reduce_seconds(AllReduce::kOrdered, 16, cluster), 20e-6 + 7 * 2e-6);
}

TEST(CostModel, RanksOfAHostShareItsLinkOnce) {
  // The bytes between hosts depend on the number of hosts, not of ranks.
  Cluster cluster = hosts_of(16, 8);
  cluster.between.message_s = cluster.between.latency_s = 0;
  cluster.within = {.latency_s = 0, .message_s = 0, .bytes_per_s = 1e30};
  EXPECT_NEAR(all_reduce_seconds(AllReduce::kOrdered, 25e6, cluster), 25e6 / 1e9, 1e-9);
  EXPECT_NEAR(all_reduce_seconds(AllReduce::kRing, 25e6, cluster), 2 * 25e6 * 15 / 16 / 1e9, 1e-9);
}

TEST(CostModel, AllWithinAHostNeedNoNetwork) {
  Cluster cluster = hosts_of(8, 8);
  cluster.between = {.latency_s = 1, .message_s = 1, .bytes_per_s = 1};
  for (const AllReduce algorithm : kAllReduces)
    EXPECT_LT(all_reduce_seconds(algorithm, 1e6, cluster), 1e-3) << name_of(algorithm);
}

TEST(CostModel, LinksByNameAndByFigures) {
  EXPECT_EQ(cluster_of("NVLink+IB").ranks_per_host, 8);
  EXPECT_LT(cluster_of("10GbE").between.bytes_per_s, cluster_of("100GbE").between.bytes_per_s);
  const Link link = cluster_of("30us,10Gbit/s").between;
  EXPECT_DOUBLE_EQ(link.latency_s, 30e-6);
  EXPECT_DOUBLE_EQ(link.message_s, 3e-6);
  EXPECT_DOUBLE_EQ(link.bytes_per_s, 1.25e9);
  EXPECT_DOUBLE_EQ(cluster_of("2us,25GB/s,300ns").between.message_s, 300e-9);
}

TEST(CostModel, ALinkIsFoundAgainFromItsSums) {
  Cluster cluster = hosts_of(8, 2);
  cluster.between.message_s = cluster.between.latency_s / 10;
  std::vector<MeasuredSum> sums;
  for (const double bytes : {16.0, 3e5, 2e6})
    sums.push_back({bytes, all_reduce_seconds(AllReduce::kOrdered, bytes, cluster)});
  const Link found = fit_link(sums, cluster);
  EXPECT_NEAR(found.latency_s, 20e-6, 1e-9);
  EXPECT_NEAR(found.message_s, 2e-6, 1e-10);
  EXPECT_NEAR(found.bytes_per_s, 1e9, 1e3);
  // The fit returns a link even for measurements that no link explains.
  const std::vector<MeasuredSum> odd{{1e3, 1e-3}, {1e6, 1e-5}}, one{{1e6, 1e-3}},
      steep{{1e3, 1e-9}, {1e6, 1e-2}};
  for (const auto& strange : {odd, one, steep}) {
    const Link link = fit_link(strange, cluster);
    EXPECT_GE(link.latency_s, 0);
    EXPECT_GT(link.bytes_per_s, 0);
    EXPECT_TRUE(std::isfinite(link.latency_s) && std::isfinite(link.bytes_per_s));
  }
}

TEST(CostModel, WrongLinksAreNamed) {
  for (const char* wrong : {"", "10GBe", "30us", "30us,10", "30,10Gbit/s", "30us,10Gbit/s,", "-1us,1GB/s",
                            "1us,0GB/s", "1us,1GB/s,1us,1us", "nanus,1GB/s", "1us,1GB/s trailing"}) {
    try {
      cluster_of(wrong);
      ADD_FAILURE() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      EXPECT_NE(std::string(error.what()).find(std::string("--link '") + wrong + "'"), std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace trireme
