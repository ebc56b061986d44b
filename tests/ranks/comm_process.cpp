// Tests processes under mpirun that fail. All must end soon, with the cause in the output and the right exit
// code.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "distributed/comm/mpi.h"
#include "kernels/error.h"
#include "tests/support/watchdog.h"

namespace trireme {
namespace {

using namespace std::chrono_literals;

// Plays a scenario in one of the processes, like a training program.
void play(const std::string& scenario) {
  const MpiSession session(2s);
  const auto comm = make_mpi_communicator(2s);
  comm->barrier("start").wait();
  const bool odd_one = session.rank() == 1;
  if (scenario == "throws" && odd_one) fail(ExitCode::kData, "sample 17 is torn");
  if (scenario == "dies" && odd_one) std::abort();
  if (scenario == "gets stuck" && odd_one) pause();
  if (scenario == "never ends" && odd_one) {
    comm->barrier("end").wait();
    pause();
  }
  comm->barrier("end").wait();
}

int play_main(const std::string& scenario) {
  const test::Watchdog watchdog(scenario, 60s);
  try {
    play(scenario);
    return 0;
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    MpiSession::abort_if_running(e.code());
    return static_cast<int>(e.code());
  }
}

struct Outcome {
  int code = 0;
  std::string output;
  std::chrono::duration<double> took{};
};

Outcome run(const std::string& scenario) {
  const auto start = std::chrono::steady_clock::now();
  std::array<char, 4096> self{};
  EXPECT_GT(readlink("/proc/self/exe", self.data(), self.size() - 1), 0);
  const std::string command =
      fmt::format("exec mpirun -np 3 --oversubscribe '{}' --play '{}' 2>&1", self.data(), scenario);
  Outcome outcome;
  FILE* pipe = popen(command.c_str(), "r");
  std::array<char, 4096> text;
  while (const std::size_t got = fread(text.data(), 1, text.size(), pipe))
    outcome.output.append(text.data(), got);
  const int status = pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.took = std::chrono::steady_clock::now() - start;
  return outcome;
}

class Process : public testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    GTEST_SKIP() << "MPI's own library is not instrumented";
#endif
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
  }
  test::Watchdog watchdog_{"mpirun", 120s};
};

TEST_F(Process, ThatEndsWellReturnsZero) {
  const Outcome outcome = run("ends well");
  EXPECT_EQ(outcome.code, 0) << outcome.output;
}

TEST_F(Process, ThatThrowsEndsAll) {
  const Outcome outcome = run("throws");
  // The exit code is from the first rank that ends the job: the one that failed, or one that was told of the
  // failure.
  EXPECT_TRUE(outcome.code == 3 || outcome.code == 5) << outcome.code << outcome.output;
  EXPECT_NE(outcome.output.find("sample 17 is torn"), std::string::npos) << outcome.output;
  EXPECT_LT(outcome.took, 20s);
}

TEST_F(Process, ThatDiesEndsAll) {
  const Outcome outcome = run("dies");
  EXPECT_NE(outcome.code, 0) << outcome.output;
  EXPECT_LT(outcome.took, 20s);
}

TEST_F(Process, ThatGetsStuckIsNamedAndEnded) {
  const Outcome outcome = run("gets stuck");
  EXPECT_EQ(outcome.code, 5) << outcome.output;
  EXPECT_NE(outcome.output.find("no answer from rank 1"), std::string::npos) << outcome.output;
  EXPECT_LT(outcome.took, 20s);
}

TEST_F(Process, ThatNeverFinalizesDoesNotHoldTheOthers) {
  const Outcome outcome = run("never ends");
  EXPECT_EQ(outcome.code, 5) << outcome.output;
  EXPECT_NE(outcome.output.find("MPI_Finalize did not end"), std::string::npos) << outcome.output;
  EXPECT_LT(outcome.took, 20s);
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--play") return trireme::play_main(argv[2]);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
