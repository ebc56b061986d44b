#include "launcher/verdict.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace trireme {
namespace {

using How = RankEnd::How;

RankEnd exited(int rank, int code, bool asked = false) { return {rank, How::kExited, code, asked, "a"}; }
RankEnd killed(int rank, int number, bool asked = false) { return {rank, How::kKilled, number, asked, "a"}; }
RankEnd lost(int rank, bool asked = false) { return {rank, How::kLost, 0, asked, "b"}; }

Verdict judged(std::vector<RankEnd> ends) { return judge(ends); }

TEST(Verdict, AllDoneIsDone) {
  const Verdict verdict = judged({exited(1, 0), exited(0, 0)});
  EXPECT_EQ(verdict.exit_code, 0);
  EXPECT_EQ(verdict.line, "");
  EXPECT_FALSE(verdict.restartable);
}

TEST(Verdict, OwnCodesPassAndAreNotRestarted) {
  for (int code : {1, 2, 3, 4, 6, 42}) {
    const Verdict verdict = judged({exited(0, 0), exited(1, code)});
    EXPECT_EQ(verdict.exit_code, code);
    EXPECT_EQ(verdict.line, "rank 1 exited with code " + std::to_string(code));
    EXPECT_TRUE(verdict.by_exit) << "the rank may have said it";
    EXPECT_FALSE(verdict.restartable);
  }
}

TEST(Verdict, CauseOutranksPeerFailureInAnyOrder) {
  std::vector<RankEnd> ends = {exited(0, 5), exited(1, 3), exited(2, 5)};
  std::sort(ends.begin(), ends.end(), [](const RankEnd& a, const RankEnd& b) { return a.rank < b.rank; });
  do {
    EXPECT_EQ(judge(ends).exit_code, 3);
    EXPECT_FALSE(judge(ends).restartable);
  } while (std::next_permutation(ends.begin(), ends.end(),
                                 [](const RankEnd& a, const RankEnd& b) { return a.rank < b.rank; }));
}

TEST(Verdict, FirstCauseDecides) {
  EXPECT_EQ(judged({exited(1, 3), killed(0, 11)}).exit_code, 3);
  EXPECT_EQ(judged({exited(1, 4), exited(0, 3)}).exit_code, 4);
  EXPECT_EQ(judged({killed(0, 11), exited(1, 3)}).exit_code, 5);
}

TEST(Verdict, KilledRankIsNamedAndCounted) {
  const Verdict verdict = judged({exited(0, 5), killed(2, 9), killed(1, 15, true), killed(3, 9)});
  EXPECT_EQ(verdict.exit_code, 5);
  EXPECT_EQ(verdict.line, "rank 2 was killed by signal 9 (SIGKILL)");
  EXPECT_TRUE(verdict.restartable);
  EXPECT_EQ(verdict.dead, 2);
}

TEST(Verdict, LostRankIsNamedWithItsHost) {
  const Verdict verdict = judged({lost(3), exited(0, 5), lost(2)});
  EXPECT_EQ(verdict.exit_code, 5);
  EXPECT_NE(verdict.line.find("rank 3 was lost: its host b"), std::string::npos) << verdict.line;
  EXPECT_EQ(verdict.dead, 2);
}

TEST(Verdict, PeerFailureAloneIsRestartedOnAll) {
  const Verdict verdict = judged({exited(0, 5), exited(1, 5)});
  EXPECT_EQ(verdict.exit_code, 5);
  EXPECT_TRUE(verdict.restartable);
  EXPECT_EQ(verdict.dead, 0);
}

TEST(Verdict, RankThatIsSilentToTheEndIsTheLostOne) {
  Verdict verdict = judged({exited(0, 5), exited(1, 5), killed(2, 9, true)});
  EXPECT_EQ(verdict.exit_code, 5);
  EXPECT_EQ(verdict.line, "rank 2 did not answer the others and had to be killed");
  EXPECT_FALSE(verdict.by_exit);
  EXPECT_TRUE(verdict.restartable);
  EXPECT_EQ(verdict.dead, 1);
  verdict =
      judged({exited(1, 5), killed(3, 9, true), exited(4, 5, true), killed(0, 9, true), killed(2, 15, true)});
  EXPECT_EQ(verdict.line, "ranks 0, 3 did not answer the others and had to be killed");
  EXPECT_EQ(verdict.dead, 2);
}

TEST(Verdict, WhoIsKilledAfterAnotherCauseIsNotLost) {
  EXPECT_EQ(judged({killed(0, 11), killed(1, 9, true)}).dead, 1);
  EXPECT_EQ(judged({exited(0, 3), exited(2, 5), killed(1, 9, true)}).line, "rank 0 exited with code 3");
}

TEST(Verdict, AnswersToASignal) {
  EXPECT_EQ(judged({exited(0, 75, true), exited(1, 75, true)}).exit_code, 75);
  EXPECT_EQ(judged({exited(0, 75), exited(1, 0)}).exit_code, 75);
  EXPECT_EQ(judged({killed(0, 15, true), killed(1, 15, true)}).exit_code, 143);
  EXPECT_EQ(judged({exited(0, 75, true), exited(1, 4, true)}).exit_code, 4);
  EXPECT_EQ(judged({exited(0, 5, true), exited(1, 4, true)}).exit_code, 4);
  EXPECT_FALSE(judged({exited(0, 5, true), exited(1, 75, true)}).restartable);
  EXPECT_EQ(judged({exited(0, 5, true), exited(1, 75, true)}).exit_code, 5);
}

TEST(Verdict, RankThatCrashesInsteadOfAnsweringIsTheCause) {
  const Verdict verdict = judged({killed(0, 15, true), killed(1, 11, false)});
  EXPECT_EQ(verdict.exit_code, 5);
  EXPECT_EQ(verdict.line, "rank 1 was killed by signal 11 (SIGSEGV)");
}

}  // namespace
}  // namespace trireme
