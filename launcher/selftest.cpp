// `trireme selftest-mpi latency|allreduce`: run by doctor as ranks; rank 0 prints figures as JSON.
#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "distributed/comm/mpi.h"
#include "distributed/comm/ordered_reduce.h"
#include "kernels/error.h"
#include "launcher/commands.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::seconds;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// "Open MPI v4.1.4" of "Open MPI v4.1.4, package: ..."
std::string library_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int size = 0;
  MPI_Get_library_version(text, &size);
  const std::string version(text, static_cast<size_t>(size));
  return version.substr(0, version.find_first_of(",\n"));
}

/// Half a round trip of eight bytes between ranks 0 and 1, in microseconds.
double ping(const MpiSession& mpi) {
  constexpr int kTrips = 500;
  if (mpi.size() < 2 || mpi.rank() > 1) return 0;
  double word = 0;
  const int other = 1 - mpi.rank();
  const auto begin = Clock::now();
  for (int i = 0; i < kTrips; ++i) {
    if (mpi.rank() == 0) MPI_Send(&word, 1, MPI_DOUBLE, other, 0, MPI_COMM_WORLD);
    MPI_Recv(&word, 1, MPI_DOUBLE, other, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (mpi.rank() == 1) MPI_Send(&word, 1, MPI_DOUBLE, other, 0, MPI_COMM_WORLD);
  }
  return seconds_since(begin) / kTrips / 2 * 1e6;
}

/// Seconds for one sum of `count` floats over all ranks, one shard each; checks the result.
double all_reduce(Communicator& comm, size_t count, int repeats) {
  const int shards = comm.size();
  std::vector<float> mine(count, static_cast<float>(comm.rank() + 1)), sum(count);
  const auto once = [&] {
    ordered_all_reduce(comm, shards, {mine.data()}, count, 1, sum.data(), "the self-test's vector").wait();
  };
  once();
  const float expected = static_cast<float>(shards * (shards + 1)) / 2;
  for (size_t i = 0; i < count; ++i) {
    if (sum[i] != expected)
      fail(ExitCode::kPeer, "element {} of an all-reduce is {}, not {}", i, sum[i], expected);
  }
  comm.barrier("the self-test's start").wait();
  const auto begin = Clock::now();
  for (int i = 0; i < repeats; ++i) once();
  return seconds_since(begin) / repeats;
}

int run(const std::string& what) {
  const MpiSession mpi(seconds(10));
  nlohmann::json figures;
  if (what == "latency") {
    figures = {{"library", library_version()}, {"latency_us", ping(mpi)}};
  } else {
    constexpr size_t kLarge = 4 << 20, kSmall = 1 << 10;
    const auto comm = make_mpi_communicator(seconds(10));
    const double small = all_reduce(*comm, kSmall, 50);
    const double large = all_reduce(*comm, kLarge, 5);
    figures = {{"small_us", small * 1e6}, {"bytes_per_s", kLarge * sizeof(float) / large}};
  }
  if (mpi.rank() == 0) std::puts(figures.dump().c_str());
  return 0;
}

}  // namespace

int selftest_mpi_main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : "latency");
  } catch (const Error& error) {
    fmt::print(stderr, "trireme: {}\n", error.what());
    MpiSession::abort_if_running(error.code());
    return static_cast<int>(error.code());
  }
}

}  // namespace trireme
