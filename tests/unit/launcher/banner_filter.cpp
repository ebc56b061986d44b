#include "launcher/banner_filter.h"

#include <gtest/gtest.h>

#include <string>

namespace trireme {
namespace {

const std::string kRule = std::string(74, '-') + "\n";
const std::string kAbort =
    kRule +
    "MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD\nwith errorcode 6.\n\nNOTE: ...\n" +
    kRule;

/// Feeds `text` to a filter in pieces of `size` bytes and returns all of its output.
std::string filtered(const std::string& text, size_t size) {
  BannerFilter filter;
  std::string shown;
  for (size_t at = 0; at < text.size(); at += size) shown += filter.feed(text.substr(at, size));
  return shown + filter.finish();
}

TEST(BannerFilter, DropsFramedMessagesHoweverTheyAreCut) {
  const std::string text = "one\n" + kAbort + "two\n" + kAbort + kAbort + "three\n";
  for (size_t size : {1, 2, 7, 73, 74, 75, 76, 1000})
    EXPECT_EQ(filtered(text, size), "one\ntwo\nthree\n") << size;
}

TEST(BannerFilter, PassesFramesOfOthers) {
  const std::string table = kRule + "step   loss\n" + kRule + "1      2.3\n" + kRule;
  for (size_t size : {1, 75, 80, 1000}) EXPECT_EQ(filtered(table, size), table) << size;
  const std::string other = std::string(73, '-') + "\nMPI\n" + std::string(75, '-') + "\nMPI\n";
  for (size_t size : {1, 75, 1000}) EXPECT_EQ(filtered(other, size), other) << size;
}

TEST(BannerFilter, DropsLinesOfMpirunItself) {
  const std::string lines =
      "[node1:29391] [[7729,0],0] ORTE_ERROR_LOG: Out of resource in file ../../../orte/util/show_help.c at "
      "line 507\n"
      "[node1:4169] 1 more process has sent help message help-mpi-api.txt / mpi-abort\n"
      "[node1:4169] Set MCA parameter \"orte_base_help_aggregate\" to 0 to see all help / error messages\n";
  const std::string others = "[1/8] step\n[node1:5] my ORTE_ERROR\n[\nORTE_ERROR_LOG\n";
  for (size_t size : {1, 7, 1000})
    EXPECT_EQ(filtered("one\n" + lines + others + "two\n", size), "one\n" + others + "two\n") << size;
}

TEST(BannerFilter, AMessageMayFollowAForeignRule) {
  EXPECT_EQ(filtered(kRule + kAbort + "end\n", 1000), kRule + "end\n");
}

TEST(BannerFilter, ShowsAtOnceWhatIsNoRule) {
  BannerFilter filter;
  EXPECT_EQ(filter.feed("step 1 "), "step 1 ");
  EXPECT_EQ(filter.feed("-----"), "-----") << "in the middle of a line";
  EXPECT_EQ(filter.feed("\n--"), "\n") << "may become a rule";
  EXPECT_EQ(filter.feed("help\n"), "--help\n");
}

TEST(BannerFilter, FinishGivesBackWhatWasHeld) {
  BannerFilter filter;
  EXPECT_EQ(filter.feed("---"), "");
  EXPECT_EQ(filter.finish(), "---");
  BannerFilter open;
  EXPECT_EQ(open.feed(kRule + "mpirun noticed that\nprocess"), "");
  EXPECT_EQ(open.finish(), "");
}

TEST(FirstTellingLine, SkipsFramesAndPrefixes) {
  EXPECT_EQ(first_telling_line(kRule + "\nThere are not enough slots\n" + kRule),
            "There are not enough slots");
  EXPECT_EQ(first_telling_line("Warning: Permanently added 'a'\nssh: no route\n"), "ssh: no route");
  EXPECT_EQ(first_telling_line("trireme: cannot reach it\n"), "cannot reach it");
  EXPECT_EQ(first_telling_line(kRule + "\n"), "");
}

}  // namespace
}  // namespace trireme
