#include "core/metrics/trace.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>

#include "core/metrics/file_writer.h"
#include "core/metrics/text.h"
#include "kernels/error.h"

namespace trireme {

namespace {

// Per shard, so that a trace left on for days ends up with a bounded size: about 40 MB of memory each.
constexpr std::size_t kMaxEventsPerShard = 1 << 19;

unsigned thread_number() {
  static std::atomic<unsigned> next{0};
  thread_local const unsigned number = next++;
  return number;
}

/// How far the system clock is ahead of the steady clock. The reading that took the shortest time is the
/// best.
std::int64_t system_minus_steady_ns() {
  std::int64_t best = 0;
  std::int64_t shortest = std::numeric_limits<std::int64_t>::max();
  for (int i = 0; i < 8; ++i) {
    const std::int64_t before = Trace::now_ns();
    const std::int64_t system =
        std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count();
    const std::int64_t after = Trace::now_ns();
    if (after - before < shortest) {
      shortest = after - before;
      best = system - before - (after - before) / 2;
    }
  }
  return best;
}

/// Names the steady clock that this process reads: it is one per boot of a host.
std::string steady_clock_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  if (file >> id) return id;
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  return host;
}

/// Microseconds, the unit of the format.
std::string microseconds(std::int64_t ns) {
  const std::int64_t magnitude = ns < 0 ? -ns : ns;
  return fmt::format("{}{}.{:03}", ns < 0 ? "-" : "", magnitude / 1000, magnitude % 1000);
}

std::string name_event(int rank, int track, std::string_view kind, std::string_view name) {
  return fmt::format(R"({{"ph":"M","pid":{},"tid":{},"name":"{}","args":{{"name":{}}}}})", rank, track, kind,
                     json_quoted(name));
}

std::string order_event(int rank, int track, std::string_view kind, int index) {
  return fmt::format(R"({{"ph":"M","pid":{},"tid":{},"name":"{}","args":{{"sort_index":{}}}}})", rank, track,
                     kind, index);
}

}  // namespace

Trace::Trace(const std::filesystem::path& directory, int rank)
    : path_(file_path(directory, rank)), rank_(rank) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) fail(ExitCode::kUsage, "cannot make trace folder {}: {}", directory.string(), error.message());
  enabled_ = true;
}

Trace::~Trace() {
  try {
    close();
  } catch (const Error&) {
    // A destructor has nobody to tell.
  }
}

std::filesystem::path Trace::file_path(const std::filesystem::path& directory, int rank) {
  return directory / fmt::format("trace-rank-{}.json", rank);
}

Trace::Track Trace::track(std::string_view name) {
  std::lock_guard lock(tracks_mutex_);
  const auto at = std::find(tracks_.begin(), tracks_.end(), name);
  const Track index = static_cast<Track>(at - tracks_.begin());
  if (at == tracks_.end()) tracks_.emplace_back(name);
  return index;
}

void Trace::span(std::string_view name, std::string_view category, std::int64_t begin_ns, std::int64_t end_ns,
                 Track track, std::initializer_list<Arg> args) {
  if (!enabled()) return;
  std::string text;
  for (const Arg& arg : args)
    text += fmt::format(R"({}"{}":{})", text.empty() ? "" : ",", arg.name, arg.value);
  record(name, category, text, {begin_ns, std::max<std::int64_t>(end_ns - begin_ns, 0), 0, 0, 0, track});
}

void Trace::record(std::string_view name, std::string_view category, std::string_view args,
                   const Event& event) {
  Shard& shard = shards_[thread_number() % shards_.size()];
  std::lock_guard lock(shard.mutex);
  if (shard.events.size() >= kMaxEventsPerShard) {
    ++shard.dropped;
    return;
  }
  shard.events.push_back(event);
  shard.events.back().name_size = static_cast<std::uint32_t>(name.size());
  shard.events.back().category_size = static_cast<std::uint32_t>(category.size());
  shard.events.back().args_size = static_cast<std::uint32_t>(args.size());
  shard.texts.append(name).append(category).append(args);
}

std::string Trace::header(std::int64_t dropped) const {
  std::string text = fmt::format(
      R"({{"displayTimeUnit":"ms","otherData":{{"rank":{},"steady_clock":{},"system_minus_steady_ns":{},)"
      R"("dropped_events":{}}},"traceEvents":[)",
      rank_, json_quoted(steady_clock_id()), system_minus_steady_ns(), dropped);
  text += '\n' + name_event(rank_, 0, "process_name", fmt::format("rank {}", rank_));
  text += ",\n" + order_event(rank_, 0, "process_sort_index", rank_);
  for (std::size_t i = 0; i < tracks_.size(); ++i) {
    const int track = static_cast<int>(i);
    text += ",\n" + name_event(rank_, track, "thread_name", tracks_[i]);
    text += ",\n" + order_event(rank_, track, "thread_sort_index", track);
  }
  return text;
}

void Trace::close() {
  if (!enabled_.exchange(false) || !is_kept_) return;
  std::int64_t dropped = 0;
  for (Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    dropped += shard.dropped;
  }
  std::lock_guard tracks_lock(tracks_mutex_);
  FileWriter file(path_.string() + ".tmp", FileWriter::Mode::kDraft);
  std::string text = header(dropped);
  for (Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    std::string_view texts = shard.texts;
    for (const Event& event : shard.events) {
      text += ",\n";
      text += fmt::format(R"({{"ts":{},"dur":{},"pid":{},"tid":{},"name":{},"cat":{},"ph":"X")",
                          microseconds(event.begin_ns), microseconds(event.duration_ns), rank_, event.track,
                          json_quoted(texts.substr(0, event.name_size)),
                          json_quoted(texts.substr(event.name_size, event.category_size)));
      texts.remove_prefix(event.name_size + event.category_size);
      if (event.args_size > 0) text += fmt::format(R"(,"args":{{{}}})", texts.substr(0, event.args_size));
      texts.remove_prefix(event.args_size);
      text += '}';
      if (text.size() > 1 << 20) {
        file.write(text);
        text.clear();
      }
    }
    shard.events = {};
    shard.texts = {};
  }
  file.write(text + "\n]}\n");
  file.rename(path_);
}

}  // namespace trireme
