// Starts child processes that cannot outlive this process, and ends all of them.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace trireme {

using Environment = std::map<std::string, std::string>;

/// Returns the path of the file that execvp would run for `program`. Throws Error(kUsage) if there is none or
/// it is not executable.
std::string find_program(const std::string& program);

/// Returns the absolute path of the running executable.
std::string own_path();

struct Spawn {
  std::vector<std::string> command;  ///< program, looked up as execvp does, and its arguments
  Environment env;                   ///< variables to set in addition to this process's environment
  int output = -1;                   ///< file descriptor for standard output; -1: inherited
  int errors = -1;                   ///< file descriptor for standard error; -1: inherited
  int death_signal = 0;              ///< signal for the child when the calling thread ends; 0: none
};

/// Starts a child in its own process group, with empty standard input and no signal blocked.
/// Returns its process id; the caller must wait for it. Throws Error(kUsage) if the program cannot be run.
pid_t spawn(const Spawn& options);

/// Kills and reaps every child of this process until none is left, or for two seconds. If this process is a
/// child subreaper, orphaned grandchildren become its children and are killed, too.
void kill_descendants();

struct Captured {
  bool timed_out = false;
  int status = 0;      ///< status from waitpid; undefined if timed_out
  std::string output;  ///< standard output and standard error together, at most 1 MiB
  bool ok() const { return !timed_out && status == 0; }
};

/// Runs a command until it ends and captures its output. Kills its process group at the deadline.
Captured run_captured(const Spawn& options, std::chrono::milliseconds deadline);

}  // namespace trireme
