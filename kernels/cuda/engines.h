// The library engines that compute this process's operations on its GPU, and how one is chosen.
//
// Results depend on the engine (the kernel that a library picks for a shape), so the choice must be the same
// on all ranks and after a resume. Each choice is recorded here when a plan is made.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>

#include "kernels/table.h"

namespace trireme::cuda {

/// Records the engine of an operation; later calls for the same operation are ignored. Both are one line. The
/// record lives as long as the process, which may run several jobs. Any thread may call.
void add_engine(const std::string& operation, const std::string& engine);

/// Queues one line for the user, unless the same line has been queued before. Any thread may call.
void add_notice(const std::string& line);

/// Returns the engines recorded so far, by operation.
EngineChoices engine_choices();

/// Returns the lines of add_notice() that no call has returned yet, in their order.
std::vector<std::string> take_notices();

/// How an attempt to make a plan ended.
struct PlanAttempt {
  enum Outcome { kMade, kNotSupported, kFailed } outcome = kMade;
  std::string reason;  ///< the library's error, or empty if the plan was made
};

/// Calls make() and, if it fails, release_memory() and make() once more. Returns how the last attempt ended.
/// Throws Error(kInternal) with `what` and both reasons if both attempts failed.
PlanAttempt attempt_twice(const std::function<PlanAttempt()>& make,
                          const std::function<void()>& release_memory, const std::string& what);

/// Returns the first of the candidates 0..count-1 for which make(candidate) makes a plan; nothing if none is
/// supported. A candidate that fails for another reason, such as memory that the caching allocator holds,
/// must not make the next candidate the choice, because other ranks and other runs would choose this one. So
/// it is attempted twice; see attempt_twice().
std::optional<std::size_t> choose_plan(std::size_t count,
                                       const std::function<PlanAttempt(std::size_t candidate)>& make,
                                       const std::function<void()>& release_memory,
                                       const std::string& operation);

}  // namespace trireme::cuda
