#include <fstream>
#include <nlohmann/json.hpp>

#include "core/metrics/file_writer.h"
#include "core/metrics/trace.h"
#include "kernels/error.h"

namespace trireme {

namespace {

using Json = nlohmann::ordered_json;

/// Which steady clock a rank's times are of, and how far the system clock is ahead of it.
struct Clock {
  std::string id;
  std::int64_t system_minus_steady_ns = 0;
};

/// Reads one rank's file line by line: a header, one event per line, a closing line.
class RankFile {
 public:
  explicit RankFile(const std::filesystem::path& path) : path_(path) {
    // Opening a pipe would wait for its writer without an end.
    if (std::filesystem::is_regular_file(path)) file_.open(path);
    if (!file_.is_open()) fail(ExitCode::kUsage, "cannot open trace {} for reading", path.string());
    std::string header;
    next(header);
    const Json json = Json::parse(header + "]}", nullptr, /*allow_exceptions=*/false);
    try {
      const Json& about = json.at("otherData");
      clock_ = {about.at("steady_clock").get<std::string>(),
                about.at("system_minus_steady_ns").get<std::int64_t>()};
    } catch (const Json::exception&) {
      fail_line("not the head of a rank's trace");
    }
  }

  const Clock& clock() const { return clock_; }

  [[noreturn]] void fail_line(std::string_view what) const {
    fail(ExitCode::kData, "{}:{}: {}; write the traces again", path_.string(), line_, what);
  }
  /// The next event; false at the end.
  bool next_event(Json& event) {
    std::string line;
    next(line);
    if (line == "]}") return false;
    if (line.ends_with(',')) line.pop_back();
    event = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!event.is_object()) fail_line("not an event");
    return true;
  }

 private:
  void next(std::string& line) {
    ++line_;
    if (!std::getline(file_, line)) fail_line("the file ends early");
  }

  std::filesystem::path path_;
  std::ifstream file_;
  std::int64_t line_ = 0;
  Clock clock_;
};

/// Returns the number that converts a rank's times to the reference's steady clock when it is added to them.
std::int64_t shift_ns(const Clock& clock, const Clock& reference) {
  if (clock.id == reference.id) return 0;
  return clock.system_minus_steady_ns - reference.system_minus_steady_ns;
}

TraceSpan span_of(const RankFile& file, const Json& event, double shift_us) {
  TraceSpan span;
  try {
    span.name = event.at("name").get<std::string>();
    span.category = event.at("cat").get<std::string>();
    span.track = event.at("tid").get<int>();
    span.begin_us = event.at("ts").get<double>() + shift_us;
    span.end_us = span.begin_us + event.at("dur").get<double>();
    if (const auto args = event.find("args"); args != event.end())
      for (const auto& [name, value] : args->items()) span.args[name] = value.get<double>();
  } catch (const Json::exception&) {
    file.fail_line("not a span");
  }
  return span;
}

}  // namespace

void read_traces(std::span<const std::filesystem::path> files,
                 const std::function<void(std::size_t, const TraceSpan&)>& visit) {
  TRIREME_CHECK(!files.empty(), "no trace files to read");
  const Clock reference = RankFile(files.front()).clock();
  for (std::size_t i = 0; i < files.size(); ++i) {
    RankFile file(files[i]);
    const double shift_us = static_cast<double>(shift_ns(file.clock(), reference)) / 1000;
    for (Json event; file.next_event(event);)
      if (event.value("ph", "") == "X") visit(i, span_of(file, event, shift_us));
  }
}

void merge_traces(std::span<const std::filesystem::path> files, const std::filesystem::path& merged) {
  TRIREME_CHECK(!files.empty(), "no trace files to merge into {}", merged.string());
  const Clock reference = RankFile(files.front()).clock();
  FileWriter out(merged.string() + ".tmp", FileWriter::Mode::kDraft);
  std::string text = R"({"displayTimeUnit":"ms","traceEvents":[)";
  const char* separator = "\n";
  for (const std::filesystem::path& path : files) {
    RankFile file(path);
    const double shift_us = static_cast<double>(shift_ns(file.clock(), reference)) / 1000;
    for (Json event; file.next_event(event); separator = ",\n") {
      if (auto ts = event.find("ts"); ts != event.end() && ts->is_number())
        *ts = ts->get<double>() + shift_us;
      text += separator + event.dump();
      if (text.size() > 1 << 20) {
        out.write(text);
        text.clear();
      }
    }
  }
  out.write(text + "\n]}\n");
  out.rename(merged);
}

}  // namespace trireme
