#include "distributed/comm/link_cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <vector>

#include "distributed/comm/agree.h"
#include "distributed/comm/ordered_reduce.h"
#include "kernels/table.h"

namespace trireme {

namespace {

/// The seconds that a bucket costs in addition to its sum while all cores compute. The communication thread
/// waits for a core then, mostly for as long as a time slice.
constexpr double kWaitForCore = 2e-3;

double median_seconds(Communicator& comm, std::byte* memory, std::size_t bytes) {
  constexpr int kTimes = 3;
  std::vector<double> times;
  for (int i = 0; i < kTimes + 1; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    ordered_all_reduce(comm, comm.size(), {memory}, DType::kFloat32, bytes / sizeof(float), 1, memory,
                       "a measure of the link")
        .wait();
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  times.erase(times.begin());  // makes connections
  std::ranges::sort(times);
  return times[kTimes / 2];
}

/// Clocks differ, and all ranks must plan alike.
LinkCost first_rank_says(Communicator& comm, const LinkCost& measured) {
  const std::string text =
      broadcast_text(comm, fmt::format("{} {}", measured.seconds, measured.bytes_per_second));
  // The locale of the program must not matter, as it would to sscanf.
  LinkCost told;
  const char* const end = text.data() + text.size();
  const char* const space = std::from_chars(text.data(), end, told.seconds).ptr;
  std::from_chars(std::min(space + 1, end), end, told.bytes_per_second);
  return told;
}

}  // namespace

std::string LinkCost::to_string() const {
  return fmt::format("{:.3f} ms a sum and {:.0f} MB/s", 1e3 * seconds, bytes_per_second / 1e6);
}

LinkCost measure_link(Communicator& comm) {
  if (comm.size() == 1) return {};
  constexpr std::size_t kShort = 1 << 10, kLong = 2 << 20;
  const auto memory = comm.allocate(kLong);
  // On one thread, so that OpenMP's need not be started for it.
  if (comm.device().is_cpu())
    std::memset(memory.get(), 0, kLong);
  else
    kernels_of(comm.device()).fill({memory.get(), DType::kFloat32, 1, {kLong / sizeof(float)}, {1}}, 0);
  LinkCost link;
  link.seconds = median_seconds(comm, memory.get(), kShort);
  const double lengthy = median_seconds(comm, memory.get(), kLong);
  link.bytes_per_second = static_cast<double>(kLong) / std::max(lengthy - link.seconds, 1e-7);
  return first_rank_says(comm, link);
}

std::size_t best_bucket_bytes(std::size_t total_bytes, const LinkCost& link) {
  constexpr double kLeast = 0.5 * (1 << 20), kMost = 25.0 * (1 << 20);
  if (link.bytes_per_second <= 0) return static_cast<std::size_t>(kMost);
  const double best =
      std::sqrt((link.seconds + kWaitForCore) * static_cast<double>(total_bytes) * link.bytes_per_second);
  return static_cast<std::size_t>(std::clamp(best, kLeast, kMost));
}

}  // namespace trireme
