// Starts ranks from main's arguments, and turns errors into one line and an exit code.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "distributed/train/job.h"

namespace trireme {

/// Does all the work of a main function. Finds out this process's rank from how it was started (mpirun,
/// srun, `trireme launch`, threads, alone). Runs `body` on each rank of this process. Prints what `body`
/// throws as one line on standard error and returns the exit code. SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2
/// and SIGXCPU ask the job to stop after its step, see signals.h.
int run(int argc, char** argv, const Program& program, const std::function<void(Job&)>& body);

/// Returns a description of the compiler, libraries and CPU that bits depend on.
std::string build_description();

/// Owns MPI and the communicator of a process with one rank, for a Job that main() creates itself.
class JobRuntime {
 public:
  virtual ~JobRuntime() = default;
  virtual Communicator& comm() = 0;
  virtual const JobOptions& options() const = 0;
  /// Creates the runtime. It also makes std::terminate print an error that leaves main() in one line and exit
  /// with its exit code.
  static std::unique_ptr<JobRuntime> from_main(int argc, char** argv, const Program& program);
};

}  // namespace trireme
