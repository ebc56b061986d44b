// Tests which sums the ranks of a host have together, and which rank does which work for the host.
#include "distributed/comm/host_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "distributed/comm/ordered_reduce.h"

namespace trireme {
namespace {

std::vector<int> range(int first, int last) {
  std::vector<int> ranks(static_cast<std::size_t>(last - first));
  std::iota(ranks.begin(), ranks.end(), first);
  return ranks;
}

TEST(NodesOfHost, NeighboursHaveTheNodesOfOneRankWithAllTheirShards) {
  for (int shards = 1; shards <= 24; ++shards)
    for (int world = 1; world <= shards; ++world)
      for (int first = 0; first < world; ++first)
        for (int last = first + 1; last <= world; ++last) {
          const HostNodes host = nodes_of_host(shards, world, range(first, last));
          const ShardRange together{shards_of_rank(shards, world, first).first,
                                    shards_of_rank(shards, world, last - 1).last};
          EXPECT_EQ(host.nodes, maximal_subtrees(shards, together))
              << shards << " shards, ranks " << first << ".." << last - 1 << " of " << world;
        }
}

TEST(NodesOfHost, SaysHowTheyComeAbout) {
  // The host has shards 0, 2 and 3 of 4, on ranks 0, 2 and 3.
  const std::vector<int> ranks{0, 2, 3};
  const HostNodes host = nodes_of_host(4, 4, ranks);
  EXPECT_EQ(host.nodes, (std::vector<TreeNode>{{0, 0}, {1, 1}}));
  EXPECT_EQ(host.rows, 3u);
  ASSERT_EQ(host.parts.size(), 3u);
  EXPECT_EQ(host.parts[0].merges + host.parts[1].merges, 0);
  EXPECT_EQ(host.parts[2].merges, 1);
  EXPECT_EQ(host.parts[2].owner, 2u);
}

TEST(PlanHosts, ItsNodesCoverTheShardsOnceInOrder) {
  for (int shards = 1; shards <= 17; ++shards)
    for (int world = 1; world <= shards; ++world)
      for (int hosts = 1; hosts <= world; ++hosts) {
        std::vector<std::vector<int>> ranks_of(static_cast<std::size_t>(hosts));
        for (int rank = 0; rank < world; ++rank)
          ranks_of[static_cast<std::size_t>(rank % hosts)].push_back(rank);
        for (std::size_t own = 0; own < ranks_of.size(); ++own) {
          const HostPlan plan = plan_hosts(shards, ranks_of, own);
          EXPECT_NO_THROW(tree_merges(shards, plan.nodes));
          ASSERT_EQ(plan.sources.size(), plan.nodes.size());
          for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
            const auto [host, index] = plan.sources[i];
            const HostNodes& from = plan.hosts[host];
            EXPECT_EQ(plan.nodes[i], host == own ? from.parts[index].node : from.nodes[index]);
          }
        }
      }
}

TEST(AgentOf, IsTheOwnerWhereItIsAndSpreadsWorkElsewhere) {
  const std::vector<int> ranks{3, 5, 8, 9};
  EXPECT_EQ(agent_of(ranks, 8), 8);
  std::map<int, int> slices;
  for (int owner = 20; owner < 60; ++owner) ++slices[agent_of(ranks, owner)];
  ASSERT_EQ(slices.size(), 4u);
  for (const auto& [rank, count] : slices) EXPECT_EQ(count, 10) << rank;
}

}  // namespace
}  // namespace trireme
