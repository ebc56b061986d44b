// Ranks compare the engines that compute their operations.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "distributed/train/engine_log.h"
#include "tests/support/errors.h"
#include "tests/support/rank_test.h"

namespace trireme {
namespace {

using namespace test;

const EngineChoices kCommon{{"attention", "engine 8"}, {"matmul 2x3", "id 66 tile 20"}};

std::string agreed(Communicator& comm, const EngineChoices& mine) {
  return error_of(std::function<void()>([&] { agree_engines(comm, mine); }));
}

TEST(AgreeEngines, RanksMayHaveMetDifferentOperations) {
  for_each_communicator({1, 2, 3, 4}, [](Communicator& comm) {
    EXPECT_EQ(agreed(comm, kCommon), "");
    EXPECT_EQ(agreed(comm, {}), "");
    EngineChoices mine = kCommon;
    mine.emplace(fmt::format("matmul {}x1", comm.rank()), fmt::format("id {}", comm.rank()));
    EXPECT_EQ(agreed(comm, mine), "");
    EXPECT_EQ(agreed(comm, comm.rank() == 0 ? EngineChoices{} : kCommon), "");
    comm.barrier("after it").wait();
  });
}

TEST(AgreeEngines, AllRanksHearOfAnOperationThatTwoComputeDifferently) {
  for_each_communicator({2, 3, 4}, [](Communicator& comm) {
    EngineChoices mine = kCommon;
    mine["convolution"] = "engine 62";
    if (comm.rank() == 0) mine.erase("matmul 2x3");  // it has not met this operation
    if (comm.rank() == comm.size() - 1) mine["convolution"] = "engine 49";
    expect_holds(agreed(comm, mine),
                 {"rank 0 computes \"convolution\" by \"engine 62\"",
                  fmt::format("rank {} by \"engine 49\"", comm.size() - 1).c_str(), "the same kind of GPU"});
    comm.barrier("all can go on").wait();
  });
}

TEST(AgreeEngines, TheLowestRankThatHasTheOperationIsNamed) {
  for_each_communicator({3, 4}, [](Communicator& comm) {
    EngineChoices mine = kCommon;
    if (comm.rank() == 1) mine["matmul 5x5"] = "id 1";
    if (comm.rank() == 2) mine["matmul 5x5"] = "id 2";
    expect_holds(agreed(comm, mine), {"rank 1 computes \"matmul 5x5\" by \"id 1\", rank 2 by \"id 2\""});
    comm.barrier("all can go on").wait();
  });
}

TEST(EngineText, IsReadAsItWasWritten) {
  EXPECT_EQ(to_text(EngineChoices{}), "");
  EXPECT_EQ(to_text(kCommon), "attention => engine 8\nmatmul 2x3 => id 66 tile 20\n");
  EXPECT_EQ(engines_from_text(to_text(kCommon)), kCommon);
  EXPECT_EQ(engines_from_text("no engine\n\nmatmul 2x3 => id 66 tile 20"),
            (EngineChoices{{"matmul 2x3", "id 66 tile 20"}}));
}

TEST(EngineLog, ComparesRanksAfterStepsThatArePowersOfTwo) {
  const EngineLog log(kCpu);
  std::vector<std::int64_t> due;
  for (std::int64_t step = 1; step <= 20; ++step)
    if (log.is_due(step)) due.push_back(step);
  EXPECT_EQ(due, (std::vector<std::int64_t>{1, 2, 4, 8, 16}));
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
