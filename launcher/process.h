// Child processes: starting them so that they cannot outlive us, and ending all of them.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace trireme {

using Environment = std::map<std::string, std::string>;

/// The file that execvp would run for `program`. Error(kUsage) when there is none or it is not executable.
std::string find_program(const std::string& program);

/// Absolute path of the running executable.
std::string own_path();

struct Spawn {
  std::vector<std::string> command;  ///< command[0] is looked up as execvp does
  Environment env;                   ///< set in addition to our own environment
  int output = -1;                   ///< becomes standard output; -1: ours
  int errors = -1;                   ///< becomes standard error; -1: ours
  int death_signal = 0;              ///< sent to the child when the calling thread ends; 0: none
};

/// Starts a child in a process group of its own, with standard input empty and no signal blocked.
/// Error(kUsage) when the program cannot be run. The caller reaps the child.
pid_t spawn(const Spawn& options);

/// Kills every child of this process, and theirs as they fall to it, until none is left. The process
/// must be a child subreaper for grandchildren to be found. Gives up after two seconds.
void kill_descendants();

struct Captured {
  bool timed_out = false;
  int status = 0;      ///< as from waitpid; meaningless when timed_out
  std::string output;  ///< standard output and error together, at most 1 MiB
  bool ok() const { return !timed_out && status == 0; }
};

/// Runs a command to its end or the deadline (then kills its process group).
Captured run_captured(const Spawn& options, std::chrono::milliseconds deadline);

}  // namespace trireme
