// Ranks tell each other how a piece of work went.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "distributed/comm/communicator.h"

namespace trireme {

/// Runs `work` on every rank, then gathers how it went. Collective and blocking.
///
/// Returns what the work returned on each rank. If it threw anywhere, throws on every rank the error of the
/// lowest such rank, with its exit code (kCheckpoint for what is not an Error) and "rank R: " before its
/// text. A rank that cannot be reached is the communicator's own Error(kPeer).
std::vector<std::string> agree(Communicator& comm, const std::string& label,
                               const std::function<std::string()>& work);

}  // namespace trireme
