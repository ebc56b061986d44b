#include "distributed/train/memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "distributed/rendezvous/world.h"

namespace trireme {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

/// The first number of a file; `otherwise` if there is none ("max").
std::int64_t number_in(const fs::path& path, std::int64_t otherwise) {
  std::ifstream file(path);
  std::int64_t number = 0;
  return file >> number ? number : otherwise;
}

/// The number behind a name in a file of names and numbers; 0 if it is not there.
std::int64_t number_of(const fs::path& path, const std::string& wanted) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    std::int64_t number = 0;
    if (words >> name >> number && name == wanted) return number;
  }
  return 0;
}

/// Returns the bytes that a control group may still use. Cached files count as free, because the kernel can
/// drop them. Returns kNoLimit if the group has no limit.
std::int64_t left_in_group(const fs::path& folder, const char* limit, const char* used) {
  const std::int64_t most = number_in(folder / limit, kNoLimit);
  if (most == kNoLimit) return kNoLimit;
  const std::int64_t cached =
      number_of(folder / "memory.stat", "inactive_file") + number_of(folder / "memory.stat", "active_file");
  return most - number_in(folder / used, 0) + cached;
}

/// The least that this process's control groups leave, each of which lies within the one above.
std::int64_t left_in_groups() {
  std::int64_t left = kNoLimit;
  std::ifstream groups("/proc/self/cgroup");  // "4:memory:/a/b" of version 1, "0::/a/b" of version 2
  for (std::string line; std::getline(groups, line);) {
    const std::size_t second = line.find(':', line.find(':') + 1);
    const bool old = line.find(":memory:") != line.npos;
    if (second == line.npos || (!old && !line.starts_with("0::"))) continue;
    const fs::path root = old ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup";
    for (fs::path below = fs::path(line.substr(second + 1)).relative_path();; below = below.parent_path()) {
      left =
          std::min(left, old ? left_in_group(root / below, "memory.limit_in_bytes", "memory.usage_in_bytes")
                             : left_in_group(root / below, "memory.max", "memory.current"));
      if (below.empty()) break;
    }
  }
  return left;
}

std::int64_t pages_of_this_process(int field) {
  std::ifstream file("/proc/self/statm");  // all, resident, ...
  std::int64_t pages = 0;
  for (int i = 0; i <= field; ++i) file >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

std::string gigabytes(double bytes) { return fmt::format("{:.1f} GB", bytes / 1e9); }

/// Bytes of one parameter with its gradient and what the optimizer remembers of it, all float32.
int bytes_per_parameter(const JobOptions& o) {
  return 4 + 4 + (o.optimizer() == "adamw" || o.optimizer() == "lamb" ? 8 : o.momentum() > 0 ? 4 : 0);
}

}  // namespace

std::int64_t available_memory() {
  const std::int64_t machine = number_of("/proc/meminfo", "MemAvailable:") * 1024;
  std::int64_t left = std::min(machine > 0 ? machine : kNoLimit, left_in_groups());
  rlimit space{};
  if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur < static_cast<rlim_t>(kNoLimit))
    left = std::min(left, static_cast<std::int64_t>(space.rlim_cur) - pages_of_this_process(0));
  return std::max<std::int64_t>(0, left);
}

void check_model_fits(const JobOptions& options, double parameters) {
  const World world = detect_world(process_environment());
  const int ranks = world.source == Source::kThreads ? world.size : world.local_size;
  const double needed = parameters * bytes_per_parameter(options) * ranks;
  const auto available = static_cast<double>(available_memory());
  if (needed <= available) return;
  fail(ExitCode::kUsage,
       "--model '{}': {:.0f} parameters with gradients and the state of {} need {} on {} rank{} of this "
       "machine, which has {} left; use a smaller model or a machine with more memory",
       options.model(), parameters, options.optimizer(), gigabytes(needed), ranks, ranks == 1 ? "" : "s",
       gigabytes(available));
}

std::string out_of_memory_text() {
  return fmt::format(
      "out of memory: this process has {} and may take {} more; use a smaller --model or --global-batch, "
      "more --shards, or a machine with more memory",
      gigabytes(static_cast<double>(pages_of_this_process(1))),
      gigabytes(static_cast<double>(available_memory())));
}

}  // namespace trireme
