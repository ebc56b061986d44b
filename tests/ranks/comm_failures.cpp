// Tests that every rank soon gets an error that names the cause when ranks disagree, do not come or give up.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "distributed/comm/ordered_reduce.h"
#include "tests/support/rank_test.h"

namespace trireme {
namespace {

using namespace std::chrono_literals;
using namespace test;

// Runs `body`, which must throw on every rank long before the patience is over. The message of every rank
// must contain all of `parts`.
void expect_failure_everywhere(const std::function<void(Communicator&)>& body,
                               const std::vector<std::string>& parts) {
  for_each_communicator({2, 3, 4, 8}, [&](Communicator& comm) {
    const auto start = std::chrono::steady_clock::now();
    const std::string error = error_of([&] { body(comm); });
    EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
    EXPECT_NE(error, "") << "did not fail";
    for (const std::string& part : parts)
      EXPECT_NE(error.find(part), std::string::npos) << part << " in: " << error;
    // A communicator that has failed always throws its first error.
    EXPECT_EQ(error_of([&] { comm.barrier("after the failure").wait(); }), error);
    int ran = 0;
    EXPECT_EQ(error_of([&] { comm.run([&] { ++ran; }, "after the failure").wait(); }), error);
    EXPECT_EQ(ran, 0);
  });
}

Event gather(Communicator& comm, std::size_t bytes_of_rank_1, std::vector<std::byte>& memory,
             const char* label) {
  memory.resize(comm.size() * 100'000);
  std::vector<std::span<std::byte>> slices;
  for (int rank = 0; rank < comm.size(); ++rank) {
    slices.push_back(std::span(memory).subspan(rank * 100'000, rank == 1 ? bytes_of_rank_1 : 50'000));
  }
  return comm.all_gather(slices, label);
}

TEST(Mismatch, OneRankSkipsACall) {
  expect_failure_everywhere(
      [](Communicator& comm) {
        std::vector<std::byte> memory;
        comm.barrier("start").wait();
        if (comm.rank() != 1) gather(comm, 50'000, memory, "bucket 4").wait();
        comm.barrier("end").wait();
      },
      {"disagree", "rank 1 is in barrier of \"end\", call 1", "is in all_gather of \"bucket 4\", call 1"});
}

TEST(Mismatch, OneRankRepeatsACall) {
  expect_failure_everywhere(
      [](Communicator& comm) {
        comm.barrier("step 1").wait();
        if (comm.rank() == 1) comm.barrier("step 1").wait();
        comm.barrier("step 2").wait();
      },
      {"disagree", "rank 1 is in barrier of \"step 1\", call 1", "is in barrier of \"step 2\", call 1"});
}

TEST(Mismatch, OneRankHasAnotherSize) {
  expect_failure_everywhere(
      [](Communicator& comm) {
        std::vector<std::byte> memory;
        gather(comm, comm.rank() == 1 ? 50'001 : 50'000, memory, "bucket 0").wait();
      },
      {"disagree", "rank 1", "0001 bytes", "0000 bytes", "\"bucket 0\""});
}

TEST(Mismatch, OneRankHasAnotherSmallSize) {
  expect_failure_everywhere(
      [](Communicator& comm) {
        std::vector<std::byte> memory;
        gather(comm, comm.rank() == 1 ? 3 : 4, memory, "flags").wait();
      },
      {"disagree", "rank 1", "3 bytes", "4"});
}

TEST(Mismatch, OneRankIsInAnotherOperation) {
  expect_failure_everywhere(
      [](Communicator& comm) {
        std::vector<float> data(1000);
        if (comm.rank() == 1) {
          comm.broadcast(std::as_writable_bytes(std::span(data)), 0, "data").wait();
        } else {
          comm.all_reduce_fastest(std::as_writable_bytes(std::span(data)), DType::kFloat32, "data").wait();
        }
      },
      {"disagree", "rank 1 is in broadcast", "is in all_reduce_fastest"});
}

TEST(Mismatch, OnlyTheOperationDiffers) {
  expect_failure_everywhere(
      [](Communicator& comm) {
        const std::vector<std::span<std::byte>> nothing(comm.size());
        (comm.rank() == 1 ? comm.barrier("x") : comm.all_gather(nothing, "x")).wait();
      },
      {"disagree", "rank 1 is in barrier", "is in all_gather"});
}

TEST(Mismatch, OneRankReducesAnotherCount) {
  expect_failure_everywhere(
      [](Communicator& comm) {
        std::vector<float> data(comm.rank() == 1 ? 999 : 1000);
        comm.all_reduce_fastest(std::as_writable_bytes(std::span(data)), DType::kFloat32, "data").wait();
      },
      {"disagree", "rank 1", "3996 bytes in all", "4000 bytes in all"});
}

Event sum(Communicator& comm, int shards, std::vector<float>& data, std::size_t count, const char* label) {
  data.resize(200'000);
  const auto nodes = maximal_subtrees(shards, shards_of_rank(shards, comm.size(), comm.rank()));
  return ordered_all_reduce(comm, shards, std::vector<const void*>(nodes.size(), data.data()),
                            DType::kFloat32, count, 1, data.data() + 100'000, label);
}

TEST(Mismatch, OneRankSumsSomethingElse) {
  for (const std::size_t count : {10u, 100'000u}) {
    expect_failure_everywhere(
        [&](Communicator& comm) {
          std::vector<float> data;
          sum(comm, 8, data, comm.rank() == 1 ? count - 1 : count, "bucket 1").wait();
        },
        {"disagree", "rank 1 is in sum of \"bucket 1\"", fmt::format("{} bytes in all", 4 * count - 4)});
    expect_failure_everywhere(
        [&](Communicator& comm) {
          std::vector<float> data;
          sum(comm, comm.rank() == 1 ? 9 : 8, data, count, "bucket 1").wait();
        },
        {"disagree", "rank 1", "shards 9", "shards 8"});
    expect_failure_everywhere(
        [&](Communicator& comm) {
          std::vector<float> data;
          sum(comm, 8, data, count, comm.rank() == 1 ? "bucket 2" : "bucket 1").wait();
        },
        {"disagree", "rank 1 is in sum of \"bucket 2\"", "is in sum of \"bucket 1\""});
  }
}

TEST(Mismatch, OneRankDoesNotSum) {
  for (const std::size_t count : {10u, 100'000u})
    expect_failure_everywhere(
        [&](Communicator& comm) {
          std::vector<float> data;
          if (comm.rank() != 1) sum(comm, 8, data, count, "bucket 1").wait();
          comm.barrier("end of step").wait();
        },
        {"disagree", "rank 1 is in barrier of \"end of step\"", "is in sum of \"bucket 1\""});
}

TEST(Mismatch, OneRankHasAnotherRoot) {
  for (const std::size_t size : {0, 10, 100'000}) {
    expect_failure_everywhere(
        [size](Communicator& comm) {
          std::vector<std::byte> data(size);
          comm.broadcast(data, comm.rank() == 1 ? 1 : 0, "parameters").wait();
        },
        {"disagree", "rank 1", "root 1", "root 0"});
  }
}

TEST(Mismatch, RanksThatAgreeHearOfTwoThatDoNot) {
  expect_failure_everywhere(
      [](Communicator& comm) {
        // Only ranks 0 and 1 disagree about a size.
        std::vector<std::byte> memory(comm.size() * 200'000);
        std::vector<std::span<const std::byte>> sends;
        std::vector<std::span<std::byte>> recvs;
        for (int peer = 0; peer < comm.size(); ++peer) {
          const std::size_t bytes = comm.rank() == 0 && peer == 1 ? 99'999 : 100'000;
          sends.push_back(std::span(memory).subspan(peer * 200'000, bytes));
          recvs.push_back(std::span(memory).subspan(peer * 200'000 + 100'000, 100'000));
        }
        comm.all_to_all(sends, recvs, "slices").wait();
      },
      {"disagree", "rank 0", "rank 1", "99999", "100000"});
}

TEST(Deadline, ARankThatNeverComesIsNamed) {
  for_each_communicator({2, 3, 4},
                        [](Communicator& comm) {
                          comm.barrier("start").wait();
                          const int absent = comm.size() - 1;
                          if (comm.rank() == absent) {
                            std::this_thread::sleep_for(1500ms);
                            return;
                          }
                          const auto start = std::chrono::steady_clock::now();
                          const std::string error = error_of([&] { comm.barrier("end of step 7").wait(); });
                          const auto took = std::chrono::steady_clock::now() - start;
                          EXPECT_GE(took, 400ms);
                          EXPECT_LT(took, 10s);
                          for (const std::string& part :
                               {fmt::format("no answer from rank {}:", absent), std::string("barrier"),
                                std::string("end of step 7"), std::string("call 1")}) {
                            EXPECT_NE(error.find(part), std::string::npos) << part << " in: " << error;
                          }
                        },
                        {.patience = 500ms});
}

TEST(Deadline, ARankThatIsLateButInTimeIsFine) {
  for_each_communicator({2, 3, 4},
                        [](Communicator& comm) {
                          if (comm.rank() == 1) std::this_thread::sleep_for(300ms);
                          comm.barrier("late").wait();
                        },
                        {.patience = 20s});
}

TEST(Abort, InTheMiddleOfSumsOfMemoryThatPeersSee) {
  constexpr std::size_t kCount = 600'000;
  for_each_communicator({2, 4}, [](Communicator& comm) {
    const auto start = std::chrono::steady_clock::now();
    const std::string error = error_of([&] {
      std::vector<std::shared_ptr<std::byte>> memory;
      Event last;
      for (int i = 0; i < 60; ++i) {
        memory.push_back(comm.allocate(kCount * sizeof(float)));
        std::memset(memory.back().get(), 0, kCount * sizeof(float));
        last = ordered_all_reduce(comm, comm.size(), {memory.back().get()}, DType::kFloat32, kCount, 1,
                                  memory.back().get(), "bucket");
        if (comm.rank() == comm.size() - 1 && i == 30) comm.abort("enough");
      }
      last.wait();
    });
    // The vectors have been freed, while other ranks may not have noticed the failure.
    EXPECT_NE(error.find("enough"), std::string::npos) << error;
    EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
  });
}

TEST(Abort, EndsTheWaitOfAllRanks) {
  for_each_communicator({2, 3, 4, 8}, [](Communicator& comm) {
    comm.barrier("start").wait();
    const auto start = std::chrono::steady_clock::now();
    std::string error;
    if (comm.rank() == 1) {
      std::this_thread::sleep_for(50ms);
      comm.abort("loss is not finite");
      error = error_of([&] { comm.barrier("after").wait(); });
    } else {
      error = error_of([&] { comm.barrier("never").wait(); });
    }
    EXPECT_NE(error.find("rank 1: aborted: loss is not finite"), std::string::npos) << error;
    EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
  });
}

TEST(Abort, ByAnotherThreadEndsTheOwnWait) {
  for_each_communicator({2, 3}, [](Communicator& comm) {
    comm.barrier("start").wait();
    // Only rank 0 waits. Its peers never come.
    if (comm.rank() > 0) return;
    std::jthread aborter([&] {
      std::this_thread::sleep_for(50ms);
      comm.abort("stopped by a signal");
    });
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(error_of([&] { comm.barrier("never").wait(); }), "rank 0: aborted: stopped by a signal");
    EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
  });
}

TEST(Abort, AFunctionThatThrowsFailsThePeersToo) {
  for_each_communicator({2, 3, 4}, [](Communicator& comm) {
    comm.run(
        [&] {
          if (comm.rank() == 1) fail(ExitCode::kNonFinite, "gradient of layer 3 is NaN");
        },
        "check");
    const std::string error = error_of([&] { comm.barrier("next").wait(); });
    EXPECT_NE(error.find("gradient of layer 3 is NaN"), std::string::npos) << error;
    EXPECT_EQ(error.find("rank 1 reports") != std::string::npos, comm.rank() != 1) << error;
  });
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
