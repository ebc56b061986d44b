// How the host waits for the device, which may itself wait for other ranks' devices. Include only from
// kernels/cuda and distributed/comm.
#pragma once

#include <chrono>
#include <functional>

#include "kernels/cuda/runtime.h"

namespace trireme::cuda {

/// While one is alive every wait for the device asks it now and then: what it throws ends the wait.
class WaitGuard {
 public:
  using Ask = std::function<void(std::chrono::nanoseconds waited)>;
  explicit WaitGuard(Ask ask);
  ~WaitGuard();
  WaitGuard(const WaitGuard&) = delete;
  WaitGuard& operator=(const WaitGuard&) = delete;

 private:
  Ask ask_;
  friend void ask_guards(std::chrono::nanoseconds waited);
};

/// Whether one is alive.
bool is_guarded();

/// Blocks until `is_done`, asking `ask` now and then.
void poll(const std::function<bool()>& is_done, const WaitGuard::Ask& ask);

/// Blocks until all that the stream has by now is done; until the event is.
void wait_until_done(Stream stream);
void wait_until_done(Event event);

}  // namespace trireme::cuda
