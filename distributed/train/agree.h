// Doing something on every rank such that all ranks know whether it worked on all of them.
#pragma once

#include <functional>
#include <string>

#include "distributed/comm/communicator.h"
#include "kernels/error.h"

namespace trireme {

/// Runs `fn` on this rank; collective. If it failed on any rank, throws that of the lowest such rank on all, as AgreedError.
void agree(Communicator& comm, const std::function<void()>& fn);

/// Rank 0's text for everyone; collective.
std::string broadcast_text(Communicator& comm, std::string text);

}  // namespace trireme
