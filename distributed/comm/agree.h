// Ranks tell each other how a piece of work went.
#pragma once

#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "distributed/comm/communicator.h"
#include "kernels/error.h"

namespace trireme {

/// Runs `work` on every rank, then gathers how it went. Collective and blocking; `label` names it in errors
/// and traces.
///
/// Returns what the work returned on each rank. If it threw anywhere, throws on every rank, as AgreedError,
/// the error of the lowest such rank with its exit code (kInternal for what is not an Error), and with "rank
/// R: " before its text unless it went wrong on all. A rank that cannot be reached is the communicator's own
/// Error(kPeer).
std::vector<std::string> agree(Communicator& comm, const std::string& label,
                               const std::function<std::string()>& work);
/// The same for work without a result.
template <class Work>
requires std::is_void_v<std::invoke_result_t<Work>>
void agree(Communicator& comm, const std::string& label, Work&& work) {
  agree(comm, label, std::function<std::string()>([&] {
          work();
          return std::string();
        }));
}

/// What ranks should have in common: its name, and what it is on this rank. Names differ.
struct Fact {
  std::string name, value;
};
/// Makes sure that all ranks have the facts of rank 0; collective and blocking. Throws on every rank, as
/// AgreedError with `code`, which rank is the lowest that does not, and the first facts that differ: "rank 2:
/// `what` not those of rank 0: lr 0.2, there 0.1; ...; `advice`".
void agree_same(Communicator& comm, const std::string& what, const std::vector<Fact>& facts, ExitCode code,
                const std::string& advice);

/// Rank 0's text for everyone; collective and blocking.
std::string broadcast_text(Communicator& comm, const std::string& text);

}  // namespace trireme
