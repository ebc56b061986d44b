// The binary tree over shards in which their vectors are summed (distributed/comm/ordered_reduce.h).
#pragma once

#include <span>
#include <vector>

namespace trireme {

/// A node of the tree. It covers shards [index << level, (index + 1) << level).
struct TreeNode {
  int level = 0;
  int index = 0;
  bool operator==(const TreeNode&) const = default;
  long first_shard() const { return static_cast<long>(index) << level; }
};

/// Returns the level of the root over `shards` leaves; the tree is padded to a power of two. A stack of
/// pending sums is never deeper than root level + 1.
int root_level(int shards);

/// Appends `node` to the nodes `left` of it, in shard order, and merges the last two as long as they are
/// siblings. A node whose right sibling is all padding becomes its parent. Returns the number of merges.
int append_node(std::vector<TreeNode>& left, TreeNode node, int shards);

/// Plans the sum over `nodes`, which must cover each of `shards` shards once, in shard order. merges[k] is
/// the number of pending sums that are popped from the stack and added on the left of node k, before the
/// result is pushed. At the end only the root is left. Throws if the nodes do not cover the shards in this
/// way.
std::vector<int> tree_merges(int shards, std::span<const TreeNode> nodes);

}  // namespace trireme
