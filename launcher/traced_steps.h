// Reads the traces that a training program wrote with `--trace DIR`, and divides them into steps.
#pragma once

#include <filesystem>
#include <vector>

#include "core/metrics/trace.h"

namespace trireme {

/// One step of one rank. Times are microseconds on a clock that all ranks share.
struct TracedStep {
  int step = 0;  ///< number of finished steps, including this one
  double begin_us = 0, end_us = 0;
  std::vector<TraceSpan> spans;  ///< spans that were enqueued and began in this step, in order of begin_us
};
using TracedRank = std::vector<TracedStep>;

/// Returns the paths of DIR/trace-rank-N.json in the order of ranks, or of DIR/trace/trace-rank-N.json if DIR
/// has none. The result may be empty. Throws Error(kData) if the file of a rank is missing among others.
std::vector<std::filesystem::path> trace_files(const std::filesystem::path& directory);

/// Returns the steps of each rank. Throws Error(kUsage) if the folder contains no trace, and Error(kData) if
/// a trace is damaged or has no step.
std::vector<TracedRank> read_traced_steps(const std::filesystem::path& directory);

/// Returns the time at which a collective was enqueued, which is when its input was ready.
double enqueued_us(const TraceSpan& call);
/// Returns true if the span is a sum over ranks, of gradients or of the step's loss.
bool is_sum(const TraceSpan& span);

}  // namespace trireme
