// Ranks as MPI processes.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "distributed/comm/host_communicator.h"

namespace trireme {

/// MPI for as long as this object lives; one per process, made and destroyed by the main thread, before
/// and after all communicators. Whether MPI was started by mpirun, srun or not at all (one rank) is MPI's
/// own business.
class MpiSession {
 public:
  /// Throws Error(kUsage) if MPI cannot serve several threads. `patience` bounds start-up and finalization:
  /// where a peer does not come in time, the process ends with kPeer.
  explicit MpiSession(std::chrono::milliseconds patience);
  /// Finalizes, waiting at most `patience` for the peers, then the process ends with kPeer. When an
  /// exception unwinds it, MPI stays up, because finalizing would wait for peers that wait for this rank:
  /// main must then say what went wrong and call abort_if_running().
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// Place among the ranks that share this host's memory, and their number.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

  /// For main, after it has printed an error: if MPI is up, ends all ranks with `code` and does not
  /// return. The process ends within three seconds even if the network is gone. Without MPI, returns.
  static void abort_if_running(ExitCode code);

 private:
  std::chrono::milliseconds patience_;
  int exceptions_;
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
};

/// The MPI library that runs: "Open MPI v4.1.4". Needs no MpiSession.
std::string mpi_library_version();

/// Messages between all ranks of MPI_COMM_WORLD, for the calling thread. As make_mpi_communicator.
std::unique_ptr<Transport> make_mpi_transport(std::chrono::milliseconds patience);

/// All ranks of MPI_COMM_WORLD; backend() is "mpi". All ranks must make their communicators in the same
/// order. Needs an MpiSession that outlives it. Throws Error(kPeer) if a peer does not come in time.
std::unique_ptr<HostCommunicator> make_mpi_communicator(std::chrono::milliseconds patience);

}  // namespace trireme
