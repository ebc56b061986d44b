// Compares Trireme's all-reduce with MPI's, and with the speed of memory on one host.
//
//   ninja -C build trireme_bench && mpirun -np 2 build/tests/bench_all_reduce
//   cluster/hosts.py --hosts 2 --per-host 2 --rate 1gbit build/tests/bench_all_reduce
//
// Columns are medians: MPI_Allreduce in place and out of place, Trireme's sum called directly and through a
// communicator's queue, and the time of a copy of as many bytes that all ranks make at once.
#define OMPI_SKIP_MPICXX 1
#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "distributed/comm/host_sum.h"
#include "distributed/comm/mpi.h"
#include "distributed/comm/ordered_reduce.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPatience{30'000};

/// Returns the milliseconds of a call, from its beginning on the first rank to its end on the last rank.
double time_of(int calls, const std::function<void()>& call) {
  const auto now = [] {
    return std::chrono::duration<double, std::milli>(Clock::now().time_since_epoch()).count();
  };
  MPI_Barrier(MPI_COMM_WORLD);
  double begin = now();
  for (int i = 0; i < calls; ++i) call();
  double end = now();
  MPI_Allreduce(MPI_IN_PLACE, &begin, 1, MPI_DOUBLE, MPI_MIN, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, &end, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return (end - begin) / calls;
}

struct Way {
  std::function<void()> call;
  std::vector<double> times;
  double median() {
    std::ranges::sort(times);
    return times[times.size() / 2];
  }
};

void run(const MpiSession& session) {
  const auto transport = make_mpi_transport(kPatience);
  const auto comm = make_mpi_communicator(kPatience);
  VisibleMemory& visible = transport->group().memory();
  HostSum through_memory(*transport, kPatience);
  if (session.rank() == 0)
    fmt::print("{} ranks, {} on each host\n{:>10} {:>10} {:>10} {:>10} {:>10} {:>10} | {:>6} {:>6}\n",
               session.size(), transport->group().size(), "bytes", "in place", "out of pl.", "ours", "queued",
               "limit", "/MPI", "/limit");
  constexpr std::size_t kMiB = 1 << 20;
  for (const std::size_t bytes : {std::size_t{64}, std::size_t{1} << 10, std::size_t{16} << 10, kMiB / 16,
                                  kMiB / 4, kMiB, 4 * kMiB, 25 * kMiB, 100 * kMiB}) {
    const std::size_t count = bytes / sizeof(float);
    const auto in = visible.allocate(bytes), out = visible.allocate(bytes), queued = comm->allocate(bytes);
    std::vector<float> a(count, 1), b(count, 1);
    std::memset(in.get(), 0, bytes);
    std::memset(out.get(), 0, bytes);
    std::memset(queued.get(), 0, bytes);
    const OrderedSum sum{session.size(), {in.get()}, DType::kFloat32, count, 1, in.get()};
    const CallHeader header{.op = Collective::kSum};
    std::vector<Way> ways(5);
    ways[0].call = [&] {
      MPI_Allreduce(MPI_IN_PLACE, a.data(), static_cast<int>(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    };
    ways[1].call = [&] {
      MPI_Allreduce(a.data(), b.data(), static_cast<int>(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    };
    ways[2].call = [&] { through_memory.run(header, sum); };
    ways[3].call = [&] {
      ordered_all_reduce(*comm, session.size(), {queued.get()}, DType::kFloat32, count, 1, queued.get(),
                         "sum")
          .wait();
    };
    // Copy one vector: each rank of a sum reads and writes as many bytes.
    ways[4].call = [&] { std::memcpy(out.get(), in.get(), bytes); };
    const int calls = static_cast<int>(std::clamp<std::size_t>((4 << 20) / bytes, 1, 5000));
    for (int round = 0; round < 11; ++round)
      for (Way& way : ways) way.times.push_back(time_of(calls, way.call));
    if (session.rank() != 0) continue;
    const double mpi = std::min(ways[0].median(), ways[1].median());
    fmt::print("{:>10} {:>10.4f} {:>10.4f} {:>10.4f} {:>10.4f} {:>10.4f} | {:>6.2f} {:>6.2f}\n", bytes,
               ways[0].median(), ways[1].median(), ways[2].median(), ways[3].median(), ways[4].median(),
               ways[2].median() / mpi, ways[2].median() / ways[4].median());
  }
}

}  // namespace
}  // namespace trireme

int main() {
  const trireme::MpiSession session(std::chrono::seconds(30));
  trireme::run(session);
}
