// Summarizes the steps of a traced run for the simulator.
#pragma once

#include <string>
#include <vector>

#include "launcher/traced_steps.h"

namespace trireme {

/// The typical step of a traced run. Times in ms count from the beginning of the step. Each value is the
/// median over steps and then the mean over ranks, except that the times of sums are medians over all ranks'
/// sums.
struct StepProfile {
  struct Bucket {
    std::string name;
    double bytes = 0;
    double ready_ms = 0;       ///< when backward enqueued its sum
    double seconds = 0;        ///< duration of its sum after the last rank has begun it
    double after_ms = 0;       ///< other work of the communication thread before it can begin the next sum
    bool is_gradients = true;  ///< false for other sums, such as that of the loss
  };
  std::vector<Bucket> buckets;   ///< all buckets in the order in which they are summed
  double backward_begin_ms = 0;  ///< when the last backward of the step begins
  double compute_ms = 0;         ///< when the last backward ends
  double tail_ms = 0;            ///< duration of the rest after backward and all sums, mostly the optimizer
  double start_ms = 0;    ///< delay until all ranks begin a sum that all could begin, to wake threads up
  double step_ms = 0;     ///< measured duration of the step, with its communication
  double exposed_ms = 0;  ///< measured time from the end of backward to the end of the sums
  /// The compute time of each rank in each step, in units of compute_ms, indexed [step][rank].
  std::vector<std::vector<double>> factors;
  int ranks = 1, steps = 0;
};

/// Returns the profile of the steps that have the same buckets as the last step, without the first of these
/// steps if there are more than two. Buckets are planned anew after the first step of a run, and the first
/// step of a plan allocates memory. Throws Error(kData) if there is no such step.
///
/// All time of a step up to the end of the last backward counts as computing. In a step with several rounds
/// of sums, such as a GAN's, this includes the waits between the rounds.
StepProfile profile_of(const std::vector<TracedRank>& ranks);

/// Returns the profile's gradients in buckets of at most `most_bytes`, the first of at most 1 MiB, like the
/// plan of distributed/ddp/bucket_plan.h. Unlike that plan it also cuts inside parameters, because a trace
/// does not contain their sizes. The gradients of a measured bucket are assumed to become ready at a constant
/// rate.
std::vector<StepProfile::Bucket> cut_buckets(const StepProfile& profile, double most_bytes);

}  // namespace trireme
