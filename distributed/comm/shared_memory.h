// Memory that the processes of one host share.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "distributed/comm/host_group.h"

namespace trireme {

/// Tells every process of a group what this one says, at most 63 characters, in the order of `ranks`.
using TellAll = std::function<std::vector<std::string>(const std::string&)>;

/// The group of the ranks in `ranks`, each a process of this host; collective over them. Memory is an
/// anonymous file of each process (memfd_create), which the others map: it goes with the last of them,
/// however they end. Null, on all of them, where one cannot see another's: in containers that hide processes
/// from each other, say.
std::unique_ptr<HostGroup> make_process_group(const std::vector<int>& ranks, int rank,
                                              const TellAll& tell_all);

}  // namespace trireme
