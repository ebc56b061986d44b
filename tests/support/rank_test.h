// A rank test is a function that runs on every rank, over every communicator of this build.
//
// The ranks are threads, or processes if mpirun has started the test program. Such a program needs this main
// function: `int main(int argc, char** argv) { return rank_test_main(argc, argv); }`
#pragma once

#include <chrono>
#include <functional>
#include <initializer_list>
#include <string>

#include "distributed/comm/communicator.h"

namespace trireme::test {

struct RankTestOptions {
  std::chrono::milliseconds patience{30'000};  ///< patience of the communicator
  std::chrono::seconds limit{120};             ///< for all sizes together; then a watchdog ends the process
};

/// Runs `body` on all ranks, for each world size, communicator and placement of ranks on hosts, and in a
/// process group of a larger world. Over MPI, runs `body` in the world if `sizes` contains its size, and in a
/// group of all ranks except rank 0 if `sizes` contains the group's size. Throws the exceptions of `body`.
void for_each_communicator(std::initializer_list<int> sizes, const std::function<void(Communicator&)>& body,
                           const RankTestOptions& options = {});

/// Runs `fn` and returns the message of the trireme::Error that it throws, or "" if it throws none.
std::string error_of(const std::function<void()>& fn);

/// Returns true if the ranks are processes that mpirun or srun has started.
bool over_mpi();

/// Runs all tests and returns the exit code. Opens an MPI session if mpirun or srun has started the program.
int rank_test_main(int argc, char** argv);

}  // namespace trireme::test
