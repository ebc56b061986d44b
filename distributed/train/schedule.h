// The learning-rate schedule of a job, and what a user should be told of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/optim/optimizer.h"
#include "distributed/train/options.h"

namespace trireme {

/// Returns the schedule that the options describe for a run of `total_steps` steps.
optim::Schedule schedule_of(const JobOptions& options, std::int64_t total_steps);

/// Returns how many steps the job has in all, where one pass over the data takes `steps_per_epoch` steps.
std::int64_t total_steps_of(const JobOptions& options, std::int64_t steps_per_epoch);

/// Returns a line for a warm-up that is longer than the run of `total_steps` steps; otherwise nothing.
std::optional<std::string> warmup_warning(const JobOptions& options, std::int64_t total_steps);

/// Returns a line for a run that goes on after `step` finished steps with another length than it was planned
/// for (`planned_steps`), where that changes the learning rate of a step to come; otherwise nothing. The line
/// names after how many steps the first such one comes, and both of its learning rates.
std::optional<std::string> length_warning(const JobOptions& options, std::int64_t step,
                                          std::int64_t planned_steps, std::int64_t total_steps);

}  // namespace trireme
