// How the ranks of a job are started: the command line and environment for mpirun, srun or neither.
// Pure functions of what was asked for and where we are.
#pragma once

#include <string>
#include <vector>

#include "launcher/process.h"

namespace trireme {

/// What the user asked for.
struct LaunchOptions {
  int ranks = 0;                   ///< 0: as many as the Slurm allocation has tasks
  std::vector<std::string> hosts;  ///< empty: this host, or the Slurm allocation
  std::string backend = "mpi";     ///< "mpi" or "local"
  int min_ranks = 1;               ///< never restart on fewer
  int restarts = 0;
  double patience = 60;              ///< seconds: for all ranks to start, and to end after a signal
  std::vector<std::string> program;  ///< and its arguments
};

/// Where the launcher runs.
struct Surroundings {
  int cores = 1;  ///< that this process may use
  bool has_srun = false;
  Environment variables;  ///< of the launcher
};

/// `processes` guards are started by one command.
struct StartPlan {
  int processes = 0;
  bool outside = false;  ///< guards may be on other hosts
  std::vector<std::string> command;
  Environment env;
};

/// True inside a Slurm allocation but not inside a step of it, with srun at hand.
bool can_use_slurm(const Surroundings& here);

/// The number of ranks to start with. Error(kUsage) when none was given and no allocation tells.
int ranks_to_start(const LaunchOptions& options, const Surroundings& here);

/// Returns the hosts without those that the ranks `lost` were on, of `ranks` that were started on `hosts`. A
/// rank's host follows from its number. What the host calls itself does not matter, because the list may name
/// it by an address or an alias.
std::vector<std::string> hosts_left(const std::vector<std::string>& hosts, int ranks,
                                    const std::vector<int>& lost);

/// The plan for `ranks` ranks of the job. `guard` is the command that guards one rank: program and arguments
/// follow it.
StartPlan plan_start(const LaunchOptions& options, const Surroundings& here, int ranks,
                     const std::vector<std::string>& guard);

}  // namespace trireme
