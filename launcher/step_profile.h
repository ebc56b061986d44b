// What one step of a traced run is made of, as the simulator needs it.
#pragma once

#include <string>
#include <vector>

#include "launcher/traced_steps.h"

namespace trireme {

/// Times are milliseconds since the step's beginning; each the median over steps, then the mean over ranks.
struct StepProfile {
  struct Bucket {
    std::string name;
    double bytes = 0;
    double ready_ms = 0;       ///< when backward had made it and those before it
    double seconds = 0;        ///< its sum, from when the last rank came
    double after_ms = 0;       ///< what the communication thread does before it can begin the next sum
    bool is_gradients = true;  ///< else a sum of its own, such as the loss
  };
  std::vector<Bucket> buckets;   ///< in the order in which they are summed
  double backward_begin_ms = 0;  ///< of the last shard
  double compute_ms = 0;         ///< until the end of backward
  double tail_ms = 0;            ///< after backward and all sums: the optimizer, mostly
  double start_ms = 0;    ///< from when all ranks may begin a sum to when they do: threads must wake up
  double step_ms = 0;     ///< as measured, with its communication
  double exposed_ms = 0;  ///< as measured: sums after the end of backward
  /// How long each rank (inside) computed in each step, in units of compute_ms.
  std::vector<std::vector<double>> factors;
  int ranks = 1, steps = 0;
};

/// Of the steps that are made as the last one, all but the first: buckets are planned anew after the first
/// step, and memory is made ready in the first step of a plan. Error(kData) when there is none.
///
/// Taken from a step: all of it up to the end of the last backward is computing, so a step with several
/// rounds of sums (a GAN's) counts its waits between them as such.
StepProfile profile_of(const std::vector<TracedRank>& ranks);

/// The same gradients in buckets of at most `most_bytes`, the first one of at most 1 MiB, as
/// distributed/ddp/bucket_plan.h cuts them, but also inside parameters, whose sizes a trace does not tell.
/// Within a measured bucket gradients are taken to come evenly.
std::vector<StepProfile::Bucket> cut_buckets(const StepProfile& profile, double most_bytes);

}  // namespace trireme
