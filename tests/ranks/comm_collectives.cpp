// Tests every collective with many world sizes and sizes of data.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "distributed/comm/local.h"
#include "distributed/comm/mpi.h"
#include "tests/support/rank_test.h"
#include "tests/support/shard_sums.h"

namespace trireme {
namespace {

using namespace test;
using Buffer = std::vector<std::byte>;

// Sizes in bytes: zero, one, odd, near the largest that fits into a header's message, and several megabytes.
constexpr std::array<std::size_t, 8> kSizes = {0, 1, 7, 375, 376, 513, 70'001, 1'200'003};

/// Returns bytes that depend on `from` and `to`. They are a view of one table, because computing them anew is
/// slow with sanitizers.
std::span<const std::byte> pattern(std::size_t bytes, int from, int to) {
  static const Buffer table = [] {
    Buffer random(kSizes.back() + 4096);
    for (std::size_t i = 0; i < random.size(); ++i) random[i] = static_cast<std::byte>(mixed(i));
    return random;
  }();
  return std::span(table).subspan(static_cast<std::size_t>(from * 31 + to * 101), bytes);
}

Buffer copy(std::span<const std::byte> bytes) { return {bytes.begin(), bytes.end()}; }

bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

TEST(AllToAll, EachGetsWhatEachSent) {
  for_each_communicator({1, 2, 3, 4, 5, 8}, [](Communicator& comm) {
    for (const std::size_t size : kSizes) {
      // Sizes differ between pairs of ranks, and some are zero.
      const auto bytes = [&](int from, int to) { return (from + 2 * to) % 4 == 1 ? 0 : size + from; };
      std::vector<Buffer> out, in;
      std::vector<std::span<const std::byte>> sends;
      std::vector<std::span<std::byte>> recvs;
      for (int peer = 0; peer < comm.size(); ++peer) {
        out.push_back(copy(pattern(bytes(comm.rank(), peer), comm.rank(), peer)));
        in.emplace_back(bytes(peer, comm.rank()));
      }
      for (int peer = 0; peer < comm.size(); ++peer)
        sends.emplace_back(out[peer]), recvs.emplace_back(in[peer]);
      comm.all_to_all(sends, recvs, "data").wait();
      for (int peer = 0; peer < comm.size(); ++peer) {
        ASSERT_TRUE(same_bytes(in[peer], pattern(bytes(peer, comm.rank()), peer, comm.rank())))
            << size << " from " << peer;
      }
    }
  });
}

TEST(AllGather, FillsAllSlices) {
  for_each_communicator({1, 2, 3, 4, 8}, [](Communicator& comm) {
    for (const std::size_t size : kSizes) {
      std::vector<Buffer> slices;
      std::vector<std::span<std::byte>> spans;
      // Slices differ in size, and that of rank 1 is empty.
      const auto bytes = [&](int rank) { return rank == 1 ? 0 : size / (rank + 1); };
      for (int rank = 0; rank < comm.size(); ++rank) {
        slices.push_back(rank == comm.rank() ? copy(pattern(bytes(rank), rank, 0)) : Buffer(bytes(rank)));
      }
      for (Buffer& slice : slices) spans.emplace_back(slice);
      comm.all_gather(spans, "slices").wait();
      for (int rank = 0; rank < comm.size(); ++rank)
        ASSERT_TRUE(same_bytes(slices[rank], pattern(bytes(rank), rank, 0))) << size;
    }
  });
}

TEST(AllGather, FillsAllSlicesThatOtherRanksSee) {
  for_each_communicator({1, 2, 3, 4, 8}, [](Communicator& comm) {
    for (const std::size_t size : kSizes) {
      const auto bytes = [&](int rank) { return rank == 1 ? 0 : size / (rank + 1); };
      for (const int hidden : {-1, 0}) {  // the rank whose slices are not in shared memory; -1: none
        std::vector<std::shared_ptr<std::byte>> memory;
        std::vector<std::span<std::byte>> spans;
        Buffer elsewhere(static_cast<std::size_t>(comm.size()) * (size + 1));
        for (int rank = 0; rank < comm.size(); ++rank) {
          memory.push_back(comm.allocate(size + 1));
          spans.emplace_back(comm.rank() == hidden
                                 ? elsewhere.data() + static_cast<std::size_t>(rank) * (size + 1)
                                 : memory.back().get(),
                             bytes(rank));
        }
        for (int times = 0; times < 3; ++times) {  // other ranks may still read the previous call's data
          std::ranges::copy(pattern(bytes(comm.rank()), comm.rank(), times), spans[comm.rank()].begin());
          comm.all_gather(spans, "slices").wait();
          for (int rank = 0; rank < comm.size(); ++rank)
            ASSERT_TRUE(same_bytes(spans[rank], pattern(bytes(rank), rank, times))) << size;
        }
      }
    }
  });
}

TEST(Broadcast, FromEveryRoot) {
  for_each_communicator({1, 2, 3, 4, 8}, [](Communicator& comm) {
    for (const std::size_t size : kSizes) {
      for (int root = 0; root < comm.size(); ++root) {
        Buffer data = comm.rank() == root ? copy(pattern(size, root, 9)) : Buffer(size);
        comm.broadcast(data, root, "parameters").wait();
        ASSERT_TRUE(same_bytes(data, pattern(size, root, 9))) << size << " from " << root;
      }
    }
  });
}

TEST(AllReduceFastest, SumsIn16Bits) {
  for_each_communicator({1, 2, 3, 4}, [](Communicator& comm) {
    const auto check = [&]<class T>(T) {
      std::vector<T> data(1001);
      for (std::size_t i = 0; i < data.size(); ++i) data[i] = T(static_cast<float>(i % 50 + comm.rank()));
      comm.all_reduce_fastest(std::as_writable_bytes(std::span(data)), dtype_of<T>, "gradients").wait();
      const int n = comm.size();
      for (std::size_t i = 0; i < data.size(); ++i)  // 16-bit types hold whole numbers up to 256 exactly
        ASSERT_EQ(static_cast<float>(data[i]), static_cast<float>(n * (i % 50) + n * (n - 1) / 2)) << i;
    };
    check(BFloat16());
    check(Float16());
  });
}

TEST(AllReduceFastest, SumsExactlyWhatIsExact) {
  for_each_communicator({1, 2, 3, 4, 8}, [](Communicator& comm) {
    for (const std::size_t size : kSizes) {
      const std::size_t count = size / sizeof(float);
      std::vector<float> data(count);
      for (std::size_t i = 0; i < count; ++i) data[i] = static_cast<float>(i % 1000 + comm.rank());
      comm.all_reduce_fastest(std::as_writable_bytes(std::span(data)), DType::kFloat32, "gradients").wait();
      const int n = comm.size();
      bool same = true;  // one assertion for each element would take a minute with a sanitizer
      for (std::size_t i = 0; i < count; ++i)
        same = same && data[i] == static_cast<float>(n * (i % 1000) + n * (n - 1) / 2);
      ASSERT_TRUE(same) << count;
    }
  });
}

TEST(Barrier, NobodyLeavesBeforeAllCame) {
  if (over_mpi()) GTEST_SKIP() << "counts in shared memory";
  std::atomic<int> came = 0;
  for (int size = 1; size <= 8; ++size) {
    came = 0;
    run_local_ranks(size, std::chrono::seconds(30), [&](Communicator& comm) {
      for (int round = 1; round <= 20; ++round) {
        ++came;
        comm.barrier("all here").wait();
        EXPECT_GE(came, round * size);
        comm.barrier("all seen").wait();
      }
    });
  }
}

TEST(Queue, CallsRunInOrderWithoutWaitingBetween) {
  for_each_communicator({1, 2, 3, 4, 8}, [](Communicator& comm) {
    // In each round another rank adds one and broadcasts the number. All rounds are enqueued at once.
    std::uint64_t number = 100 * comm.rank();
    const std::span<std::byte> bytes = std::as_writable_bytes(std::span(&number, 1));
    Event last;
    for (int round = 0; round < 200; ++round) {
      const int root = round % comm.size();
      comm.run([&number, mine = root == comm.rank()] { number += mine ? 1 : 1000; }, "add");
      last = comm.broadcast(bytes, root, "number");
    }
    last.wait();
    EXPECT_EQ(number, 200u);
  });
}

TEST(Queue, WhatRunsDoesNotBlockTheCaller) {
  for_each_communicator({1, 2}, [](Communicator& comm) {
    std::atomic<bool> go = false;
    const Event event = comm.run([&] { go.wait(false); }, "wait for the caller");
    const Event barrier = comm.barrier("after");
    EXPECT_FALSE(event.done());
    EXPECT_FALSE(barrier.done());
    go = true;
    go.notify_all();
    barrier.wait();
    EXPECT_TRUE(event.done());
  });
}

/// Returns the sum of all ranks' numbers.
int sum_over(Communicator& comm, int mine) {
  std::vector<int> numbers(static_cast<std::size_t>(comm.size()));
  numbers[static_cast<std::size_t>(comm.rank())] = mine;
  std::vector<std::span<std::byte>> slices;
  for (int& number : numbers) slices.push_back(std::as_writable_bytes(std::span(&number, 1)));
  comm.all_gather(slices, "numbers").wait();
  return std::accumulate(numbers.begin(), numbers.end(), 0);
}

TEST(Split, GroupsAndTheirWorldWorkSideBySide) {
  for_each_communicator({1, 2, 3, 4, 6}, [](Communicator& world) {
    const int self = world.rank();
    const auto group = world.split(self % 2), all = world.split(7);
    ASSERT_TRUE(group && all);
    EXPECT_EQ(group->rank(), self / 2);
    EXPECT_EQ(group->backend(), world.backend());
    EXPECT_EQ(all->rank(), self);
    int in_group = 0, in_world = 0;
    for (int rank = 0; rank < world.size(); ++rank) {
      in_world += rank + 1;
      if (rank % 2 == self % 2) in_group += rank + 1;
    }
    std::vector<float> ones(1000, 1), more = ones;
    for (int times = 0; times < 5; ++times) {
      // Different groups may make different numbers of calls.
      for (int k = 0; k <= times * (self % 2); ++k) EXPECT_EQ(sum_over(*group, self + 1), in_group);
      const Event first =
                      world.all_reduce_fastest(std::as_writable_bytes(std::span(ones)), DType::kFloat32, "w"),
                  second = group->all_reduce_fastest(std::as_writable_bytes(std::span(more)), DType::kFloat32,
                                                     "g");
      EXPECT_EQ(sum_over(*all, self + 1), in_world);
      second.wait();
      first.wait();
      EXPECT_EQ(ones[999], world.size());
      EXPECT_EQ(more[999], group->size());
      ones.assign(1000, 1);
      more.assign(1000, 1);
    }
    const auto pair = group->split(group->rank() / 2);
    EXPECT_EQ(pair->rank(), group->rank() % 2);
    EXPECT_EQ(sum_over(*pair, 1), pair->size());
    EXPECT_EQ(world.split(self == 0 ? 0 : -1) == nullptr, self != 0);
  });
}

TEST(Split, AFailureStaysInItsGroup) {
  for_each_communicator({2, 4, 5}, [](Communicator& world) {
    const auto group = world.split(world.rank() % 2);
    if (world.rank() == 1) group->abort("had enough");
    const std::string error = error_of([&] { group->barrier("meeting").wait(); });
    EXPECT_EQ(error.find("had enough") != std::string::npos, world.rank() % 2 == 1) << error;
    EXPECT_EQ(sum_over(world, 1), world.size());
  });
}

TEST(Arguments, WrongOnesAreRefusedAtTheCall) {
  for_each_communicator({1, 2, 3}, [](Communicator& comm) {
    const std::vector<std::span<std::byte>> few(comm.size() - 1);
    EXPECT_NE(error_of([&] { comm.all_gather(few, "x"); }).find("one slice per rank"), std::string::npos);
    EXPECT_NE(error_of([&] { comm.broadcast({}, comm.size(), "x"); }).find("not a rank"), std::string::npos);
    EXPECT_NE(error_of([&] { comm.broadcast({}, -1, "x"); }).find("not a rank"), std::string::npos);
    comm.barrier("nothing was enqueued").wait();
  });
}

TEST(Local, TheCauseComesOutNotItsConsequences) {
  if (over_mpi()) GTEST_SKIP() << "about threads";
  for (int round = 0; round < 20; ++round) {
    const std::string error = error_of([&] {
      run_local_ranks(4, std::chrono::seconds(30), [&](Communicator& comm) {
        comm.barrier("start").wait();
        if (comm.rank() == round % 4) fail(ExitCode::kData, "sample 17 is torn");
        comm.barrier("never").wait();
      });
    });
    ASSERT_EQ(error, "sample 17 is torn");
  }
  EXPECT_THROW(run_local_ranks(0, std::chrono::seconds(1), [](Communicator&) {}), Error);
}

TEST(Local, TheCauseComesOutAlsoWhenItsConsequencesAreFaster) {
  if (over_mpi()) GTEST_SKIP() << "about threads";
  const std::string error = error_of([&] {
    run_local_ranks(3, std::chrono::seconds(30), [&](Communicator& comm) {
      if (comm.rank() != 1) comm.barrier("never").wait();
      // The queue fails at once and tells the peers. The rank itself waits for the event only later.
      const Event event = comm.run([] { fail(ExitCode::kData, "sample 17 is torn"); }, "load");
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      event.wait();
    });
  });
  EXPECT_EQ(error, "sample 17 is torn");
}

TEST(Mpi, TwoCommunicatorsAtOnce) {
  if (!over_mpi()) GTEST_SKIP() << "needs mpirun";
  const auto a = make_mpi_communicator(std::chrono::seconds(30));
  const auto b = make_mpi_communicator(std::chrono::seconds(30));
  std::vector<float> x(300'000, 1.0f), y(300'001, 2.0f);
  for (int round = 0; round < 10; ++round) {
    // Ranks may enqueue calls of different communicators in different orders.
    Communicator& first = a->rank() % 2 == 0 ? *a : *b;
    Communicator& second = a->rank() % 2 == 0 ? *b : *a;
    const auto reduce = [&](Communicator& comm) {
      return &comm == a.get()
                 ? comm.all_reduce_fastest(std::as_writable_bytes(std::span(x)), DType::kFloat32, "x")
                 : comm.all_reduce_fastest(std::as_writable_bytes(std::span(y)), DType::kFloat32, "y");
    };
    const Event one = reduce(first);
    const Event two = reduce(second);
    one.wait();
    two.wait();
    for (float& v : x) v /= static_cast<float>(a->size());
    for (float& v : y) v /= static_cast<float>(a->size());
  }
  EXPECT_EQ(x, std::vector<float>(300'000, 1.0f));
  EXPECT_EQ(y, std::vector<float>(300'001, 2.0f));
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
