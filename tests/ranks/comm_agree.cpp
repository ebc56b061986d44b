// Tests that ranks compare values which must be equal. If one differs, all ranks throw an error that names
// it.
#include <gtest/gtest.h>

#include "distributed/comm/agree.h"
#include "tests/support/rank_test.h"

namespace trireme {
namespace {

using namespace test;

std::string compared(Communicator& comm, const std::vector<Fact>& facts) {
  return error_of([&] { agree_same(comm, "flags", facts, ExitCode::kUsage, "do this"); });
}

TEST(AgreeSame, NothingIsSaidOfRanksThatAre) {
  for_each_communicator({1, 2, 3, 4}, [](Communicator& comm) {
    EXPECT_EQ(compared(comm, {{"lr", "0.1"}, {"data", "a b c"}}), "");
    EXPECT_EQ(compared(comm, {}), "");
    comm.barrier("after it").wait();
  });
}

TEST(AgreeSame, AllHearWhoDiffersInWhat) {
  for_each_communicator({2, 3, 4}, [](Communicator& comm) {
    const bool odd = comm.rank() == 1;
    EXPECT_EQ(compared(comm, {{"lr", odd ? "0.2" : "0.1"}, {"seed", "3"}}),
              "rank 1: flags are not those of rank 0: lr 0.2, there 0.1; do this");
    EXPECT_EQ(compared(comm, odd ? std::vector<Fact>{{"a", "1"}} : std::vector<Fact>{{"b", "2 3"}}),
              "rank 1: flags are not those of rank 0: a 1, there none; no b, there 2 3; do this");
    std::vector<Fact> many;
    for (int i = 0; i < 10; ++i) many.push_back({fmt::format("f{}", i), odd ? "x" : "y"});
    EXPECT_EQ(
        compared(comm, many),
        "rank 1: flags are not those of rank 0: f0 x, there y; f1 x, there y; f2 x, there y; and 7 more; "
        "do this");
    const std::vector<Fact> one{{"a", "1"}, {"b", "1"}}, other{{"b", "1"}, {"a", "1"}};
    EXPECT_EQ(compared(comm, odd ? other : one),
              "rank 1: flags are not those of rank 0: they come in another order; do this");
    comm.barrier("all can go on").wait();
  });
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
