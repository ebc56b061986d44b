// Plans how the ranks of a job are started: the command line and environment for mpirun, for srun, or for a
// single process. All are pure functions of the user's options and the launcher's surroundings.
#pragma once

#include <string>
#include <vector>

#include "launcher/process.h"

namespace trireme {

/// The options of `trireme launch`.
struct LaunchOptions {
  int ranks = 0;                     ///< number of ranks; 0: the number of tasks of the Slurm allocation
  std::vector<std::string> hosts;    ///< hosts to use; empty: this host, or the Slurm allocation
  std::string backend = "mpi";       ///< "mpi" or "local"
  int min_ranks = 1;                 ///< the job does not restart on fewer ranks
  int restarts = 0;                  ///< how often the job may restart
  double patience = 60;              ///< seconds in which all ranks must start, and end after a signal
  std::vector<std::string> program;  ///< the program and its arguments
};

/// The machine and environment in which the launcher runs.
struct Surroundings {
  int cores = 1;          ///< number of cores that this process may use
  bool has_srun = false;  ///< srun is installed
  Environment variables;  ///< environment variables of the launcher
};

/// One command that starts `processes` guards, each of which runs the program.
struct StartPlan {
  int processes = 0;
  bool outside = false;              ///< guards may be on other hosts
  std::vector<std::string> command;  ///< program and arguments
  Environment env;                   ///< variables to set in addition to the launcher's environment
};

/// Returns true if srun is installed and the launcher runs in a Slurm allocation but not in a step of it.
bool can_use_slurm(const Surroundings& here);

/// Returns the number of ranks to start. Throws Error(kUsage) if the user gave none and there is no Slurm
/// allocation to take it from.
int ranks_to_start(const LaunchOptions& options, const Surroundings& here);

/// Returns the hosts without those that the ranks `lost` were on, of `ranks` that were started on `hosts`. A
/// rank's host follows from its number. What the host calls itself does not matter, because the list may name
/// it by an address or an alias.
std::vector<std::string> hosts_left(const std::vector<std::string>& hosts, int ranks,
                                    const std::vector<int>& lost);

/// Returns the plan for `ranks` ranks of the job. `guard` is the command that guards one rank; the plan
/// appends the program and its arguments to it.
StartPlan plan_start(const LaunchOptions& options, const Surroundings& here, int ranks,
                     const std::vector<std::string>& guard);

}  // namespace trireme
