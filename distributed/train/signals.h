// How a running program is asked to stop.
#pragma once

#include <atomic>

namespace trireme {

/// The signal that asked to stop, 0 without one: the job commits a checkpoint after its current step and ends
/// with kStopped.
std::atomic<int>& stop_signal();

/// Where a program stands. Between the first step and the last there is a step to wait for; once it ends, of
/// itself or by an error, mpirun's SIGTERM to what is left of the job tells it nothing new.
enum class Phase { kBeforeSteps, kSteps, kAfterSteps, kEnding };
std::atomic<Phase>& program_phase();

/// From now on SIGINT, SIGTERM, SIGHUP and SIGUSR1 set stop_signal(). One that comes before the first step or
/// after the last ends the process at once, with kStopped if the job keeps checkpoints, since the same
/// command goes on; else with 128 plus its number, as does a second SIGINT or SIGTERM wherever it comes. Rank
/// 0 says so in a line. For the main thread, before it starts others.
void install_signal_handlers(int rank, bool keeps_checkpoints);

}  // namespace trireme
