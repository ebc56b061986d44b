// Plans sums of several ranks per node. The plan depends only on the shards and on which ranks share a node.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/tree.h"

namespace trireme {

/// Which ranks share a host, as one of them sees it. What a rank has to do with the slice of a rank of
/// another host, one rank does for all of its host.
struct HostPlaces {
  /// `hosts` holds, for every rank, the lowest rank on the same node.
  HostPlaces(std::span<const int> hosts, int rank);
  std::vector<std::vector<int>> ranks_of;  ///< for each node its ranks, ascending
  std::size_t own_host = 0;
  std::vector<int> owners;  ///< ranks of other hosts whose slices this one merges and hands out
  std::vector<int> agents;  ///< for each other host, in order, the rank there that handles this rank's slice
  const std::vector<int>& own_ranks() const { return ranks_of[own_host]; }
};

/// The nodes of a host's ranks. Where siblings meet they become one, so that a host sends no more than a rank
/// with all its shards would.
struct HostNodes {
  /// A node that one rank holds. `owner` is the rank's index among the ranks of its host, and `place` is the
  /// node's index among the nodes of that rank.
  struct Part {
    TreeNode node;
    std::size_t owner = 0, place = 0;
    int merges = 0;  ///< how often to add the last two remaining nodes after this part is appended
  };
  std::vector<Part> parts;      ///< in shard order
  std::vector<TreeNode> nodes;  ///< the nodes that remain after all merges
  std::size_t rows = 0;         ///< parts and sums that are ever left at once
};
/// Returns the tree nodes of one machine. `ranks` are its ranks, in a world of `world_size`.
HostNodes nodes_of_host(int shards, int world_size, std::span<const int> ranks);

/// How the sum of one job's shards is shared out among hosts.
struct HostPlan {
  /// The source of a node's partial sum. `index` counts HostNodes::parts if `host` is this rank's own host.
  /// Else it counts the rows that the other host sends, which are its HostNodes::nodes.
  struct Source {
    std::size_t host = 0, index = 0;
  };
  int shards = 0;
  std::vector<HostNodes> hosts;
  std::vector<TreeNode> nodes;  ///< for a rank that sums its slice, in shard order
  std::vector<Source> sources;  ///< the source of each of `nodes`
  std::size_t most_nodes = 0;   ///< the largest number of nodes that one rank holds
  /// The nodes of all ranks before any merge, in shard order; of each the rank, and its place among that
  /// rank's.
  std::vector<TreeNode> all_nodes;
  std::vector<std::size_t> owners, places;
};
/// `ranks_of[h]` are host h's, ascending; `own_host` is that of the rank which asks.
HostPlan plan_hosts(int shards, std::span<const std::vector<int>> ranks_of, std::size_t own_host);

/// The rank that does for its host whatever has to do with the slice of rank `owner`: the owner itself, if it
/// is there.
int agent_of(std::span<const int> ranks, int owner);

}  // namespace trireme
