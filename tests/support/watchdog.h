// Ends the test program when a test hangs: a rank test must never wait for ever.
#pragma once

#include <chrono>
#include <string>

namespace trireme::test {

/// While alive, a thread ends the process with a message if `limit` passes.
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
