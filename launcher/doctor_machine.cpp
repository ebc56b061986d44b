// Checks of the machine itself: processor, memory, network, clock, disk.
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include "core/base/compiler.h"
#include "kernels/error.h"
#include "kernels/table.h"
#include "launcher/doctor.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kMiB = 1 << 20;
constexpr double kGiB = 1 << 30;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Returns a file's text without trailing newlines, or "" if the file cannot be read.
std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

/// Returns the value of `key` in a file of "key : value" lines, or "" if there is none.
std::string field_of(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (!line.starts_with(key) || colon == std::string::npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

Finding look_at_build() {
  Finding found;
  const std::string type = *TRIREME_BUILD_TYPE ? TRIREME_BUILD_TYPE : "no build type";
  found.value = fmt::format("trireme {}, {}, {}", TRIREME_VERSION, type, compiler_name());
  if (type != "Release" && type != "RelWithDebInfo") {
    found.mark = Mark::kWarn;
    found.advice = "kernels are slow in this build: configure with -DCMAKE_BUILD_TYPE=Release";
  }
  return found;
}

/// Returns how many processors a container's quota allows, or 0 if there is no quota.
double quota_in_cores() {
  std::istringstream quota(text_of("/sys/fs/cgroup/cpu.max"));
  double used = 0, period = 0;
  return quota >> used >> period && period > 0 ? used / period : 0;
}

Finding look_at_processor() {
  Finding found;
  cpu_set_t cores;
  const int count = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
  const double quota = quota_in_cores();
  const std::string model = field_of("/proc/cpuinfo", "model name");
  found.value =
      fmt::format("{}, {} core{}", model.empty() ? "processor" : model, count, count == 1 ? "" : "s");
  found.figures = {{"cores", count}};
  if (quota > 0 && quota < count) {
    found.mark = Mark::kWarn;
    found.value += fmt::format(" (quota: {:.1f})", quota);
    found.advice = "a container's quota allows less than its cores: give --threads to match it";
    found.figures["quota_cores"] = quota;
  }
#if defined(__x86_64__)
  const bool wide = __builtin_cpu_supports("avx512f");
  found.value += wide ? ", AVX-512" : __builtin_cpu_supports("avx2") ? ", AVX2" : "";
#endif
  try {
    check_cpu();
  } catch (const Error& error) {
    found.mark = Mark::kFail;
    found.advice = error.what();
  }
  return found;
}

double meminfo_bytes(const std::string& key) {
  std::istringstream text(field_of("/proc/meminfo", key));
  double kilobytes = 0;
  return text >> kilobytes ? kilobytes * 1024 : 0;
}

Finding look_at_memory() {
  Finding found;
  double available = meminfo_bytes("MemAvailable");
  found.value =
      fmt::format("{:.1f} GiB, {:.1f} GiB free", meminfo_bytes("MemTotal") / kGiB, available / kGiB);
  std::istringstream limit(text_of("/sys/fs/cgroup/memory.max"));
  double most = 0;
  if (limit >> most && most < meminfo_bytes("MemTotal")) {
    const double used = std::strtod(text_of("/sys/fs/cgroup/memory.current").c_str(), nullptr);
    available = std::min(available, most - used);
    found.value += fmt::format(", limited to {:.1f} GiB here", most / kGiB);
  }
  found.figures = {{"available_bytes", available}};
  if (available < 2 * kGiB) {
    found.mark = available < kGiB / 2 ? Mark::kFail : Mark::kWarn;
    found.advice = "less than 2 GiB are free: end other programs, or use fewer ranks";
  }
  return found;
}

Finding look_at_huge_pages() {
  const std::string setting = text_of("/sys/kernel/mm/transparent_hugepage/enabled");
  if (setting.empty()) return {Mark::kNone, "this kernel has no transparent huge pages", "", {}};
  const size_t open = setting.find('['), close = setting.find(']');
  const std::string chosen = open < close ? setting.substr(open + 1, close - open - 1) : setting;
  if (chosen == "never") {
    return {Mark::kWarn,
            "never",
            "large tensors get faster with: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
            {}};
  }
  return {Mark::kOk, chosen, "", {}};
}

Finding look_at_shared_memory() {
  struct statvfs info {};
  if (statvfs("/dev/shm", &info) != 0 || access("/dev/shm", W_OK) != 0) {
    return {Mark::kFail,
            fmt::format("/dev/shm cannot be used: {}", std::strerror(errno)),
            "ranks of one host talk through it: mount a tmpfs there",
            {}};
  }
  const double free_bytes = static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize);
  Finding found{Mark::kOk,
                fmt::format("/dev/shm, {:.1f} GiB free", free_bytes / kGiB),
                "",
                {{"free_bytes", free_bytes}}};
  if (free_bytes < kGiB / 4) {
    found.mark = free_bytes < 16 * kMiB ? Mark::kFail : Mark::kWarn;
    found.value = fmt::format("/dev/shm, {:.0f} MiB free", free_bytes / kMiB);
    found.advice = "ranks of one host talk through it: in a container give --shm-size=1g";
  }
  return found;
}

Finding look_at_gpu() {
  const std::string driver = text_of("/proc/driver/nvidia/version");
  if (driver.empty()) return {Mark::kNone, "no NVIDIA driver: training runs on CPUs", "", {}};
  int count = 0;
  while (access(fmt::format("/dev/nvidia{}", count).c_str(), F_OK) == 0) ++count;
  Finding found{
      Mark::kOk,
      fmt::format("{} GPU{}, {}", count, count == 1 ? "" : "s", driver.substr(0, driver.find('\n'))),
      "",
      {{"gpus", count}}};
  if (count == 0) {
    found.mark = Mark::kWarn;
    found.advice = "a driver but no device: in a container give --gpus all";
  }
  return found;
}

Finding look_at_network() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0)
    return {Mark::kWarn, std::strerror(errno), "the interfaces cannot be listed", {}};
  std::set<std::string> names;
  for (const ifaddrs* entry = list; entry; entry = entry->ifa_next) {
    const bool up = (entry->ifa_flags & IFF_UP) && (entry->ifa_flags & IFF_RUNNING);
    if (up && !(entry->ifa_flags & IFF_LOOPBACK) && entry->ifa_addr &&
        entry->ifa_addr->sa_family != AF_PACKET) {
      names.insert(entry->ifa_name);
    }
  }
  freeifaddrs(list);
  if (names.empty()) return {Mark::kNone, "only the loopback: ranks can be on this host only", "", {}};
  std::string text;
  for (const std::string& name : names) {
    const long speed = std::strtol(text_of("/sys/class/net/" + name + "/speed").c_str(), nullptr, 10);
    const std::string rate = speed > 0 ? fmt::format(" {:g} Gbit/s", static_cast<double>(speed) / 1000) : "";
    text += fmt::format("{}{}{} MTU {}", text.empty() ? "" : ", ", name, rate,
                        text_of("/sys/class/net/" + name + "/mtu"));
  }
  return {Mark::kOk, text, "", {{"interfaces", static_cast<double>(names.size())}}};
}

