// Whether there is memory for what a user asks for.
#pragma once

#include <cstdint>
#include <string>

#include "distributed/train/options.h"

namespace trireme {

/// Bytes that this process may still take, as far as the machine, its control groups and `ulimit -v` say; all
/// processes of the machine together may take them.
std::int64_t available_memory();

/// Throws Error(kUsage) if this machine has no memory for a model of so many parameters, their gradients and
/// the optimizer's state on each rank that it runs: before a model is built that only the kernel would stop.
void check_model_fits(const JobOptions& options, double parameters);

/// The one line about memory that could not be had.
std::string out_of_memory_text();

}  // namespace trireme
