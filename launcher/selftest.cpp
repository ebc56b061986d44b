// `trireme selftest-mpi latency|allreduce`: the program that doctor runs on two ranks. Rank 0 prints its
// measurements as JSON.
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "distributed/comm/mpi.h"
#include "distributed/comm/ordered_reduce.h"
#include "kernels/error.h"
#include "launcher/commands.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{10};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Returns half the time of a round trip of eight bytes between ranks 0 and 1, in microseconds.
double ping(Transport& transport) {
  constexpr int kTrips = 500;
  if (transport.size() < 2) return 0;
  const bool first = transport.rank() == 0;
  double sent = 0, got = 0;
  std::vector<ConstBytes> to_peer(2), nothing_to_send(2);
  std::vector<Bytes> from_peer(2), nothing_to_get(2);
  to_peer[first ? 1 : 0] = std::as_bytes(std::span(&sent, 1));
  from_peer[first ? 1 : 0] = std::as_writable_bytes(std::span(&got, 1));
  const auto begin = Clock::now();
  const Deadline deadline = begin + kPatience;
  for (int i = 0; i < kTrips; ++i) {
    if (first) transport.exchange(to_peer, nothing_to_get, deadline);
    transport.exchange(nothing_to_send, from_peer, deadline);
    if (!first) transport.exchange(to_peer, nothing_to_get, deadline);
  }
  return seconds_since(begin) / kTrips / 2 * 1e6;
}

/// Returns the seconds of an all-reduce of `count` floats with one shard on each rank. Checks the result.
double all_reduce(Communicator& comm, size_t count, int repeats) {
  const int shards = comm.size();
  std::vector<float> mine(count, static_cast<float>(comm.rank() + 1)), sum(count);
  const auto once = [&] {
    ordered_all_reduce(comm, shards, {mine.data()}, DType::kFloat32, count, 1, sum.data(),
                       "the self-test's vector")
        .wait();
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
  const MpiSession mpi(kPatience);
  if (mpi.size() > 2) fail(ExitCode::kUsage, "selftest-mpi is for two ranks, not {}", mpi.size());
  nlohmann::json figures;
  if (what == "latency") {
    figures = {{"library", mpi_library_version()}, {"latency_us", ping(*make_mpi_transport(kPatience))}};
  } else {
    constexpr size_t kLarge = 4 << 20, kSmall = 1 << 10;
    const auto comm = make_mpi_communicator(kPatience);
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
