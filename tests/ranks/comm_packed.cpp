// Tests packed messages between hosts. Packing must change only the traffic, not the results.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "distributed/comm/host_communicator.h"
#include "distributed/comm/ordered_reduce.h"
#include "tests/support/rank_test.h"
#include "tests/support/shard_sums.h"

namespace trireme {
namespace {

using namespace test;

/// Returns numbers of similar size, which can be packed. They are the same on all ranks for a seed.
Floats tame_numbers(std::size_t count, int seed) {
  Floats values(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t bits = mixed(i + 0x9e3779b97f4a7c15u * static_cast<unsigned>(seed));
    values[i] = std::ldexp(static_cast<float>(bits >> 40) + 1, -static_cast<int>(bits % 4));
  }
  return values;
}

/// Turns packing on, on all ranks or only on those with even numbers. Each rank may choose for itself.
void pack(Communicator& comm, bool all) {
  dynamic_cast<HostCommunicator&>(comm).pack_messages(all || comm.rank() % 2 == 0);
}

TEST(PackedMessages, SumsKeepTheirBits) {
  for (const std::size_t count : {1000u, 50'003u, 300'000u}) {
    const PaddedTree tree(8, count);
    const Floats root = tree.root(0.5f);
    for_each_communicator({2, 3, 4, 7}, [&](Communicator& comm) {
      Floats out(count);
      for (const bool all : {true, false}) {
        pack(comm, all);
        std::vector<const void*> given;
        for (const TreeNode node : maximal_subtrees(8, shards_of_rank(8, comm.size(), comm.rank())))
          given.push_back(
              tree.levels[static_cast<std::size_t>(node.level)][static_cast<std::size_t>(node.index)].data());
        ordered_all_reduce(comm, 8, given, DType::kFloat32, count, 0.5f, out.data(), "bucket").wait();
        ASSERT_TRUE(same_bits(out, root)) << count << " floats";
      }
    });
  }
}

TEST(PackedMessages, EachGetsWhatEachSent) {
  // Vectors of few bytes, of one message, and of several messages.
  for (const std::size_t count : {100u, 5'000u, 300'000u}) {
    for_each_communicator({2, 3, 5}, [&](Communicator& comm) {
      const int self = comm.rank();
      for (const bool all : {true, false}) {
        pack(comm, all);
        const auto length = [&](int from, int to) { return (from + to) % 3 == 0 ? count / 7 : count; };
        std::vector<Floats> out, in;
        std::vector<std::span<const std::byte>> sends;
        std::vector<std::span<std::byte>> recvs;
        for (int peer = 0; peer < comm.size(); ++peer) {
          out.push_back(tame_numbers(length(self, peer), 100 * self + peer));
          in.emplace_back(length(peer, self));
        }
        for (int peer = 0; peer < comm.size(); ++peer) {
          sends.push_back(std::as_bytes(std::span(out[static_cast<std::size_t>(peer)])));
          recvs.push_back(std::as_writable_bytes(std::span(in[static_cast<std::size_t>(peer)])));
        }
        comm.all_to_all(sends, recvs, "data").wait();
        for (int peer = 0; peer < comm.size(); ++peer)
          ASSERT_TRUE(same_bits(in[static_cast<std::size_t>(peer)],
                                tame_numbers(length(peer, self), 100 * peer + self)))
              << count << " floats from rank " << peer;
      }
    });
  }
}

TEST(PackedMessages, SetsOfSlicesAndBroadcasts) {
  constexpr std::size_t kSets = 12, kCount = 30'000;
  for_each_communicator({2, 3, 4}, [&](Communicator& comm) {
    pack(comm, true);
    const auto ranks = static_cast<std::size_t>(comm.size()), self = static_cast<std::size_t>(comm.rank());
    std::vector<std::vector<Floats>> memory(kSets, std::vector<Floats>(ranks, Floats(kCount)));
    std::vector<std::vector<std::span<std::byte>>> sets(kSets);
    for (std::size_t k = 0; k < kSets; ++k) {
      memory[k][self] = tame_numbers(kCount, static_cast<int>(k * 100 + self));
      for (Floats& slice : memory[k]) sets[k].push_back(std::as_writable_bytes(std::span(slice)));
    }
    comm.all_gather_each(
            sets, [](std::size_t) {}, "updates")
        .wait();
    for (std::size_t k = 0; k < kSets; ++k)
      for (std::size_t rank = 0; rank < ranks; ++rank)
        ASSERT_TRUE(same_bits(memory[k][rank], tame_numbers(kCount, static_cast<int>(k * 100 + rank))));
    Floats told = comm.rank() == 1 ? tame_numbers(500'000, 9) : Floats(500'000);
    comm.broadcast(std::as_writable_bytes(std::span(told)), 1, "weights").wait();
    ASSERT_TRUE(same_bits(told, tame_numbers(500'000, 9)));
  });
}

TEST(PackedMessages, AreShorterBetweenHosts) {
  for_each_communicator({2, 4}, [](Communicator& comm) {
    auto& host = dynamic_cast<HostCommunicator&>(comm);
    const auto traffic_of = [&](bool packs) {
      const Transport::Traffic before = host.traffic();
      host.pack_messages(packs);
      Floats values = tame_numbers(300'000, comm.rank());
      ordered_all_reduce(comm, comm.size(), {values.data()}, DType::kFloat32, values.size(), 1, values.data(),
                         "bucket")
          .wait();
      const Transport::Traffic after = host.traffic();
      return Transport::Traffic{after.plain - before.plain, after.sent - before.sent};
    };
    const Transport::Traffic plain = traffic_of(false), packed = traffic_of(true);
    EXPECT_EQ(plain.sent, plain.plain);
    EXPECT_EQ(packed.plain, plain.plain);
    if (!host.spans_hosts()) {
      EXPECT_EQ(plain.plain, 0u);
    } else {
      EXPECT_GT(plain.plain, 0u);
      EXPECT_LT(static_cast<double>(packed.sent), 0.9 * static_cast<double>(packed.plain));
    }
  });
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
