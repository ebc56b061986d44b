// Backoff waits for another rank without taking the CPU time that the rank needs.
#pragma once

#include <sched.h>
#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace trireme {

/// Waits between two polls. It first spins, for a low latency of small messages, then yields, then sleeps,
/// because the ranks of a node and their compute threads may share few cores.
class Backoff {
 public:
  /// Waits once. Returns true when waiting has become slow enough for checks that cost more than a poll.
  bool pause() {
    ++polls_;
    if (polls_ <= kSpins) return false;
    if (polls_ <= kSpins + kYields) {
      const auto begin = std::chrono::steady_clock::now();
      sched_yield();
      // Another thread had the core, perhaps for a whole time slice. A thread that sleeps gets the core back
      // much sooner than one that yields.
      if (std::chrono::steady_clock::now() - begin > kLongYield) polls_ = kSpins + kYields;
      return polls_ % 16 == 0;
    }
    // The default slack would turn a nap of 20 us into one of 70.
    if (nap_ == kFirstNap) prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
    std::this_thread::sleep_for(nap_);
    nap_ = std::min(nap_ * 5 / 4, kLongestNap);
    return true;
  }

 private:
  static constexpr int kSpins = 50;
  static constexpr int kYields = 1000;
  static constexpr std::chrono::nanoseconds kLongYield = std::chrono::microseconds(50);
  static constexpr std::chrono::nanoseconds kFirstNap = std::chrono::microseconds(20);
  static constexpr std::chrono::nanoseconds kLongestNap = std::chrono::microseconds(100);
  int polls_ = 0;
  std::chrono::nanoseconds nap_ = kFirstNap;
};

}  // namespace trireme
