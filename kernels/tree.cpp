#include "kernels/tree.h"

#include <bit>

#include "kernels/error.h"

namespace trireme {

int root_level(int shards) { return std::bit_width(static_cast<unsigned>(shards) - 1); }

int append_node(std::vector<TreeNode>& left, TreeNode node, int shards) {
  int merges = 0;
  for (left.push_back(node);;) {
    const auto [level, index] = left.back();
    if (index == 0 && (1L << level) >= shards) return merges;  // the root
    if (index % 2 == 0) {
      if (TreeNode{level, index + 1}.first_shard() < shards) return merges;
    } else {
      if (left.size() < 2 || left[left.size() - 2] != TreeNode{level, index - 1}) return merges;
      left.pop_back();
      ++merges;
    }
    left.back() = {level + 1, index / 2};
  }
}

std::vector<int> tree_merges(int shards, std::span<const TreeNode> nodes) {
  TRIREME_CHECK(shards >= 1, "tree: {} shards", shards);
  std::vector<TreeNode> left;
  std::vector<int> merges;
  long next = 0;
  for (const TreeNode node : nodes) {
    TRIREME_CHECK(node.first_shard() == next, "tree: a node begins at shard {}, expected {}",
                  node.first_shard(), next);
    next += 1L << node.level;
    merges.push_back(append_node(left, node, shards));
  }
  TRIREME_CHECK(next >= shards, "tree: nodes end at shard {} of {}", next, shards);
  return merges;
}

}  // namespace trireme
