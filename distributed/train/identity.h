// What all ranks of a job have in common.
#pragma once

#include <string>
#include <vector>

#include "distributed/comm/agree.h"
#include "distributed/train/options.h"

namespace trireme {

/// A number that the linker gave this program: another one for another program. "unknown" without one.
std::string build_id();

/// What makes a rank's job the same as another's: program, libraries, options.
std::vector<Fact> facts_of(JobOptions options);

}  // namespace trireme
