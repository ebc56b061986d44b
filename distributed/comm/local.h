// The local backend runs ranks as threads of one process, for tests, sanitizers, debuggers and the launcher's
// local backend.
#pragma once

#include <chrono>
#include <functional>

#include "distributed/comm/communicator.h"

namespace trireme {

/// Returns the simulated node of a rank. Ranks of different nodes do not access each other's memory.
using LocalHosts = std::function<int(int rank)>;

/// Runs `body` on `ranks` threads at once, each with its own communicator, and returns when all have ended.
/// When one throws, its communicator is aborted, so the others fail in their current or next collective.
/// Without `host_of` all ranks are on one node. Rethrows the first error that is not a consequence of another
/// rank's error.
void run_local_ranks(int ranks, std::chrono::milliseconds patience,
                     const std::function<void(Communicator&)>& body, const LocalHosts& host_of = {});

}  // namespace trireme
