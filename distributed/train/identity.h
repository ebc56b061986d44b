// Describes what must be the same on all ranks of a job.
#pragma once

#include <string>
#include <vector>

#include "distributed/comm/agree.h"
#include "distributed/train/options.h"

namespace trireme {

/// Returns the linker's build id of this program, which differs between programs, or "unknown" if it has
/// none.
std::string build_id();

/// Returns the facts that must be the same on all ranks: program, libraries and options.
std::vector<Fact> facts_of(JobOptions options);

}  // namespace trireme
