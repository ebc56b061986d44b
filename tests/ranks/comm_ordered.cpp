// Tests that ordered sums have the same bits at every world size.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "distributed/comm/ordered_reduce.h"
#include "tests/support/rank_test.h"
#include "tests/support/shard_sums.h"

namespace trireme {
namespace {

using namespace test;

// Returns this rank's partial sums. They are views of the reference's node sums, which nobody may change.
std::vector<std::span<const float>> partials_of(const PaddedTree& tree, int shards,
                                                const Communicator& comm) {
  std::vector<std::span<const float>> partials;
  for (const TreeNode node : maximal_subtrees(shards, shards_of_rank(shards, comm.size(), comm.rank()))) {
    partials.emplace_back(tree.levels[node.level][node.index]);
  }
  return partials;
}

std::vector<Floats> copies(const std::vector<std::span<const float>>& partials) {
  std::vector<Floats> result;
  for (const std::span<const float> partial : partials) result.emplace_back(partial.begin(), partial.end());
  return result;
}

std::vector<const void*> pointers(const std::vector<Floats>& partials) {
  std::vector<const void*> result;
  for (const Floats& partial : partials) result.push_back(partial.data());
  return result;
}

TEST(OrderedAllReduce, SameBitsForAllShardsAndRanks) {
  constexpr float kScale = 1.0f / 3;
  for_each_communicator({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}, [](Communicator& comm) {
    for (int shards = comm.size(); shards <= 17; ++shards) {
      for (const std::size_t count : {0u, 1u, 3u, 65u, 1027u}) {
        const PaddedTree tree(shards, count);
        const auto wanted = partials_of(tree, shards, comm);
        const auto partials = copies(wanted);
        Floats out(count, 42.0f);
        ordered_all_reduce(comm, shards, pointers(partials), DType::kFloat32, count, kScale, out.data(),
                           "bucket")
            .wait();
        ASSERT_TRUE(same_bits(out, tree.root(kScale))) << count << " floats, " << shards << " shards";
        for (std::size_t k = 0; k < partials.size(); ++k) {
          ASSERT_TRUE(same_bits(partials[k], wanted[k])) << "inputs were changed";
        }
      }
    }
  });
}

TEST(OrderedAllReduce, LargeAndInPlace) {
  constexpr std::size_t kCount = 1'000'003;
  const PaddedTree tree(5, kCount);
  const Floats root = tree.root();
  for_each_communicator({1, 2, 3, 4}, [&](Communicator& comm) {
    const std::size_t own = partials_of(tree, 5, comm).size();
    for (std::size_t into = 0; into < own; ++into) {
      auto partials = copies(partials_of(tree, 5, comm));
      const auto inputs = pointers(partials);
      ordered_all_reduce(comm, 5, inputs, DType::kFloat32, kCount, 1.0f, partials[into].data(), "bucket")
          .wait();
      ASSERT_TRUE(same_bits(partials[into], root));
      // Ranks have different numbers of partial sums, but must make equally many calls.
      if (comm.size() > 1) break;
    }
  });
}

/// A vector, either in memory that other ranks of the host can access, or in private memory.
struct Vector {
  Vector(Communicator& comm, bool visible, std::span<const float> values)
      : memory(visible ? comm.allocate(values.size() * sizeof(float))
                       : std::shared_ptr<std::byte>(new std::byte[values.size() * sizeof(float)],
                                                    std::default_delete<std::byte[]>())),
        count(values.size()) {
    if (count > 0) std::memcpy(memory.get(), values.data(), count * sizeof(float));
  }
  std::span<const float> values() const { return {reinterpret_cast<const float*>(memory.get()), count}; }
  std::shared_ptr<std::byte> memory;
  std::size_t count;
};

TEST(OrderedAllReduce, MemoryThatOtherRanksSeeOrDoNot) {
  // Test small vectors, vectors of one or two slices, and vectors that need several stages.
  for (const std::size_t count : {7u, 3001u, 700'001u}) {
    const PaddedTree tree(6, count);
    const Floats root = tree.root(0.5f), unset(count, 42.0f);
    for_each_communicator({1, 2, 3, 4, 6}, [&](Communicator& comm) {
      const auto inputs = partials_of(tree, 6, comm);
      for (int seen = 0; seen < 5; ++seen) {
        const bool partials_seen = seen == 0 || seen == 1 || (seen == 2 && comm.rank() % 2 == 0);
        const bool out_seen = seen == 0 || seen == 3 || (seen == 2 && comm.rank() % 2 == 0);
        std::vector<Vector> partials;
        std::vector<const void*> given;
        for (const std::span<const float> input : inputs)
          given.push_back(partials.emplace_back(comm, partials_seen, input).memory.get());
        // The last sum is written into one of the partial sums.
        Vector out(comm, out_seen, unset);
        void* const to = seen == 4 ? partials[0].memory.get() : out.memory.get();
        ordered_all_reduce(comm, 6, given, DType::kFloat32, count, 0.5f, to, "bucket").wait();
        ASSERT_TRUE(same_bits(seen == 4 ? partials[0].values() : out.values(), root))
            << count << " floats, case " << seen;
        for (std::size_t k = seen == 4 ? 1 : 0; k < inputs.size(); ++k)
          ASSERT_TRUE(same_bits(partials[k].values(), inputs[k])) << "inputs were changed";
      }
    });
  }
}

/// Returns cuts into slices of different sizes, some of which are empty.
std::vector<std::size_t> some_cuts(std::size_t count, int ranks) {
  std::vector<std::size_t> cuts{0};
  for (int rank = 1; rank < ranks; ++rank)
    cuts.push_back(rank % 3 == 2 ? cuts.back()
                                 : std::max(cuts.back(), count * static_cast<std::size_t>(rank * rank) /
                                                             static_cast<std::size_t>(ranks * ranks)));
  cuts.push_back(count);
  return cuts;
}

TEST(OrderedSum, GivesEachRankItsSliceAndGatheringThemAllOfIt) {
  for (const std::size_t count : {0u, 5u, 3001u, 700'001u}) {
    const PaddedTree tree(6, count);
    const Floats root = tree.root(0.5f), unset(count, 42.0f);
    for_each_communicator({1, 2, 3, 4, 6}, [&](Communicator& comm) {
      const auto inputs = partials_of(tree, 6, comm);
      const auto cuts = some_cuts(count, comm.size());
      const auto r = static_cast<std::size_t>(comm.rank());
      for (const bool seen : {true, false}) {
        std::vector<Vector> partials;
        std::vector<const void*> given;
        for (const std::span<const float> input : inputs)
          given.push_back(partials.emplace_back(comm, seen, input).memory.get());
        Vector out(comm, seen, unset);
        const OrderedSum sum{6, given, DType::kFloat32, count, 0.5f, out.memory.get(), cuts, true};
        ordered_sum(comm, sum, "bucket").wait();
        const std::size_t own = cuts[r + 1] - cuts[r];
        ASSERT_TRUE(same_bits(out.values().subspan(cuts[r], own), std::span(root).subspan(cuts[r], own)))
            << count << " floats, seen " << seen;
        std::vector<std::span<std::byte>> slices;
        for (std::size_t peer = 0; peer + 1 < cuts.size(); ++peer)
          slices.push_back(
              std::span(out.memory.get(), count * sizeof(float))
                  .subspan(cuts[peer] * sizeof(float), (cuts[peer + 1] - cuts[peer]) * sizeof(float)));
        comm.all_gather(slices, "bucket").wait();
        ASSERT_TRUE(same_bits(out.values(), root)) << count << " floats, seen " << seen;
      }
    });
  }
}

TEST(OrderedSum, RefusesCutsThatDoNotFit) {
  for_each_communicator({2}, [](Communicator& comm) {
    float out = 0;
    for (const std::vector<std::size_t>& cuts :
         {std::vector<std::size_t>{0, 1}, {0, 2, 1}, {1, 1, 1}, {0, 0, 2}})
      EXPECT_NE(error_of([&] {
                  ordered_sum(comm, {2, {&out}, DType::kFloat32, 1, 1, &out, cuts, true}, "x");
                }).find("cuts for 2 ranks"),
                std::string::npos);
  });
}

TEST(OrderedAllReduce, In16BitsEveryNodeIsRounded) {
  constexpr int kShards = 7;
  constexpr std::size_t kCount = 1003;
  // The sum of each node is rounded, so a rank's partial sums are sums of rounded sums.
  const auto node_of = [&](TreeNode node) {
    std::function<std::vector<BFloat16>(int, int)> sum = [&](int level, int index) {
      std::vector<BFloat16> left(kCount, BFloat16(-0.0f));
      if (level == 0) {
        if (index < kShards)
          for (std::size_t i = 0; i < kCount; ++i) left[i] = BFloat16(shard_value(index, i));
        return left;
      }
      left = sum(level - 1, 2 * index);
      const auto right = sum(level - 1, 2 * index + 1);
      for (std::size_t i = 0; i < kCount; ++i) left[i] = BFloat16(float(left[i]) + float(right[i]));
      return left;
    };
    return sum(node.level, node.index);
  };
  const auto wanted = node_of({3, 0});
  for_each_communicator({1, 2, 3, 4, 5, 7}, [&](Communicator& comm) {
    std::vector<std::vector<BFloat16>> partials;
    for (const TreeNode node : maximal_subtrees(kShards, shards_of_rank(kShards, comm.size(), comm.rank())))
      partials.push_back(node_of(node));
    std::vector<const void*> given;
    for (const auto& partial : partials) given.push_back(partial.data());
    std::vector<BFloat16> out(kCount);
    ordered_all_reduce(comm, kShards, given, DType::kBFloat16, kCount, 1, out.data(), "bucket").wait();
    ASSERT_EQ(std::memcmp(out.data(), wanted.data(), kCount * sizeof(BFloat16)), 0);
  });
}

TEST(OrderedAllReduce, ManyInFlight) {
  constexpr int kBuckets = 20;
  for_each_communicator({1, 2, 3, 4, 8}, [](Communicator& comm) {
    const int shards = 11;
    std::vector<PaddedTree> trees;
    std::vector<std::vector<Floats>> partials;
    std::vector<Floats> outs;
    for (int k = 0; k < kBuckets; ++k) {
      const std::size_t count = 100 * k + k;
      trees.emplace_back(shards, count);
      partials.push_back(copies(partials_of(trees.back(), shards, comm)));
      outs.emplace_back(count);
    }
    Event last;
    for (int k = 0; k < kBuckets; ++k) {
      last = ordered_all_reduce(comm, shards, pointers(partials[k]), DType::kFloat32, outs[k].size(), 0.1f,
                                outs[k].data(), "bucket " + std::to_string(k));
    }
    last.wait();
    for (int k = 0; k < kBuckets; ++k) EXPECT_TRUE(same_bits(outs[k], trees[k].root(0.1f))) << k;
  });
}

TEST(OrderedAllReduce, RefusesAWrongNumberOfPartials) {
  for_each_communicator({1, 2, 3}, [](Communicator& comm) {
    float out = 0;
    EXPECT_NE(error_of([&] {
                ordered_all_reduce(comm, 4, {}, DType::kFloat32, 1, 1, &out, "x");
              }).find("partials for 4 shards"),
              std::string::npos);
    const std::string error = error_of(
        [&] { ordered_all_reduce(comm, comm.size() - 1, {&out}, DType::kFloat32, 1, 1, &out, "x"); });
    EXPECT_NE(error.find("--shards"), std::string::npos) << error;
  });
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
