// `trireme rank-guard PROGRAM ARGS...`: the process that mpirun or srun starts to run one rank's program.
//
// It starts the program when the launcher says so, passes signals on, reports to the launcher how the program
// ended, and kills the processes that the program leaves. It always exits with code 0, so that mpirun prints
// no message of its own about the end of the job.
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "distributed/rendezvous/world.h"
#include "kernels/error.h"
#include "launcher/commands.h"
#include "launcher/control.h"
#include "launcher/process.h"

namespace trireme {
namespace {

class RankGuard {
 public:
  RankGuard(std::vector<std::string> command, const std::string& contact)
      : command_(std::move(command)), launcher_(connect_to_launcher(contact, std::chrono::seconds(20))) {
    sigset_t watched;
    sigemptyset(&watched);
    for (int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU, SIGCHLD})
      sigaddset(&watched, number);
    sigprocmask(SIG_BLOCK, &watched, nullptr);
    signals_ = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    const World world = detect_world(process_environment());
    launcher_->send(fmt::format("hello {} {} {}", token_of(contact), world.rank, world.host));
  }

  /// Runs the program until the launcher says bye or is gone. Kills all descendants before it returns.
  void run() {
    while (!over_) {
      pollfd ready[] = {{launcher_->fd(), POLLIN, 0}, {signals_, POLLIN, 0}};
      if (poll(ready, 2, -1) < 0) continue;
      if (ready[1].revents) take_signals();
      if (ready[0].revents) take_orders();
    }
    kill_descendants();
  }

 private:
  void take_orders() {
    std::vector<std::string> lines;
    if (!launcher_->receive(&lines)) over_ = true;
    for (const std::string& line : lines) {
      if (line == "go") start();
      if (line == "bye") over_ = true;
      if (line.starts_with("signal ")) pass_on(std::atoi(line.c_str() + 7));
    }
  }

  void take_signals() {
    signalfd_siginfo info;
    while (read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      if (info.ssi_signo != SIGCHLD) pass_on(static_cast<int>(info.ssi_signo));
    }
    int status = 0;
    for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG)) > 0;) {
      if (ended == program_) report(status);
    }
  }

  void start() {
    unsetenv(kControlVariable);
    Spawn options;
    options.command = command_;
    options.death_signal = SIGKILL;
    try {
      program_ = spawn(options);
    } catch (const Error& error) {
      launcher_->send(fmt::format("failed {}", error.what()));
    }
  }

  /// Sends a signal to the program's process group, at most once. The same signal may arrive twice: from the
  /// launcher, and from mpirun or Slurm.
  void pass_on(int number) {
    if (program_ > 0 && passed_on_.insert(number).second) kill(-program_, number);
  }

  void report(int status) {
    program_ = 0;
    kill_descendants();
    const bool killed = WIFSIGNALED(status);
    const int value = killed ? WTERMSIG(status) : WEXITSTATUS(status);
    const bool asked = killed ? passed_on_.contains(value) : !passed_on_.empty();
    launcher_->send(fmt::format("{} {} {}", killed ? "killed" : "exit", value, asked ? 1 : 0));
  }

  std::vector<std::string> command_;
  std::unique_ptr<LineSocket> launcher_;
  int signals_ = -1;
  pid_t program_ = 0;
  std::set<int> passed_on_;
  bool over_ = false;
};

}  // namespace

int rank_guard_main(int argc, char** argv) {
  const char* contact = std::getenv(kControlVariable);
  if (!contact || argc < 2) fail(ExitCode::kUsage, "rank-guard is started by 'trireme launch' only");
  RankGuard(std::vector<std::string>(argv + 1, argv + argc), contact).run();
  return 0;
}

}  // namespace trireme
