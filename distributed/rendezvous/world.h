// Who am I: how this process was started, and which rank of how many it is.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace trireme {

/// Who started the ranks.
enum class Source {
  kAlone,    ///< nobody: one rank
  kOpenMpi,  ///< mpirun, also inside a Slurm job
  kSlurm,    ///< srun with PMIx or PMI
  kThreads,  ///< `trireme launch --backend local`: this process runs all ranks as threads
};

std::string_view name_of(Source source);

struct World {
  int rank = 0;  ///< for kThreads: 0, each thread learns its own from its communicator
  int size = 1;
  int local_rank = 0;  ///< among the ranks of this host
  int local_size = 1;
  std::string host{};
  Source source = Source::kAlone;
};

/// An environment variable's value, or nothing if it is not set.
using GetEnv = std::function<std::optional<std::string>(const std::string& name)>;
GetEnv process_environment();

/// Returns true if this process is a restart: `trireme launch` has started the same command before, or Slurm
/// has requeued the job.
bool is_restarted(const GetEnv& env);

/// Reads the launcher's variables. Throws Error(kUsage) naming the variable if one holds garbage, if two
/// launchers contradict each other, or if each of several ranks would take itself for the only one. The last
/// happens if srun started them without an MPI plugin. It also happens with a launcher that Trireme does not
/// know how to join (MPICH, Intel MPI, torchrun, Flux, ...).
World detect_world(const GetEnv& env);

/// Returns whether MPI has to connect the ranks; `backend` is that of the job's options.
bool needs_mpi(const World& world, std::string_view backend);

/// `world` with the numbers that MPI gave, which are right in every set-up where MPI starts at all.
/// Throws Error(kUsage) if rank or size contradict the launcher's variables.
World confirmed_by_mpi(World world, int rank, int size, int local_rank, int local_size);

}  // namespace trireme
