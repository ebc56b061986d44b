// The MPI backend: ranks are MPI processes.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "distributed/comm/host_communicator.h"

namespace trireme {

/// Initializes MPI and finalizes it in the destructor. A process has one, which the main thread creates
/// before all communicators and destroys after them. It works under mpirun, under srun, and without a
/// launcher (one rank).
class MpiSession {
 public:
  /// Throws Error(kUsage) if MPI does not support several threads. `patience` limits initialization and
  /// finalization: if a peer does not arrive in time, the process exits with kPeer.
  explicit MpiSession(std::chrono::milliseconds patience);
  /// Finalizes MPI. If the peers do not arrive within `patience`, the process exits with kPeer. During the
  /// unwinding of an exception MPI is not finalized, because the peers may be waiting for this rank. main()
  /// must then print the error and call abort_if_running().
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// Return this rank's number among the ranks of this node, and the number of these ranks.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

  /// Ends all ranks with exit code `code` and does not return, if MPI is initialized; otherwise it returns.
  /// main() calls it after printing an error. The process ends within three seconds even if the network has
  /// failed.
  static void abort_if_running(ExitCode code);

 private:
  std::chrono::milliseconds patience_;
  int exceptions_;
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
};

/// Returns the name and version of the MPI library, for example "Open MPI v4.1.4". Needs no MpiSession.
std::string mpi_library_version();

/// Returns a transport between all ranks of MPI_COMM_WORLD, for the calling thread. The rules of
/// make_mpi_communicator() apply.
std::unique_ptr<Transport> make_mpi_transport(std::chrono::milliseconds patience);

/// Returns a communicator of all ranks of MPI_COMM_WORLD, whose backend() is "mpi". All ranks must make their
/// communicators in the same order. An MpiSession must outlive it. Throws Error(kPeer) if a peer does not
/// arrive within `patience`.
std::unique_ptr<HostCommunicator> make_mpi_communicator(std::chrono::milliseconds patience);

}  // namespace trireme
