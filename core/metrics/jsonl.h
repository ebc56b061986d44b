// The metrics file: one JSON object a line, whole lines at a time, a step never twice.
#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/metrics/file_writer.h"

namespace trireme {

/// One line of metrics: keys and values in the order in which they were set. INTERFACE names the keys.
class Record {
 public:
  using Value = std::variant<double, std::int64_t, std::string>;
  using Field = std::pair<std::string, Value>;

  /// Adds the key, or gives it a new value where it stands.
  Record& set(std::string_view key, double value) { return put(key, Value(value)); }
  Record& set(std::string_view key, std::string_view value) { return put(key, Value(std::string(value))); }
  Record& set(std::string_view key, const char* value) { return set(key, std::string_view(value)); }
  template <std::integral Integer>
  Record& set(std::string_view key, Integer value) {
    return put(key, Value(static_cast<std::int64_t>(value)));
  }

  const std::vector<Field>& fields() const { return fields_; }
  const Value* find(std::string_view key) const;
  /// The value as a number; nothing when the key is missing or holds text.
  std::optional<double> number(std::string_view key) const;
  /// The finished steps that this line is about: its integer "step"; nothing when it has none.
  std::optional<std::int64_t> step() const;

  /// One line without the line feed. Numbers read back to the same bits; infinities and NaN become null,
  /// bytes that are not UTF-8 become U+FFFD.
  std::string to_json() const;
  /// The reverse; nothing unless `line` is one JSON object of numbers, nulls (read as NaN) and strings.
  static std::optional<Record> from_json(std::string_view line);

 private:
  Record& put(std::string_view key, Value value);

  std::vector<Field> fields_;
};

/// Calls `visit` with each line of a metrics file, in order. A last line without a line feed that does not
/// parse is what a killed run leaves, and is left out. Any other line that does not parse, has no integer
/// "step", or whose step does not follow the one before is an Error(kData) that names file and line.
void read_metrics(const std::filesystem::path& path, const std::function<void(const Record&)>& visit);

/// Appends records to a metrics file. One thread at a time; one writer per file. Failures to write are
/// Error(kUsage), and leave whole lines only.
class JsonlWriter {
 public:
  /// Begins a file for a new run. Error(kUsage) if a file of this name holds anything already, which stays as
  /// it is, or if another writer has it open.
  explicit JsonlWriter(std::filesystem::path path);
  /// Opens the file of a run that goes on after `resume_step` finished steps. It keeps the lines whose step
  /// is at most `resume_step` and cuts off the rest: steps that a killed run made after its last checkpoint,
  /// and an incomplete last line. The cut is one ftruncate to the end of a line, so a kill at any moment
  /// leaves a sound file. Lines before the cut are checked as by read_metrics. A missing file is begun; pipes
  /// and terminals are simply written to. Error(kUsage) if another writer has the file open.
  JsonlWriter(std::filesystem::path path, std::int64_t resume_step);

  /// Appends one line with one write(2). The record's step must be greater than that of the line before:
  /// what a step measured and what was evaluated after it go into one record.
  void write(const Record& record);
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  FileWriter file_;
  std::int64_t last_step_;
};

}  // namespace trireme
