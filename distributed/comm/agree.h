// Agreements: ranks tell each other whether they succeeded, so that all go on or all throw.
#pragma once

#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "distributed/comm/communicator.h"
#include "kernels/error.h"

namespace trireme {

/// Runs `work` on every rank and then exchanges the results. Collective and blocking. `label` names the
/// agreement in errors and traces.
///
/// Returns the results of all ranks, in the order of ranks. If `work` threw on any rank, every rank throws an
/// AgreedError with the text and exit code of the lowest such rank (kInternal if it was not an Error). The
/// text starts with "rank R: " unless all ranks failed. If a rank cannot be reached, the communicator throws
/// Error(kPeer).
std::vector<std::string> agree(Communicator& comm, const std::string& label,
                               const std::function<std::string()>& work);
/// Runs an agreement, like agree() above, for work that returns nothing.
template <class Work>
requires std::is_void_v<std::invoke_result_t<Work>>
void agree(Communicator& comm, const std::string& label, Work&& work) {
  agree(comm, label, std::function<std::string()>([&] {
          work();
          return std::string();
        }));
}

/// A value that should be the same on all ranks, with its name. Names in a list are unique.
struct Fact {
  std::string name, value;
};
/// Checks that all ranks have the facts of rank 0. Collective and blocking. Otherwise every rank throws an
/// AgreedError with `code`. Its text names the lowest rank that differs and the first facts that differ, for
/// example "rank 2: `what` not those of rank 0: lr 0.2, there 0.1; ...; `advice`".
void agree_same(Communicator& comm, const std::string& what, const std::vector<Fact>& facts, ExitCode code,
                const std::string& advice);

/// Returns rank 0's text on all ranks. Collective and blocking.
std::string broadcast_text(Communicator& comm, const std::string& text);

}  // namespace trireme
