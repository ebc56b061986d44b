// What a run tells: progress on the terminal, metrics, TensorBoard, the picture of the curves. Rank 0 has
// one.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/metrics/jsonl.h"
#include "core/metrics/meter.h"
#include "core/metrics/progress.h"
#include "core/metrics/tensorboard.h"
#include "distributed/train/digest.h"
#include "distributed/train/job.pb.h"
#include "distributed/train/output_files.h"

namespace trireme {

/// The paths of a job's outputs. They lie in --out's folder unless a flag names another place. An output with
/// an empty path is not written.
struct OutputPaths {
  explicit OutputPaths(const JobOptions& options);
  std::filesystem::path folder;  ///< for the program's own files; empty without --out and in a replay
  std::filesystem::path metrics, tensorboard, checkpoints, curves;
};

/// The measurements of one step. Times are in milliseconds.
struct StepReport {
  std::int64_t step = 0;  ///< finished steps, this one included
  std::int64_t steps = 0;
  std::int64_t epoch = 0;  ///< counted from 0; shown and written from 1
  std::int64_t epochs = 0;
  std::int64_t samples = 0;
  double loss = 0, lr = 0, accuracy = Progress::kUnknown;
  double step_ms = 0, forward_ms = 0, backward_ms = 0, comm_ms = 0, comm_exposed_ms = 0, optimizer_ms = 0,
         data_wait_ms = 0;
  int world_size = 1, shards = 1;
  bool ends_epoch = false;
  Record extra;  ///< eval_*, digest: what the program adds
};

class Reporter {
 public:
  /// Touches no file.
  explicit Reporter(const JobOptions& options);
  /// Opens the files that steps are written to, and claims the picture of the curves and the traces.
  /// `resume_step` is the number of finished steps of the run that this one continues; lines of later steps
  /// are cut off. `unit` is what a sample is called. Throws Error(kUsage) if an output cannot be written or
  /// claimed; then it leaves no file that it has made.
  void open(std::optional<std::int64_t> resume_step, const std::string& unit);
  /// Makes sure that this run may replace `output`. A run that resumes may. Any other run throws
  /// Error(kUsage) if the file is not empty. After a restart by a launcher or Slurm the file is from an
  /// earlier attempt; then it is renamed, and a line says so.
  void claim(const Output& output, bool resumes);
  void step(const StepReport& report);
  /// A line of --digest-trail: after `step`, the digest of all and of each tensor.
  void digests(std::int64_t step, const std::string& all, const TensorDigests& tensors);
  /// A line of its own on standard output, also when quiet.
  void say(const std::string& line);
  /// A line that --quiet drops.
  void note(const std::string& line);
  /// A line of its own on standard error, also when quiet.
  void warn(const std::string& line);
  /// Draws the curves, if a picture is asked for; returns its path or nothing. A failure is only said.
  std::filesystem::path draw_curves();
  const OutputPaths& paths() const { return paths_; }
  /// Samples of all steps of this run over the time in them (without evaluating and saving); NaN before the
  /// first.
  double samples_per_second() const { return samples_ / seconds_; }

 private:
  /// Renames a file of an attempt before a restart, if this run was restarted.
  void set_aside_after_restart(const std::filesystem::path& file);
  void open_lines(const char* flag, const std::filesystem::path& path,
                  std::optional<std::int64_t> resume_step, std::optional<JsonlWriter>& lines);
  void show(const StepReport& report);

  const bool quiet_, is_replay_;
  const OutputPaths paths_;
  const char* const metrics_flag_;  // that named the path, for errors
  const char* const checkpoints_flag_;
  const char* const tensorboard_flag_;
  const std::string title_;
  std::string unit_;
  const std::filesystem::path trail_path_, trace_folder_;
  std::optional<JsonlWriter> metrics_, trail_;
  std::optional<TensorBoardWriter> tensorboard_;
  std::optional<ProgressLine> progress_;
  Throughput throughput_;             // of late, for the progress line
  double samples_ = 0, seconds_ = 0;  // of the whole run
  WindowedMean loss_{20}, accuracy_{20}, hidden_{50};
};

}  // namespace trireme
