// How a running program is asked to stop.
#pragma once

#include <atomic>

namespace trireme {

/// The signal that asked to stop, 0 without one: the job commits a checkpoint after its current step and ends
/// with kStopped.
std::atomic<int>& stop_signal();

/// Where training stands. Only between the first step and the last is there a step to wait for.
enum class Phase { kBeforeSteps, kSteps, kAfterSteps };
std::atomic<Phase>& training_phase();

/// From now on SIGINT, SIGTERM, SIGHUP and SIGUSR1 set stop_signal(). One that comes outside of the steps,
/// and a second SIGINT or SIGTERM wherever it comes, ends the process at once with 128 plus its number. Rank
/// 0 says so in a line. For the main thread, before it starts others.
void install_signal_handlers(int rank);

}  // namespace trireme
