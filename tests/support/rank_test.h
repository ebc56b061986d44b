// A rank test is a lambda that runs on every rank, over every communicator there is here.
//
// Started plainly, ranks are threads. Started by mpirun, the same executable's ranks are the processes.
// Such an executable has its own main: `int main(int argc, char** argv) { return rank_test_main(argc, argv);
// }`
#pragma once

#include <chrono>
#include <functional>
#include <initializer_list>
#include <string>

#include "distributed/comm/communicator.h"

namespace trireme::test {

struct RankTestOptions {
  std::chrono::milliseconds patience{30'000};  ///< of the communicator
  std::chrono::seconds limit{120};             ///< for all sizes together; then a watchdog ends the process
};

/// Runs `body` once for each world size, communicator and placement of ranks on hosts, and in a process group
/// of a larger world. Over MPI: if `sizes`
/// has the world's size, and in a group of all but rank 0 if it has that. An exception of `body` comes out of
/// here.
void for_each_communicator(std::initializer_list<int> sizes, const std::function<void(Communicator&)>& body,
                           const RankTestOptions& options = {});

/// Runs `fn` and returns the message of the trireme::Error it throws, or "" if it throws none.
std::string error_of(const std::function<void()>& fn);

/// True if ranks are the processes of an mpirun.
bool over_mpi();

/// Runs all tests; inside an MPI session if started by mpirun or srun.
int rank_test_main(int argc, char** argv);

}  // namespace trireme::test
