// The steps of a traced run, rank by rank: what `--trace DIR` of a training program wrote.
#pragma once

#include <filesystem>
#include <vector>

#include "core/metrics/trace.h"

namespace trireme {

/// A step of one rank. Times are microseconds on an axis that all ranks share.
struct TracedStep {
  int step = 0;  ///< finished steps, this one included
  double begin_us = 0, end_us = 0;
  std::vector<TraceSpan> spans;  ///< that were under way in it, by their beginning
};
using TracedRank = std::vector<TracedStep>;

/// DIR/trace-rank-N.json, in the order of ranks; of DIR/trace if there are none in DIR. May be empty.
std::vector<std::filesystem::path> trace_files(const std::filesystem::path& directory);

/// By rank. Error(kUsage) when the folder holds no trace, Error(kData) when a trace is damaged or has no
/// step.
std::vector<TracedRank> read_traced_steps(const std::filesystem::path& directory);

/// When a call of a communicator was enqueued: before that, backward had not made what it sums.
double enqueued_us(const TraceSpan& call);
/// A sum over ranks: of gradients, or of the step's loss.
bool is_sum(const TraceSpan& span);

}  // namespace trireme
