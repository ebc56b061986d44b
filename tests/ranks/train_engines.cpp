// Tests that ranks gather the engines that compute their operations.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "distributed/train/engine_log.h"
#include "tests/support/errors.h"
#include "tests/support/rank_test.h"

namespace trireme {
namespace {

using namespace test;
using Lines = std::vector<std::string>;

constexpr Device kCuda{DeviceType::kCuda, 0};
const EngineChoices kCommon{{"attention", "engine 8"}, {"matmul 2x3", "id 66 tile 20"}};

TEST(EngineLog, RanksMayHaveMetDifferentOperations) {
  for_each_communicator({1, 2, 3, 4}, [](Communicator& comm) {
    EngineLog log(kCuda);
    EXPECT_EQ(log.gather(comm, {kCommon, {}, "a GPU"}), Lines());
    EXPECT_EQ(engines_from_text(log.text()), kCommon);
    EngineChoices mine = comm.rank() == 0 ? EngineChoices() : kCommon, all = kCommon;
    if (comm.size() == 1) all.clear();
    const auto own = [](int rank) {
      return std::pair(fmt::format("matmul {}x1", rank), fmt::format("id {}", rank));
    };
    mine.insert(own(comm.rank()));
    for (int rank = 0; rank < comm.size(); ++rank) all.insert(own(rank));
    EXPECT_EQ(log.gather(comm, {mine, {}, "a GPU"}), Lines());
    EXPECT_EQ(log.difference(), "");
    // Checkpoints hash this text on every rank, and the hashes must be equal.
    EXPECT_EQ(engines_from_text(log.text()), all);
  });
}

TEST(EngineLog, NamesAnOperationThatTwoRanksComputeDifferently) {
  for_each_communicator({2, 3, 4}, [](Communicator& comm) {
    EngineLog log(kCuda);
    EngineChoices mine = kCommon;
    mine["convolution"] = comm.rank() == comm.size() - 1 ? "engine 49" : "engine 62";
    if (comm.rank() == 0) mine.erase("matmul 2x3");  // rank 0 has not run this operation
    log.gather(comm, {mine, {}, "a GPU"});
    EXPECT_EQ(log.difference(),
              fmt::format("rank 0 computes \"convolution\" by \"engine 62\", rank {} by \"engine 49\"",
                          comm.size() - 1));
  });
}

TEST(EngineLog, NamesTheLowestRankThatHasTheOperation) {
  for_each_communicator({3, 4}, [](Communicator& comm) {
    EngineLog log(kCuda);
    EngineChoices mine = kCommon;
    if (comm.rank() == 1) mine["matmul 5x5"] = "id 1";
    if (comm.rank() == 2) mine["matmul 5x5"] = "id 2";
    log.gather(comm, {mine, {}, "a GPU"});
    EXPECT_EQ(log.difference(), "rank 1 computes \"matmul 5x5\" by \"id 1\", rank 2 by \"id 2\"");
  });
}

TEST(EngineLog, TellsNoticesOfAllRanksOnce) {
  for_each_communicator({2, 3}, [](Communicator& comm) {
    EngineLog log(kCuda);
    Lines mine{"all ranks say this"};
    if (comm.rank() == 1) mine.push_back("no libcudart");
    const Lines expected{"all ranks say this", "rank 1: no libcudart"};
    EXPECT_EQ(log.gather(comm, {kCommon, mine, "a GPU"}), expected);
    EXPECT_EQ(log.gather(comm, {kCommon, mine, "a GPU"}), Lines()) << "told already";
  });
}

TEST(EngineLog, WarnsOfDifferentLibraries) {
  for_each_communicator({2, 3}, [](Communicator& comm) {
    EngineLog log(kCuda);
    const Lines lines = log.gather(comm, {kCommon, {}, comm.rank() == 1 ? "cuDNN 91901" : "cuDNN 91900"});
    EXPECT_EQ(lines, Lines{"rank 0 has cuDNN 91900, rank 1 has cuDNN 91901: bits may depend on the rank"});
    EXPECT_EQ(log.difference(), "") << "the engines are the same";
  });
}

TEST(EngineLog, ComparesWithTheCheckpoint) {
  for_each_communicator({1, 2}, [](Communicator& comm) {
    EngineLog log(kCuda);
    log.resume("attention => engine 9\nmatmul 2x3 => id 66 tile 20\nmatmul 9x9 => id 1\n");
    const Lines lines = log.gather(comm, {kCommon, {}, "a GPU"});
    ASSERT_EQ(lines.size(), 1u);
    expect_holds(lines[0], {"\"attention\" is now computed by \"engine 8\"", "computed by \"engine 9\"",
                            "bits may differ"});
    EXPECT_EQ(log.gather(comm, {kCommon, {}, "a GPU"}), Lines()) << "told already";
    EngineChoices more = kCommon;
    more["matmul 9x9"] = "id 2";
    EXPECT_EQ(log.gather(comm, {more, {}, "a GPU"}).size(), 1u) << "an operation that comes later";
  });
}

TEST(EngineText, IsReadAsItWasWritten) {
  EXPECT_EQ(to_text(EngineChoices{}), "");
  EXPECT_EQ(to_text(kCommon), "attention => engine 8\nmatmul 2x3 => id 66 tile 20\n");
  EXPECT_EQ(engines_from_text(to_text(kCommon)), kCommon);
  EXPECT_EQ(engines_from_text("no engine\n\nmatmul 2x3 => id 66 tile 20"),
            (EngineChoices{{"matmul 2x3", "id 66 tile 20"}}));
}

TEST(EngineLog, IsDueAfterStepsThatArePowersOfTwo) {
  std::vector<std::int64_t> due;
  for (std::int64_t step = 1; step <= 20; ++step)
    if (EngineLog::is_due(step)) due.push_back(step);
  EXPECT_EQ(due, (std::vector<std::int64_t>{1, 2, 4, 8, 16}));
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
