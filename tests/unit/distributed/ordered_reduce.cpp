// Tests the tree: which rank has which nodes, and that the order of additions gives the exact bits.
#include "distributed/comm/ordered_reduce.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "kernels/error.h"
#include "kernels/table.h"
#include "tests/support/shard_sums.h"

namespace trireme {
namespace {

using namespace test;

TEST(ShardsOfRank, AreContiguousAndTheFirstRanksHoldOneMore) {
  EXPECT_EQ(shards_of_rank(8, 5, 0).size(), 2);
  EXPECT_EQ(shards_of_rank(8, 5, 2).size(), 2);
  EXPECT_EQ(shards_of_rank(8, 5, 3).size(), 1);
  for (int shards = 1; shards <= 20; ++shards) {
    for (int size = 1; size <= shards; ++size) {
      int next = 0;
      for (int rank = 0; rank < size; ++rank) {
        const ShardRange range = shards_of_rank(shards, size, rank);
        EXPECT_EQ(range.first, next);
        EXPECT_GE(range.size(), shards / size);
        EXPECT_LE(range.size(), shards / size + 1);
        next = range.last;
      }
      EXPECT_EQ(next, shards);
    }
  }
}

TEST(ShardsOfRank, MoreRanksThanShardsSaysWhichShardsToUse) {
  try {
    shards_of_rank(4, 5, 0);
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(e.what()).find("--shards 5"), std::string::npos) << e.what();
  }
  EXPECT_THROW(shards_of_rank(4, 2, 2), Error);
}

TEST(MaximalSubtrees, KnownCases) {
  using Nodes = std::vector<TreeNode>;
  EXPECT_EQ(maximal_subtrees(8, {0, 8}), (Nodes{{3, 0}}));
  EXPECT_EQ(maximal_subtrees(8, {1, 8}), (Nodes{{0, 1}, {1, 1}, {2, 1}}));
  EXPECT_EQ(maximal_subtrees(8, {3, 5}), (Nodes{{0, 3}, {0, 4}}));
  EXPECT_EQ(maximal_subtrees(1, {0, 1}), (Nodes{{0, 0}}));
  EXPECT_EQ(maximal_subtrees(5, {0, 5}), (Nodes{{3, 0}}));  // complete, because the rest is padding
  EXPECT_EQ(maximal_subtrees(5, {4, 5}), (Nodes{{2, 1}}));
  EXPECT_EQ(maximal_subtrees(5, {2, 4}), (Nodes{{1, 1}}));
  EXPECT_EQ(maximal_subtrees(5, {2, 2}), Nodes{});
  EXPECT_THROW(maximal_subtrees(5, {2, 6}), Error);
}

TEST(MaximalSubtrees, CoverTheRangeOnceWithFewNodes) {
  for (int shards = 1; shards <= 40; ++shards) {
    for (int first = 0; first < shards; ++first) {
      for (int last = first + 1; last <= shards; ++last) {
        const auto nodes = maximal_subtrees(shards, {first, last});
        int next = first;
        for (std::size_t k = 0; k < nodes.size(); ++k) {
          EXPECT_EQ(nodes[k].index << nodes[k].level, next);
          next += 1 << nodes[k].level;
          // Two neighbouring siblings would have been merged into one node.
          EXPECT_FALSE(k > 0 && nodes[k].level == nodes[k - 1].level && nodes[k].index % 2 == 1);
        }
        EXPECT_TRUE(next == last || (last == shards && next > last)) << shards << ' ' << first << ' ' << last;
        EXPECT_LE(nodes.size(), 2 * std::max<std::size_t>(1, std::bit_width(unsigned(shards) - 1)));
      }
    }
  }
}

TEST(SliceOfRank, CutsInto16BytePiecesAndCoversAll) {
  for (const std::size_t count : {0u, 1u, 3u, 4u, 5u, 63u, 64u, 1001u}) {
    for (int size = 1; size <= 9; ++size) {
      std::size_t next = 0;
      bool ended = false;  // only the last piece that is not empty may be odd
      for (int rank = 0; rank < size; ++rank) {
        const Slice slice = slice_of_rank(count, size, rank);
        EXPECT_EQ(slice.first, next);
        EXPECT_FALSE(ended && slice.count > 0);
        ended = ended || slice.count % 4 != 0;
        next += slice.count;
      }
      EXPECT_EQ(next, count);
    }
  }
  EXPECT_EQ(slice_of_rank(1024, 2, 1).count, 512u);
}

// Calls the kernel on vectors of floats.
void sum_tree(int shards, std::span<const TreeNode> nodes, std::span<const void* const> partials,
              std::size_t count, float scale, float* out) {
  const View to{out, DType::kFloat32, 1, {static_cast<std::int64_t>(count)}, {1}};
  kernels_of(kCpu).tree_sum(to, nodes, partials, shards, scale);
}

// Returns the sum over the nodes that the ranks of a world of `size` have. Takes the node sums from the
// reference.
Floats summed(const PaddedTree& tree, int shards, int size, std::size_t count, float scale) {
  std::vector<TreeNode> nodes;
  std::vector<const void*> partials;
  for (int rank = 0; rank < size; ++rank) {
    for (const TreeNode node : maximal_subtrees(shards, shards_of_rank(shards, size, rank))) {
      nodes.push_back(node);
      partials.push_back(tree.levels[node.level][node.index].data());
    }
  }
  Floats out(count, 42.0f);
  sum_tree(shards, nodes, partials, count, scale, out.data());
  return out;
}

TEST(SumTree, HasTheBitsOfTheFullPaddedTree) {
  for (const std::size_t count : {0u, 1u, 7u, 2048u, 5001u}) {
    for (int shards = 1; shards <= 17; ++shards) {
      const PaddedTree tree(shards, count);
      for (int size = 1; size <= shards; ++size) {
        ASSERT_TRUE(same_bits(summed(tree, shards, size, count, 1.0f), tree.root()))
            << shards << " over " << size;
        ASSERT_TRUE(same_bits(summed(tree, shards, size, count, 1.0f / 3), tree.root(1.0f / 3)));
      }
    }
  }
}

TEST(SumTree, OutMayBeAnyPartial) {
  const std::size_t count = 5000;
  const PaddedTree tree(6, count);
  for (std::size_t k = 0; k < 6; ++k) {
    auto leaves = tree.levels[0];
    std::vector<TreeNode> nodes;
    std::vector<const void*> partials;
    for (int shard = 0; shard < 6; ++shard) {
      // The last two shards, [4, 6), are padded to [4, 8).
      nodes.push_back({0, shard});
      partials.push_back(leaves[shard].data());
    }
    nodes.back() = {0, 5};
    sum_tree(6, nodes, partials, count, 1.0f, leaves[k].data());
    EXPECT_TRUE(same_bits(leaves[k], tree.root())) << k;
  }
}

TEST(SumTree, RefusesNodesThatDoNotCoverTheShardsOnce) {
  const Floats x(4);
  Floats out(4);
  const std::vector<const void*> one{x.data()}, two{x.data(), x.data()};
  EXPECT_THROW(sum_tree(4, std::vector<TreeNode>{{1, 0}}, one, 4, 1, out.data()), Error);
  EXPECT_THROW(sum_tree(4, std::vector<TreeNode>{{1, 0}, {1, 0}}, two, 4, 1, out.data()), Error);
  EXPECT_THROW(sum_tree(4, std::vector<TreeNode>{{1, 1}, {1, 0}}, two, 4, 1, out.data()), Error);
  EXPECT_THROW(sum_tree(4, std::vector<TreeNode>{{1, 0}, {1, 1}}, one, 4, 1, out.data()), Error);
}

// Checks that the test data give different bits for likely mistakes. Otherwise the tests above would prove
// nothing.
TEST(TestData, TellsOtherOrdersApart) {
  const std::size_t count = 4096;
  for (int shards = 3; shards <= 17; ++shards) {
    const PaddedTree tree(shards, count);
    Floats fold = shard_values(0, count);
    for (int shard = 1; shard < shards; ++shard) fold = sum_of(fold, shard_values(shard, count));
    // For 3 shards, the left fold is the tree.
    EXPECT_EQ(same_bits(fold, tree.root()), shards == 3) << "left fold, " << shards;

    auto halves = tree.levels[0];
    while (halves.size() > 1) {
      const std::size_t half = halves.size() / 2;
      for (std::size_t k = 0; k < half; ++k) halves[k] = sum_of(halves[k], halves[k + half]);
      halves.resize(half);
    }
    EXPECT_FALSE(same_bits(halves[0], tree.root())) << "halving order, " << shards;

    Floats scaled_first(count, -0.0f);
    const auto& pair = tree.levels[tree.levels.size() - 2];
    for (std::size_t i = 0; i < count; ++i)
      scaled_first[i] = pair[0][i] * (1.0f / 3) + pair[1][i] * (1.0f / 3);
    EXPECT_FALSE(same_bits(scaled_first, tree.root(1.0f / 3))) << "scaling before the sum, " << shards;
  }
}

TEST(TestData, PaddingIsTheIdentity) {
  for (const float x : {0.0f, -0.0f, 1e-45f, -1e-45f, 1e30f, -INFINITY, 1.5f}) {
    EXPECT_TRUE(same_bits(Floats{x + -0.0f}, Floats{x}));
  }
  EXPECT_FALSE(same_bits(Floats{-0.0f + 0.0f}, Floats{-0.0f}));  // padding with +0.0 would change bits
}

// Returns the sum over a node in 16 bits. Every addition is rounded, and padding is skipped.
template <class T>
T narrow_sum(int shards, int level, int index, std::size_t i) {
  if (level == 0) return T(shard_value(index, i));
  const T left = narrow_sum<T>(shards, level - 1, 2 * index, i);
  if ((2 * index + 1) << (level - 1) >= shards) return left;
  return T(left + narrow_sum<T>(shards, level - 1, 2 * index + 1, i));
}

template <class T>
void expect_narrow_tree() {
  constexpr std::size_t kCount = 2051;  // more than one block of the kernel
  for (const int shards : {1, 2, 3, 5, 8, 13})
    for (int size = 1; size <= shards; ++size) {
      std::vector<TreeNode> nodes;
      std::vector<std::vector<T>> sums;
      for (int rank = 0; rank < size; ++rank)
        for (const TreeNode node : maximal_subtrees(shards, shards_of_rank(shards, size, rank))) {
          nodes.push_back(node);
          auto& sum = sums.emplace_back(kCount);
          for (std::size_t i = 0; i < kCount; ++i) sum[i] = narrow_sum<T>(shards, node.level, node.index, i);
        }
      std::vector<const void*> parts;
      for (const auto& sum : sums) parts.push_back(sum.data());
      std::vector<T> out(kCount);
      const View to{out.data(), dtype_of<T>, 1, {kCount}, {1}};
      kernels_of(kCpu).tree_sum(to, nodes, parts, shards, 1);
      for (std::size_t i = 0; i < kCount; ++i)
        ASSERT_EQ(out[i].bits, narrow_sum<T>(shards, root_level(shards), 0, i).bits)
            << shards << " shards, " << size << " ranks, element " << i;
    }
}

TEST(SumTree, RoundsEveryNodeIn16Bits) {
  expect_narrow_tree<BFloat16>();
  expect_narrow_tree<Float16>();
}

}  // namespace
}  // namespace trireme
