#include "distributed/train/signals.h"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "core/base/progress.h"
#include "kernels/error.h"

namespace trireme {

namespace {

using Clock = std::chrono::steady_clock;

/// A terminal and a launcher may bring the same wish twice.
constexpr std::chrono::milliseconds kSameWish{250};

std::atomic<int> this_rank{0};
std::atomic<bool> has_checkpoints{false};
std::atomic<std::chrono::milliseconds> longest_stall{std::chrono::minutes(2)};

/// Ends the process without unwinding anything: the threads that compute, or wait for a peer, would have to
/// take part.
[[noreturn]] void end_at_once(int signal, const std::string& when, bool loses_steps) {
  if (this_rank == 0) std::fprintf(stderr, "stopped by signal %d %s\n", signal, when.c_str());
  std::_Exit(has_checkpoints && !loses_steps ? static_cast<int>(ExitCode::kStopped) : 128 + signal);
}

bool is_of_a_user(int signal) { return signal == SIGINT || signal == SIGTERM; }

void ask_to_stop(int signal) {
  static std::optional<Clock::time_point> wished;  // by a user, first; of the thread that takes signals alone
  if (stop_signal().exchange(signal) == 0) wished.reset();
  bool again = false;
  if (is_of_a_user(signal)) {
    again = wished && Clock::now() - *wished > kSameWish;
    if (!wished) wished = Clock::now();
  }
  switch (program_phase()) {
    case Phase::kBeforeSteps:
      end_at_once(signal, "before the first step", false);
    case Phase::kAfterSteps:
      end_at_once(signal, "after the last step", false);
    case Phase::kSteps:
    case Phase::kEnding:
      if (again) end_at_once(signal, "for the second time; steps since the last checkpoint are lost", true);
  }
}

void let_it_be_taken(int) {}

/// Watches the step that a stop has to wait for, and ends the process when that step hangs.
class StallWatch {
 public:
  /// Call at short intervals while a stop is waited for.
  void look(int signal) {
    const std::uint64_t count = progress_count();
    const auto now = Clock::now();
    // A process that was itself stopped (SIGSTOP) has made no progress and must not pay for it.
    const bool was_suspended = now - last_look_ > std::chrono::seconds(1);
    last_look_ = now;
    if (program_phase() != Phase::kSteps || count != last_count_ || !since_ || was_suspended) {
      last_count_ = count;
      since_ = now;
    } else if (now - *since_ > longest_stall.load()) {
      end_at_once(signal,
                  fmt::format("in a step that made no progress for {:g} s; steps since the last checkpoint "
                              "are lost",
                              static_cast<double>(longest_stall.load().count()) / 1000),
                  true);
    }
  }

 private:
  std::uint64_t last_count_ = 0;
  Clock::time_point last_look_{};
  std::optional<Clock::time_point> since_;  ///< the last progress that was seen
};

/// Takes signals for ever, on a thread of its own.
void take_signals(const sigset_t& signals) {
  StallWatch watch;
  for (;;) {
    const timespec interval{0, 50'000'000};
    const bool stops = stop_signal() != 0;
    const int number = stops ? sigtimedwait(&signals, nullptr, &interval) : sigwaitinfo(&signals, nullptr);
    if (number > 0) ask_to_stop(number);
    if (const int signal = stop_signal(); signal != 0)
      watch.look(signal);
    else
      watch = {};
  }
}

}  // namespace

std::atomic<int>& stop_signal() {
  static std::atomic<int> signal{0};
  return signal;
}

std::atomic<Phase>& program_phase() {
  static std::atomic<Phase> phase{Phase::kBeforeSteps};
  return phase;
}

/// A thread of its own takes the signals, and all others, which inherit the mask, never see one: kernels that
/// oneDNN generates point the stack pointer into heap memory for a while, where a handler's frame would
/// overwrite what lies in front of it.
void install_signal_handlers(int rank, bool keeps_checkpoints, std::chrono::milliseconds patience) {
  this_rank = rank;
  longest_stall = patience;
  has_checkpoints = keeps_checkpoints;
  stop_signal() = 0;
  program_phase() = Phase::kBeforeSteps;
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}) {
    std::signal(signal, let_it_be_taken);  // so that one that was ignored is not lost
    sigaddset(&signals, signal);
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  static std::once_flag once;
  std::call_once(once, [&signals] { std::thread([signals] { take_signals(signals); }).detach(); });
}

}  // namespace trireme
