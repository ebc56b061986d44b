// A timeline of what each rank did when, as Chrome trace-event JSON for https://ui.perfetto.dev.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

/// One rank's timeline. All calls but close() may come from any thread at once. Recording costs
/// some tens of nanoseconds; without a folder to write to it costs one branch.
class Trace {
 public:
  /// A line of the timeline. Spans of one track must nest or follow each other; the viewer cannot draw
  /// others.
  using Track = int;
  static constexpr Track kCompute = 0;
  static constexpr Track kCommunication = 1;
  static constexpr Track kData = 2;

  /// Records nothing, writes nothing.
  Trace() = default;
  /// Throws Error(kUsage) unless the folder can be made.
  Trace(const std::filesystem::path& directory, int rank);
  /// Closes; a failure to write is lost, so call close() where it matters.
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  bool enabled() const { return enabled_.load(std::memory_order_relaxed); }
  /// The track of that name, made at its first use: "data 1", ...
  Track track(std::string_view name);
  /// A number that goes with a span, shown when it is selected.
  struct Arg {
    std::string_view name;  ///< a literal
    double value;
  };
  /// Something that ran from `begin_ns` to `end_ns` (see now_ns). The texts are copied.
  void span(std::string_view name, std::string_view category, std::int64_t begin_ns, std::int64_t end_ns,
            Track track = kCompute, std::initializer_list<Arg> args = {});

  /// Writes DIR/trace-rank-N.json, whole or not at all, unless set_kept(false) was called last, and records
  /// nothing from then on. Throws Error(kUsage) if the file cannot be written. Later calls do nothing.
  void close();
  /// Decides whether close() writes the file. By default it does. Any thread may call this function.
  void set_kept(bool is_kept) { is_kept_ = is_kept; }

  /// Nanoseconds of the steady clock, which all processes of a host share.
  static std::int64_t ns(std::chrono::steady_clock::time_point time) {
    return std::chrono::nanoseconds(time.time_since_epoch()).count();
  }
  static std::int64_t now_ns() { return ns(std::chrono::steady_clock::now()); }
  static std::filesystem::path file_path(const std::filesystem::path& directory, int rank);

 private:
  struct Event {
    std::int64_t begin_ns;
    std::int64_t duration_ns;
    std::uint32_t name_size;  ///< the texts stand in Shard::texts, in the events' order
    std::uint32_t category_size, args_size;
    Track track;
  };
  /// The events of some of the threads. A thread always uses the same shard, so its lock is rarely contended.
  struct alignas(64) Shard {
    std::mutex mutex;
    std::vector<Event> events;
    std::string texts;
    std::int64_t dropped = 0;
  };

  void record(std::string_view name, std::string_view category, std::string_view args, const Event& event);
  std::string header(std::int64_t dropped) const;

  std::atomic<bool> enabled_{false}, is_kept_{true};
  std::filesystem::path path_;
  int rank_ = 0;
  std::mutex tracks_mutex_;
  std::vector<std::string> tracks_{"compute", "communication", "data"};
  std::array<Shard, 16> shards_;
};

/// Records the time from its construction to its destruction. The texts and the trace must outlive it.
class TraceScope {
 public:
  TraceScope(Trace& trace, std::string_view name, std::string_view category,
             Trace::Track track = Trace::kCompute)
      : trace_(trace),
        name_(name),
        category_(category),
        track_(track),
        begin_ns_(trace.enabled() ? Trace::now_ns() : 0) {}
  ~TraceScope() {
    if (begin_ns_ != 0) trace_.span(name_, category_, begin_ns_, Trace::now_ns(), track_);
  }
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

 private:
  Trace& trace_;
  std::string_view name_;
  std::string_view category_;
  Trace::Track track_;
  std::int64_t begin_ns_;
};

/// A span as it was read back, in microseconds.
struct TraceSpan {
  std::string name, category;
  Trace::Track track = Trace::kCompute;
  double begin_us = 0, end_us = 0;
  std::map<std::string, double> args;
};

/// Calls `visit` with each span of ranks' files and the index of its file. All times are on one axis, as
/// after merge_traces. Errors as there.
void read_traces(std::span<const std::filesystem::path> files,
                 const std::function<void(std::size_t file, const TraceSpan&)>& visit);

/// Merges what ranks wrote into one file with all ranks on one time axis: ranks of one host by the steady
/// clock that they share, hosts by their system clocks. Needs memory for one event only. Error(kData) naming
/// file and line for what Trace did not write, Error(kUsage) for what cannot be opened.
void merge_traces(std::span<const std::filesystem::path> files, const std::filesystem::path& merged);

}  // namespace trireme
