#include "kernels/tree.h"

#include <bit>

#include "kernels/error.h"

namespace trireme {

namespace {

long first_shard(TreeNode node) { return static_cast<long>(node.index) << node.level; }

/// A binary counter: how many sums end with this node.
int merges_of(TreeNode node, int shards) {
  int merges = 0;
  while (first_shard(node) > 0 || (1L << node.level) < shards) {
    if (node.index % 2 == 0) {
      // The right sibling is either still to come, or all padding and passed over.
      if (first_shard({node.level, node.index + 1}) < shards) break;
    } else {
      ++merges;
    }
    node = {node.level + 1, node.index / 2};
  }
  return merges;
}

}  // namespace

int root_level(int shards) { return std::bit_width(static_cast<unsigned>(shards) - 1); }

std::vector<int> tree_merges(int shards, std::span<const TreeNode> nodes) {
  TRIREME_CHECK(shards >= 1, "tree: {} shards", shards);
  std::vector<int> merges;
  long next = 0;
  for (const TreeNode node : nodes) {
    TRIREME_CHECK(first_shard(node) == next, "tree: a node begins at shard {}, expected {}",
                  first_shard(node), next);
    next += 1L << node.level;
    merges.push_back(merges_of(node, shards));
  }
  TRIREME_CHECK(next >= shards, "tree: nodes end at shard {} of {}", next, shards);
  return merges;
}

}  // namespace trireme
