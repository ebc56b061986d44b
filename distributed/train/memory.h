// Checks that the machine has enough memory for a job.
#pragma once

#include <cstdint>
#include <string>

#include "distributed/train/options.h"

namespace trireme {

/// Returns the bytes that this process may still allocate, according to the machine, its control groups and
/// `ulimit -v`. All processes of the machine share them.
std::int64_t available_memory();

/// Throws Error(kUsage) if this machine has no memory for a model of so many parameters, their gradients and
/// the optimizer's state on each rank that it runs: before a model is built that only the kernel would stop.
void check_model_fits(const JobOptions& options, double parameters);

/// Returns the error line for a failed allocation.
std::string out_of_memory_text();

}  // namespace trireme
