#include "core/metrics/jsonl.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/text_file.h"
#include "core/metrics/text.h"
#include "kernels/error.h"

namespace trireme {

namespace {

constexpr std::int64_t kNoStep = std::numeric_limits<std::int64_t>::min();

// The library writes the shortest digits that read back to the same bits, a double as a double (1.0, -0.0),
// and null for what is not finite.
std::string value_text(const Record::Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return json_quoted(*text);
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return nlohmann::json(*integer).dump();
  return nlohmann::json(std::get<double>(value)).dump();
}

/// The result of a scan of a metrics file.
struct Scan {
  std::int64_t end = 0;              ///< bytes up to the end of the last line that was visited
  std::int64_t last_step = kNoStep;  ///< its step
  bool line_feed = true;             ///< true if the file ends with a line feed
};

/// Visits lines until `visit` returns false, with the checks that read_metrics promises.
Scan scan_metrics(const std::filesystem::path& path, const std::function<bool(const Record&)>& visit) {
  // A pipe is read to its end at once, because opening it must not wait for a writer that does not come.
  std::error_code ignored;
  const bool is_pipe = std::filesystem::is_fifo(path, ignored);
  std::istringstream piped(is_pipe ? read_text(path) : "");
  std::ifstream whole;
  if (!is_pipe) whole.open(path, std::ios::binary);
  std::istream& file = is_pipe ? static_cast<std::istream&>(piped) : whole;
  if (!file) fail(ExitCode::kUsage, "cannot open metrics {} for reading", path.string());
  Scan scan;
  std::string line;
  for (std::int64_t number = 1; std::getline(file, line); ++number) {
    const bool torn = file.eof();
    const std::optional<Record> record = Record::from_json(line);
    if (!record && torn) break;
    if (!record || !record->step()) {
      fail(ExitCode::kData, "{}:{}: not a line of metrics (a JSON object with an integer \"step\"): {:.40}",
           path.string(), number, json_quoted(line));
    }
    const std::int64_t step = *record->step();
    if (step <= scan.last_step) {
      fail(ExitCode::kData, "{}:{}: step {} follows step {}; steps must increase", path.string(), number,
           step, scan.last_step);
    }
    if (!visit(*record)) break;
    scan.end += static_cast<std::int64_t>(line.size()) + (torn ? 0 : 1);
    scan.last_step = step;
    scan.line_feed = !torn;
  }
  if (file.bad()) fail(ExitCode::kUsage, "cannot read metrics {}", path.string());
  return scan;
}

}  // namespace

Record& Record::put(std::string_view key, Value value) {
  const auto at =
      std::find_if(fields_.begin(), fields_.end(), [&](const Field& f) { return f.first == key; });
  if (at == fields_.end()) {
    fields_.emplace_back(key, std::move(value));
  } else {
    at->second = std::move(value);
  }
  return *this;
}

const Record::Value* Record::find(std::string_view key) const {
  const auto at =
      std::find_if(fields_.begin(), fields_.end(), [&](const Field& f) { return f.first == key; });
  return at == fields_.end() ? nullptr : &at->second;
}

std::optional<double> Record::number(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<double>(value)) return *number;
  if (const auto* integer = std::get_if<std::int64_t>(value)) return static_cast<double>(*integer);
  return std::nullopt;
}

std::optional<std::int64_t> Record::step() const {
  const Value* value = find("step");
  const auto* step = value != nullptr ? std::get_if<std::int64_t>(value) : nullptr;
  return step != nullptr ? std::optional(*step) : std::nullopt;
}

std::string Record::to_json() const {
  std::string line = "{";
  for (const auto& [key, value] : fields_) {
    if (line.size() > 1) line += ", ";
    line += json_quoted(key) + ": " + value_text(value);
  }
  return line + "}";
}

std::optional<Record> Record::from_json(std::string_view line) {
  const auto object = nlohmann::ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return std::nullopt;
  Record record;
  for (const auto& [key, value] : object.items()) {
    if (value.is_number_integer()) {
      record.set(key, value.get<std::int64_t>());
    } else if (value.is_number()) {
      record.set(key, value.get<double>());
    } else if (value.is_null()) {
      record.set(key, std::numeric_limits<double>::quiet_NaN());
    } else if (value.is_string()) {
      record.set(key, value.get_ref<const std::string&>());
    } else {
      return std::nullopt;
    }
  }
  return record;
}

void read_metrics(const std::filesystem::path& path, const std::function<void(const Record&)>& visit) {
  scan_metrics(path, [&](const Record& record) {
    visit(record);
    return true;
  });
}

JsonlWriter::JsonlWriter(std::filesystem::path path)
    : file_(std::move(path), FileWriter::Mode::kAppend), last_step_(kNoStep) {
  file_.lock();
  if (const std::int64_t size = file_.size(); size > 0)
    fail(ExitCode::kUsage,
         "{} is not empty ({} bytes), and only a resumed run may append to it: choose another name, or "
         "remove the "
         "file first",
         file_.path().string(), size);
}

JsonlWriter::JsonlWriter(std::filesystem::path path, std::int64_t resume_step)
    : file_(std::move(path), FileWriter::Mode::kAppend), last_step_(resume_step) {
  file_.lock();
  if (!std::filesystem::is_regular_file(file_.path())) return;
  const Scan kept = scan_metrics(file_.path(), [&](const Record& r) { return *r.step() <= resume_step; });
  if (std::filesystem::file_size(file_.path()) > static_cast<std::uintmax_t>(kept.end)) {
    file_.truncate(kept.end);
    file_.sync();
  }
  if (!kept.line_feed) file_.write("\n");
}

void JsonlWriter::write(const Record& record) {
  const std::optional<std::int64_t> step = record.step();
  TRIREME_CHECK(step, "a line of metrics needs an integer \"step\": {}", record.to_json());
  TRIREME_CHECK(*step > last_step_, "metrics {}: step {} is written after step {}; steps must increase",
                path().string(), *step, last_step_);
  file_.write(record.to_json() + "\n");
  last_step_ = *step;
}

}  // namespace trireme