/// Returns by how many milliseconds the wall clock gained on the steady clock within 200 ms.
double wall_clock_slip_ms() {
  const auto steady = Clock::now();
  const auto wall = std::chrono::system_clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const auto slip = (std::chrono::system_clock::now() - wall) - (Clock::now() - steady);
  return std::chrono::duration<double, std::milli>(slip).count();
}

Finding look_at_clock() {
  constexpr int kReadings = 200000;
  const auto begin = Clock::now();
  for (int i = 0; i < kReadings; ++i) Clock::now();
  const double cost_ns = seconds_since(begin) / kReadings * 1e9;
  const double slip_ms = wall_clock_slip_ms();
  timex state{};
  const bool synchronised = adjtimex(&state) != TIME_ERROR && !(state.status & STA_UNSYNC);
  Finding found;
  found.value = fmt::format("{}, {:.0f} ns a reading, {}",
                            text_of("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
                            cost_ns, synchronised ? "synchronised" : "not synchronised");
  found.figures = {{"reading_ns", cost_ns}, {"slip_ms", slip_ms}, {"synchronised", synchronised ? 1 : 0}};
  if (!synchronised) {
    found.mark = Mark::kWarn;
    found.advice = "times in the logs of several hosts will not match: run chrony or systemd-timesyncd";
  }
  if (cost_ns > 1000) {
    found.mark = Mark::kWarn;
    found.advice = "reading the clock is slow, so timings cost time: choose the tsc clock source";
  }
  if (std::abs(slip_ms) > 5) {
    found.mark = Mark::kWarn;
    found.advice = fmt::format("the wall clock jumped by {:.0f} ms in 200 ms: check what sets it", slip_ms);
  }
  return found;
}

/// Writes and syncs up to 64 MiB in `folder`, for at most two seconds. Returns the rate in bytes per second.
double write_rate(const std::string& folder) {
  std::string path = folder + "/.trireme-doctor-XXXXXX";
  const int fd = mkstemp(path.data());
  if (fd < 0) fail(ExitCode::kUsage, "cannot write in {}: {}", folder, std::strerror(errno));
  unlink(path.c_str());
  const std::vector<char> block(4 << 20, 'x');
  double written = 0;
  const auto begin = Clock::now();
  while (written < 64 * kMiB && seconds_since(begin) < 2) {
    if (write(fd, block.data(), block.size()) != static_cast<ssize_t>(block.size()) || fsync(fd) != 0) {
      const int error = errno;
      close(fd);
      fail(ExitCode::kUsage, "cannot write {:.0f} MiB in {}: {}", (written + 4 * kMiB) / kMiB, folder,
           std::strerror(error));
    }
    written += static_cast<double>(block.size());
  }
  const double rate = written / seconds_since(begin);
  close(fd);
  return rate;
}

Finding look_at_disk() {
  char* current = getcwd(nullptr, 0);
  const std::string folder = current ? current : ".";
  free(current);
  const double rate = write_rate(folder);
  Finding found{Mark::kOk,
                fmt::format("{:.0f} MiB/s written and synced in {}", rate / kMiB, folder),
                "",
                {{"bytes_per_s", rate}}};
  if (rate < 50 * kMiB) {
    found.mark = Mark::kWarn;
    found.advice = "checkpoints will be slow here: give --checkpoint-dir on a faster disk";
  }
  return found;
}

constexpr std::array kChecks = {
    Check{"build", 2, look_at_build},
    Check{"processor", 2, look_at_processor},
    Check{"memory", 2, look_at_memory},
    Check{"huge pages", 2, look_at_huge_pages},
    Check{"shared memory", 2, look_at_shared_memory},
    Check{"GPU", 4, look_at_gpu},
    Check{"network", 2, look_at_network},
    Check{"clock", 3, look_at_clock},
    Check{"disk", 8, look_at_disk},
};

}  // namespace

std::span<const Check> machine_checks() { return kChecks; }

}  // namespace trireme
