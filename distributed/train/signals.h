// Signals ask a running program to stop.
#pragma once

#include <atomic>
#include <chrono>

namespace trireme {

/// Returns the signal that asked the program to stop, or 0. After a signal the job commits a checkpoint after
/// its current step and ends with kStopped.
std::atomic<int>& stop_signal();

/// The phase of a program, which decides what a signal does. In kSteps there is a step to wait for. In
/// kEnding the program saves a checkpoint, or ends by itself or by an error. mpirun's SIGTERM to the rest of
/// a job that ends tells a rank nothing new.
enum class Phase { kBeforeSteps, kSteps, kAfterSteps, kEnding };
std::atomic<Phase>& program_phase();

/// Lets SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU set stop_signal() from now on (schedulers send
/// the last three before a time limit). A signal that comes before the first step or after the last ends the
/// process at once: with kStopped if the job keeps checkpoints, because the same command goes on, else with
/// 128 plus the signal's number. A second SIGINT or SIGTERM ends the process with 128 plus its number
/// wherever it comes, and so does a step that makes no progress (core/base/progress.h) for `patience` after
/// the signal. Rank 0 says why in one line. Call on the main thread, before it starts others.
void install_signal_handlers(int rank, bool keeps_checkpoints, std::chrono::milliseconds patience);

}  // namespace trireme
