#include "distributed/comm/host_plan.h"

#include <algorithm>

#include "distributed/comm/ordered_reduce.h"

namespace trireme {

HostPlaces::HostPlaces(std::span<const int> hosts, int rank) {
  std::vector<int> known;
  for (std::size_t r = 0; r < hosts.size(); ++r) {
    const auto found = std::ranges::find(known, hosts[r]);
    const auto at = static_cast<std::size_t>(found - known.begin());
    if (found == known.end()) {
      known.push_back(hosts[r]);
      ranks_of.emplace_back();
    }
    ranks_of[at].push_back(static_cast<int>(r));
    if (static_cast<int>(r) == rank) own_host = at;
  }
  for (std::size_t h = 0; h < ranks_of.size(); ++h) {
    if (h == own_host) continue;
    agents.push_back(agent_of(ranks_of[h], rank));
    for (const int owner : ranks_of[h])
      if (agent_of(own_ranks(), owner) == rank) owners.push_back(owner);
  }
}

HostNodes nodes_of_host(int shards, int world_size, std::span<const int> ranks) {
  HostNodes host;
  for (std::size_t owner = 0; owner < ranks.size(); ++owner) {
    const auto own = maximal_subtrees(shards, shards_of_rank(shards, world_size, ranks[owner]));
    for (std::size_t place = 0; place < own.size(); ++place) host.parts.push_back({own[place], owner, place});
  }
  for (HostNodes::Part& part : host.parts) {
    host.rows = std::max(host.rows, host.nodes.size() + 1);
    part.merges = append_node(host.nodes, part.node, shards);
  }
  return host;
}

HostPlan plan_hosts(int shards, std::span<const std::vector<int>> ranks_of, std::size_t own_host) {
  HostPlan plan{.shards = shards};
  int world_size = 0;
  for (const auto& ranks : ranks_of) world_size += static_cast<int>(ranks.size());
  struct Found {
    TreeNode node;
    HostPlan::Source source;
  };
  for (int rank = 0; rank < world_size; ++rank) {
    const auto own = maximal_subtrees(shards, shards_of_rank(shards, world_size, rank));
    plan.most_nodes = std::max(plan.most_nodes, own.size());
    for (std::size_t place = 0; place < own.size(); ++place) {
      plan.all_nodes.push_back(own[place]);
      plan.owners.push_back(static_cast<std::size_t>(rank));
      plan.places.push_back(place);
    }
  }
  std::vector<Found> all;
  for (std::size_t h = 0; h < ranks_of.size(); ++h) {
    const HostNodes& host = plan.hosts.emplace_back(nodes_of_host(shards, world_size, ranks_of[h]));
    if (h == own_host)
      for (std::size_t i = 0; i < host.parts.size(); ++i) all.push_back({host.parts[i].node, {h, i}});
    else
      for (std::size_t i = 0; i < host.nodes.size(); ++i) all.push_back({host.nodes[i], {h, i}});
  }
  std::ranges::sort(all, {}, [](const Found& f) { return f.node.first_shard(); });
  for (const Found& f : all) {
    plan.nodes.push_back(f.node);
    plan.sources.push_back(f.source);
  }
  return plan;
}

int agent_of(std::span<const int> ranks, int owner) {
  if (std::ranges::find(ranks, owner) != ranks.end()) return owner;
  return ranks[static_cast<std::size_t>(owner) % ranks.size()];
}

}  // namespace trireme
