// TensorBoard event files, written without TensorFlow or protobuf.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/metrics/file_writer.h"
#include "core/metrics/jsonl.h"

namespace trireme {

/// One number under a name.
struct TaggedScalar {
  std::string_view tag;
  double value;  ///< kept as float32, which is what the format has
};

/// Writes DIR/events.out.tfevents.<unix time>.<host>.<pid>; TensorBoard shows all such files of a folder as
/// one run. Events reach the file as whole records, at most every 2 s and on flush() or destruction.
/// One thread at a time. Failures to write are Error(kUsage).
class TensorBoardWriter {
 public:
  /// Unix time in seconds.
  using WallTime = std::chrono::duration<double>;

  /// `resume_step`: the run goes on after that many finished steps. TensorBoard then forgets what earlier
  /// files say about later steps, which a killed run did after its last checkpoint.
  explicit TensorBoardWriter(const std::filesystem::path& directory,
                             std::optional<std::int64_t> resume_step = std::nullopt);
  /// Flushes; a failure is lost, so call flush() first where it matters.
  ~TensorBoardWriter();
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  TensorBoardWriter& operator=(const TensorBoardWriter&) = delete;

  /// One event with all of a step's scalars.
  void add(std::int64_t step, std::span<const TaggedScalar> scalars, WallTime when = now());
  /// The numbers of one line of metrics, in groups: "eval_loss" becomes "eval/loss", "step_ms"
  /// "time/step_ms", and the others "train/...". Text, nulls, and the step itself are left out.
  void add(const Record& record, WallTime when = now());
  void flush();

  const std::filesystem::path& path() const { return file_.path(); }
  static WallTime now() { return std::chrono::system_clock::now().time_since_epoch(); }

 private:
  void append_event(std::string_view event);

  FileWriter file_;
  std::string pending_;  ///< framed records that the file does not have yet
  std::chrono::steady_clock::time_point last_flush_;
};

}  // namespace trireme
