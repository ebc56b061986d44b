#include "core/metrics/gnuplot.h"

#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

#include "core/metrics/file_writer.h"
#include "kernels/error.h"

namespace trireme {

namespace {

constexpr std::chrono::milliseconds kPoll{5};

/// A nameless file in memory: unlike a pipe it never fills up, so parent and child cannot wait for each
/// other.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view text = {}) : fd_(memfd_create("gnuplot", MFD_CLOEXEC)) {
    if (fd_ < 0) fail(ExitCode::kUsage, "cannot make a file in memory: {}", std::strerror(errno));
    while (!text.empty()) {
      const ssize_t written = ::write(fd_, text.data(), text.size());
      if (written < 0) break;
      text.remove_prefix(static_cast<std::size_t>(written));
    }
    lseek(fd_, 0, SEEK_SET);
    if (!text.empty()) {
      ::close(fd_);
      fail(ExitCode::kUsage, "cannot write to a file in memory: {}", std::strerror(errno));
    }
  }
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  int descriptor() const { return fd_; }
  /// Returns the output of the child process as one line.
  std::string line() const {
    char text[400];
    const ssize_t size = pread(fd_, text, sizeof text, 0);
    std::string line;
    for (ssize_t i = 0; i < size; ++i) {
      const bool space = static_cast<unsigned char>(text[i]) <= ' ';
      if (!space) line += text[i];
      if (space && !line.empty() && line.back() != ' ') line += ' ';
    }
    return line;
  }

 private:
  int fd_;
};

pid_t spawn(const std::filesystem::path& picture, int in, int out, int err) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
  char program[] = "gnuplot";
  char defaults[] = "--default-settings";  // not the user's own start-up file
  char* arguments[] = {program, defaults, nullptr};
  pid_t child = 0;
  const int error = posix_spawnp(&child, program, &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT) {
    fail(ExitCode::kUsage, "cannot draw {}: gnuplot is not installed (apt install gnuplot-nox)",
         picture.string());
  }
  if (error != 0) {
    fail(ExitCode::kUsage, "cannot draw {}: gnuplot does not start: {}", picture.string(),
         std::strerror(error));
  }
  return child;
}

/// The child's wait status; nothing of the child is left afterwards. False when the deadline passed.
bool wait_for(pid_t child, std::chrono::milliseconds deadline, int& status) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  for (;;) {
    const pid_t done = waitpid(child, &status, WNOHANG);
    if (done == child) return true;
    // Somebody else collected it (SIGCHLD ignored): its exit status is lost.
    if (done < 0 && errno == ECHILD) return status = 0, true;
    if (std::chrono::steady_clock::now() >= end) break;
    std::this_thread::sleep_for(kPoll);
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return false;
}

std::string explain(int status, const std::string& message) {
  const std::string how = WIFSIGNALED(status) ? fmt::format("was ended by signal {}", WTERMSIG(status))
                                              : fmt::format("ended with {}", WEXITSTATUS(status));
  return message.empty() ? how : how + ": " + message;
}

}  // namespace

void run_gnuplot(std::string_view script, const std::filesystem::path& picture,
                 std::chrono::milliseconds deadline) {
  const MemoryFile input(script);
  const MemoryFile errors;
  FileWriter output(fmt::format("{}.{}.tmp", picture.string(), getpid()), FileWriter::Mode::kDraft);
  int status = 0;
  const pid_t child = spawn(picture, input.descriptor(), output.descriptor(), errors.descriptor());
  if (!wait_for(child, deadline, status)) {
    fail(ExitCode::kUsage, "cannot draw {}: gnuplot still ran after {} ms", picture.string(),
         deadline.count());
  }
  if (status != 0 || std::filesystem::file_size(output.path()) == 0) {
    fail(ExitCode::kUsage, "cannot draw {}: gnuplot {}", picture.string(), explain(status, errors.line()));
  }
  output.rename(picture);
}

}  // namespace trireme
