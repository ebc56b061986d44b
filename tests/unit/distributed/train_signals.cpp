// Tests that signals ask a program to stop, and end it if it does not.
#include "distributed/train/signals.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <thread>

#include "core/base/progress.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPatience{200};

/// Sleeps, and then ends this process with code 99 unless something else has ended it.
void wait_in_vain() {
  std::this_thread::sleep_for(std::chrono::seconds(20));
  std::_Exit(99);
}

class Signals : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(Signals, EndAStepThatMakesNoProgress) {
  for (const int number : {SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU})
    EXPECT_EXIT(
        {
          install_signal_handlers(0, true, kPatience);
          program_phase() = Phase::kSteps;
          kill(getpid(), number);
          wait_in_vain();
        },
        testing::ExitedWithCode(128 + number),
        "stopped by signal [0-9]+ in a step that made no progress for 0.2 s; steps since the last "
        "checkpoint");
}

TEST_F(Signals, WaitForAStepThatMakesProgress) {
  EXPECT_EXIT(
      {
        install_signal_handlers(0, true, kPatience);
        program_phase() = Phase::kSteps;
        kill(getpid(), SIGTERM);
        for (int i = 0; i < 40; ++i) {  // five times the patience
          std::this_thread::sleep_for(milliseconds(25));
          note_progress();
        }
        std::_Exit(stop_signal() == SIGTERM ? 0 : 98);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(Signals, LetAStepTakeItsTimeUntilOneComes) {
  EXPECT_EXIT(
      {
        install_signal_handlers(0, true, kPatience);
        program_phase() = Phase::kSteps;
        std::this_thread::sleep_for(4 * kPatience);
        std::_Exit(0);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(Signals, BeforeTheFirstStepEndAJobThatGoesOn) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}) {
    const auto start = [number](bool keeps_checkpoints) {
      install_signal_handlers(0, keeps_checkpoints, kPatience);
      kill(getpid(), number);
      wait_in_vain();
    };
    EXPECT_EXIT(start(true), testing::ExitedWithCode(75), "before the first step");
    EXPECT_EXIT(start(false), testing::ExitedWithCode(128 + number), "before the first step");
  }
}

}  // namespace
}  // namespace trireme
