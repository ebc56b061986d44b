// The binary tree over shards in which their vectors are summed (distributed/comm/ordered_reduce.h).
#pragma once

#include <span>
#include <vector>

namespace trireme {

/// A node of the tree: covers shards [index << level, (index + 1) << level).
struct TreeNode {
  int level = 0;
  int index = 0;
  bool operator==(const TreeNode&) const = default;
  long first_shard() const { return static_cast<long>(index) << level; }
};

/// The level of the root over `shards` leaves, the last of which may be padding. A stack of pending sums is
/// never deeper than that + 1.
int root_level(int shards);

/// Puts `node` behind those that are `left`, in shard order, and merges the last two as long as they are
/// siblings; a node whose right sibling is all padding stands for its parent too. Returns how often two
/// became one.
int append_node(std::vector<TreeNode>& left, TreeNode node, int shards);

/// Works through `nodes`, which cover `shards` shards once, in shard order: merges[k] is how many sums that
/// wait on the stack, its top first, are then added to the left of node k before it goes there itself. At the
/// end the root is all there is. Throws if the nodes do not cover the shards so.
std::vector<int> tree_merges(int shards, std::span<const TreeNode> nodes);

}  // namespace trireme
