// Makes memory that the processes of one node share.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "distributed/comm/host_group.h"

namespace trireme {

/// Sends a text of at most 63 characters to all processes of a group and returns the texts of all, in the
/// order of `ranks`.
using TellAll = std::function<std::vector<std::string>(const std::string&)>;

/// Returns the group of `ranks`, each of which is a process of this node. Collective over them. The memory of
/// each process is an anonymous file (memfd_create) that the others map. It is freed when the last of them
/// ends, even if they crash. Returns null on all ranks if one cannot map the memory of another, for example
/// in containers that hide processes from each other.
std::unique_ptr<HostGroup> make_process_group(const std::vector<int>& ranks, int rank,
                                              const TellAll& tell_all);

}  // namespace trireme
