// Ranks as threads of one process: for tests, sanitizers, debuggers and the launcher's local backend.
#pragma once

#include <chrono>
#include <functional>

#include "distributed/comm/communicator.h"

namespace trireme {

/// On which host a rank plays to be: ranks of different ones do not look into each other's memory.
using LocalHosts = std::function<int(int rank)>;

/// Runs `body` on `ranks` threads at once, each with its own communicator, and returns when all are over.
/// When one throws, its communicator is aborted, so the others fail in the collective they are in or in
/// their next one. Without `host_of` all are on one host. Rethrows the first error that is not a consequence
/// of another rank's.
void run_local_ranks(int ranks, std::chrono::milliseconds patience,
                     const std::function<void(Communicator&)>& body, const LocalHosts& host_of = {});

}  // namespace trireme
