#include "launcher/cost_model.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/nearest.h"
#include "distributed/comm/agreement.h"
#include "kernels/error.h"

namespace trireme {

namespace {

// The bytes of a piece that each rank sums. It equals kPieceBytes of distributed/comm/host_sum.cpp.
constexpr double kPieceBytes = 512 << 10;

// Latencies and bandwidths as programs measure them; vendors state better figures. Without NVLink, `within`
// is copying through memory that the ranks of a host share.
constexpr Link kSharedMemory{.latency_s = 1e-6, .message_s = 0.2e-6, .bytes_per_s = 10e9};
constexpr Link kNvLink{.latency_s = 2e-6, .message_s = 0.5e-6, .bytes_per_s = 400e9};
constexpr Link kTenGigabit{.latency_s = 30e-6, .message_s = 5e-6, .bytes_per_s = 1.17e9};
constexpr Link kHundredGigabit{.latency_s = 10e-6, .message_s = 2e-6, .bytes_per_s = 11.5e9};
constexpr Link kInfiniBand{.latency_s = 2e-6, .message_s = 0.3e-6, .bytes_per_s = 24e9};  // HDR, 200 Gbit/s
constexpr Link kEightInfiniBand{
    .latency_s = 3e-6, .message_s = 0.3e-6, .bytes_per_s = 380e9};  // 8 NDR, 400 Gbit/s

constexpr double kMessageShare = 0.1;  // message_s / latency_s, if message_s is not given
constexpr double kFastest = 1e12;

struct Named {
  const char* name;
  Cluster cluster;
};
constexpr std::array kNamed = {
    Named{"10GbE", {.between = kTenGigabit, .within = kSharedMemory}},
    Named{"100GbE", {.between = kHundredGigabit, .within = kSharedMemory}},
    Named{"IB", {.between = kInfiniBand, .within = kSharedMemory}},
    Named{"NVLink+IB", {.ranks_per_host = 8, .between = kEightInfiniBand, .within = kNvLink}},
};

/// Parses a positive number that one of `units` follows. Returns it times the unit's factor, or nothing.
std::optional<double> quantity(std::string_view text,
                               const std::vector<std::pair<std::string_view, double>>& units) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, text.data() + text.size());
  if (error != std::errc() || !(number > 0) || !std::isfinite(number)) return std::nullopt;
  for (const auto& [name, factor] : units)
    if (unit == name) return number * factor;
  return std::nullopt;
}

std::optional<double> seconds_in(std::string_view text) {
  return quantity(text, {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}});
}

std::optional<double> rate_in(std::string_view text) {
  return quantity(text, {{"Mbit/s", 1e6 / 8}, {"Gbit/s", 1e9 / 8}, {"MB/s", 1e6}, {"GB/s", 1e9}});
}

double pipeline_seconds(double stages, double hop, double wire) {
  if (stages <= 1) return hop + wire;
  const double blocks = std::max(1.0, std::sqrt((stages - 1) * wire / std::max(hop, 1e-12)));
  return (stages - 1 + blocks) * (hop + wire / blocks);
}

double ring_seconds(double ranks, double bytes, double hop, double rate) {
  return ranks <= 1 ? 0 : 2 * (ranks - 1) * (hop + bytes / ranks / rate);
}

double tree_seconds(double bytes, const Cluster& c) {
  const double far = std::ceil(std::log2(c.hosts())), near = c.ranks_of_host() - 1;
  const double stages = far + near, hop = (far * c.between.hop() + near * c.within.hop()) / stages;
  const double rate = far == 0    ? c.within.bytes_per_s
                      : near == 0 ? c.between.bytes_per_s
                                  : std::min(c.between.bytes_per_s, c.within.bytes_per_s);
  return 2 * pipeline_seconds(stages, hop, bytes / rate);
}

double ordered_seconds(double bytes, const Cluster& c) {
  const double ranks = c.ranks, hosts = c.hosts(), here = c.ranks_of_host();
  const double inside =
      here <= 1 ? 0 : 2 * c.within.hop() + 2 * bytes * (here - 1) / here / c.within.bytes_per_s;
  if (hosts <= 1) return inside;
  if (bytes <= static_cast<double>(Frame::kRoom))  // sent as a part of the agreement's messages
    return inside + c.between.latency_s + (ranks - 1) * c.between.message_s;
  const double pieces = std::max(1.0, std::ceil(bytes / (kPieceBytes * ranks)));
  const double messages = (ranks - 1) + pieces * 2 * (hosts - 1);
  return inside + 3 * c.between.latency_s + messages * c.between.message_s +
         2 * bytes * (hosts - 1) / hosts / c.between.bytes_per_s;
}

}  // namespace

