#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "distributed/checkpoint/store_lock.h"
#include "kernels/error.h"
#include "tests/support/checkpoint.h"

namespace trireme {
namespace {

std::string refusal(const std::filesystem::path& directory) {
  try {
    const StoreLock lock(directory);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return error.what();
  }
}

TEST(StoreLock, SecondHolderIsRefusedByName) {
  const test::TemporaryDirectory temporary;
  std::optional<StoreLock> lock(std::in_place, temporary.path());
  const std::string who = fmt::format("another job (process {} on ", getpid());
  EXPECT_NE(refusal(temporary.path()).find(who), std::string::npos) << refusal(temporary.path());
  EXPECT_NE(refusal(temporary.path()), "") << "a refused one has broken the lock";
  lock.reset();
  EXPECT_TRUE(std::filesystem::is_empty(temporary.path()));
  EXPECT_EQ(refusal(temporary.path()), "");
}

TEST(StoreLock, EndsWithAKilledProcess) {
  const test::TemporaryDirectory temporary;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const StoreLock lock(temporary.path());
    if (write(ready[1], "x", 1) == 1) pause();
    _exit(1);
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_NE(refusal(temporary.path()).find(fmt::format("process {} on ", child)), std::string::npos);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(std::filesystem::exists(temporary.path() / ".lock"));
  EXPECT_EQ(refusal(temporary.path()), "");
  close(ready[0]);
  close(ready[1]);
}

TEST(StoreLock, FolderThatIsNotThere) {
  EXPECT_NE(refusal("/proc/none").find("/proc/none/.lock"), std::string::npos);
}

}  // namespace
}  // namespace trireme
