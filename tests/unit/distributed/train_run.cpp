// Whatever a training program throws becomes one line and an exit code.
#include "distributed/train/run.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace trireme {
namespace {

int run_and_throw(const std::function<void(Job&)>& body, std::string* line) {
  std::string program = "test", quiet = "--quiet";
  char* argv[] = {program.data(), quiet.data(), nullptr};
  testing::internal::CaptureStderr();
  const int code = run(2, argv, {}, body);
  *line = testing::internal::GetCapturedStderr();
  return code;
}

TEST(Run, SaysInOneLineWhatWasThrown) {
  std::string line;
  EXPECT_EQ(run_and_throw([](Job&) {}, &line), 0);
  EXPECT_EQ(line, "");
  EXPECT_EQ(run_and_throw([](Job&) { fail(ExitCode::kData, "no such file"); }, &line), 3);
  EXPECT_EQ(line, "no such file\n");
  EXPECT_EQ(run_and_throw([](Job&) { throw std::runtime_error("odd"); }, &line),
            static_cast<int>(ExitCode::kInternal));
  EXPECT_EQ(line, "unexpected error: odd\n");
  EXPECT_EQ(run_and_throw([](Job&) { throw 7; }, &line), static_cast<int>(ExitCode::kInternal));
  EXPECT_EQ(line, "unexpected error: something was thrown that is no std::exception\n");
}

}  // namespace
}  // namespace trireme