std::string_view name_of(AllReduce algorithm) {
  constexpr std::array<std::string_view, 4> kNames = {"ring", "tree", "hierarchical", "ordered"};
  return kNames[static_cast<std::size_t>(algorithm)];
}

Cluster cluster_of(const std::string& link) {
  std::vector<std::string> names;
  for (const Named& named : kNamed) {
    if (link == named.name) return named.cluster;
    names.emplace_back(named.name);
  }
  std::vector<std::string_view> parts;
  for (std::string_view left = link;;) {
    const std::size_t comma = left.find(',');
    parts.push_back(left.substr(0, comma));
    if (comma == std::string_view::npos) break;
    left.remove_prefix(comma + 1);
  }
  const bool has_message = parts.size() == 3;
  const auto latency = seconds_in(parts[0]), rate = parts.size() > 1 ? rate_in(parts[1]) : std::nullopt,
             message = has_message ? seconds_in(parts[2]) : std::optional(0.0);
  if (latency && rate && message && parts.size() <= 3)
    return {.between = {.latency_s = *latency,
                        .message_s = has_message ? *message : kMessageShare * *latency,
                        .bytes_per_s = *rate},
            .within = kSharedMemory};
  const std::string meant = nearest(link, names);
  fail(ExitCode::kUsage,
       "--link '{}': no network of that name{}; there are 10GbE, 100GbE, IB, NVLink+IB, or figures such as "
       "30us,10Gbit/s",
       link, meant.empty() ? "" : fmt::format(" (did you mean '{}'?)", meant));
}

double all_reduce_seconds(AllReduce algorithm, double bytes, const Cluster& c) {
  if (c.ranks <= 1) return 0;
  const double hosts = c.hosts(), here = c.ranks_of_host();
  switch (algorithm) {
    case AllReduce::kRing: {
      const double near = here <= 1 ? 0 : ring_seconds(c.ranks, bytes, c.within.hop(), c.within.bytes_per_s);
      const double far =
          hosts <= 1 ? 0 : ring_seconds(c.ranks, bytes, c.between.hop(), c.between.bytes_per_s);
      return std::max(near, far);
    }
    case AllReduce::kTree:
      return tree_seconds(bytes, c);
    case AllReduce::kHierarchical:
      return ring_seconds(here, bytes, c.within.hop(), c.within.bytes_per_s) +
             ring_seconds(hosts, bytes, c.between.hop(), c.between.bytes_per_s);
    case AllReduce::kOrdered:
      return ordered_seconds(bytes, c);
  }
  return 0;
}

Link fit_link(std::span<const MeasuredSum> sums, const Cluster& cluster) {
  // The cost is linear: latency * a + (1 / bandwidth) * b.
  Cluster unit = cluster;
  const auto cost = [&](const Link& between, double bytes) {
    unit.between = between;
    return all_reduce_seconds(AllReduce::kOrdered, bytes, unit);
  };
  constexpr double kInfinite = 1e300;
  double aa = 0, ab = 0, bb = 0, at = 0, bt = 0;
  for (const auto& [bytes, seconds] : sums) {
    const double inside = cost({0, 0, kInfinite}, bytes),
                 a = cost({1, kMessageShare, kInfinite}, bytes) - inside, b = cost({0, 0, 1}, bytes) - inside,
                 t = seconds - inside;
    aa += a * a, ab += a * b, bb += b * b, at += a * t, bt += b * t;
  }
  const double determinant = aa * bb - ab * ab;
  double latency = determinant > 1e-12 * aa * bb ? (at * bb - bt * ab) / determinant : 0;
  double slowness = determinant > 1e-12 * aa * bb ? (bt * aa - at * ab) / determinant : bt / bb;
  // Neither can be negative. If one is, it becomes 0 and the other is fitted alone.
  if (latency < 0) latency = 0, slowness = bt / bb;
  if (slowness <= 0) slowness = 1 / kFastest, latency = std::max(0.0, at / aa);
  return {.latency_s = latency,
          .message_s = kMessageShare * latency,
          .bytes_per_s = std::min(1 / slowness, kFastest)};
}

}  // namespace trireme
