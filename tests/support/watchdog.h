// Ends the test program when a test hangs, because a rank test must never wait for ever.
#pragma once

#include <chrono>
#include <string>

namespace trireme::test {

/// Ends the process with a message that names `what`, unless it is destroyed within `limit`.
class Watchdog {
 public:
  Watchdog(std::string what, std::chrono::seconds limit);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  struct State;
  State* state_;
};

}  // namespace trireme::test
