#include "launcher/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include "kernels/error.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

/// Returns the type of the file (S_IFREG, S_IFDIR, ...), or 0 if there is no such file.
mode_t kind_of(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? info.st_mode & S_IFMT : 0;
}

/// Turns the child into the program. If exec fails, writes errno to the pipe `report`; a successful exec
/// closes the pipe.
[[noreturn]] void become(const Spawn& options, const std::vector<char*>& argv, pid_t parent, int report) {
  setpgid(0, 0);
  if (options.death_signal) {
    prctl(PR_SET_PDEATHSIG, options.death_signal);
    if (getppid() != parent) _exit(1);  // the parent ended before prctl
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // Restore default actions: a shell may have left signals ignored, and a rank must notice a request to stop.
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU, SIGPIPE})
    signal(number, SIG_DFL);
  const int empty = open("/dev/null", O_RDONLY);
  dup2(empty, STDIN_FILENO);
  if (options.output >= 0) dup2(options.output, STDOUT_FILENO);
  if (options.errors >= 0) dup2(options.errors, STDERR_FILENO);
  for (const auto& [name, value] : options.env) setenv(name.c_str(), value.c_str(), 1);
  execvp(argv[0], argv.data());
  const int error = errno;
  if (write(report, &error, sizeof error) < 0) _exit(126);
  _exit(127);
}

}  // namespace

std::string find_program(const std::string& program) {
  std::vector<std::string> candidates;
  if (program.find('/') != std::string::npos) {
    candidates.push_back(program);
  } else {
    const char* path = std::getenv("PATH");
    std::istringstream folders(path ? path : "/usr/bin:/bin");
    for (std::string folder; std::getline(folders, folder, ':');) {
      candidates.push_back((folder.empty() ? "." : folder) + "/" + program);
    }
  }
  std::string unusable;
  for (const std::string& file : candidates) {
    if (kind_of(file) != S_IFREG) continue;
    if (access(file.c_str(), X_OK) == 0) return file;
    unusable = file;
  }
  if (!unusable.empty()) fail(ExitCode::kUsage, "cannot run '{}': the file is not executable", unusable);
  const bool folder = kind_of(program) == S_IFDIR;
  fail(ExitCode::kUsage, "cannot run '{}': {}", program, folder ? "it is a directory" : "no such program");
}

std::string own_path() {
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  if (size <= 0) fail(ExitCode::kUsage, "cannot read /proc/self/exe: {}", std::strerror(errno));
  return std::string(path, static_cast<size_t>(size));
}

pid_t spawn(const Spawn& options) {
  std::vector<char*> argv;
  for (const std::string& word : options.command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) fail(ExitCode::kUsage, "cannot make a pipe: {}", std::strerror(errno));
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) become(options, argv, parent, report[1]);
  close(report[1]);
  int error = child < 0 ? errno : 0;
  ssize_t got = 0;
  if (child > 0) {
    do got = read(report[0], &error, sizeof error);
    while (got < 0 && errno == EINTR);
  }
  close(report[0]);
  if (child > 0 && got <= 0) return child;
  if (child > 0) waitpid(child, nullptr, 0);
  fail(ExitCode::kUsage, "cannot run '{}': {}", options.command[0], std::strerror(error));
}

void kill_descendants() {
  const auto deadline = Clock::now() + std::chrono::seconds(2);
  while (Clock::now() < deadline) {
    std::ifstream children("/proc/self/task/" + std::to_string(getpid()) + "/children");
    for (pid_t child; children >> child;) kill(child, SIGKILL);
    pid_t reaped;
    while ((reaped = waitpid(-1, nullptr, WNOHANG)) > 0) continue;
    if (reaped < 0) return;  // ECHILD: no child is left
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

Captured run_captured(const Spawn& options, std::chrono::milliseconds deadline) {
  int output[2];
  if (pipe2(output, O_CLOEXEC) != 0) fail(ExitCode::kUsage, "cannot make a pipe: {}", std::strerror(errno));
  Spawn piped = options;
  piped.output = piped.errors = output[1];
  piped.death_signal = SIGKILL;
  Captured result;
  pid_t child = -1;
  try {
    child = spawn(piped);
  } catch (...) {
    close(output[0]);
    close(output[1]);
    throw;
  }
  close(output[1]);
  const auto end = Clock::now() + deadline;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd ready{output[0], POLLIN, 0};
    if (left <= 0 || poll(&ready, 1, static_cast<int>(left)) == 0) {
      result.timed_out = true;
      kill(-child, SIGKILL);
      break;
    }
    char chunk[4096];
    const ssize_t got = read(output[0], chunk, sizeof chunk);
    if (got == 0 || (got < 0 && errno != EINTR)) break;
    if (got > 0 && result.output.size() < (1 << 20)) result.output.append(chunk, static_cast<size_t>(got));
  }
  close(output[0]);
  waitpid(child, &result.status, 0);
  return result;
}

}  // namespace trireme
