#include "tests/support/watchdog.h"

#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>

namespace trireme::test {

struct Watchdog::State {
  std::mutex mutex;
  std::condition_variable changed;
  bool over = false;
  std::thread thread;
};

Watchdog::Watchdog(std::string what, std::chrono::seconds limit) : state_(new State) {
  state_->thread = std::thread([state = state_, what = std::move(what), limit] {
    std::unique_lock lock(state->mutex);
    if (!state->changed.wait_for(lock, limit, [&] { return state->over; })) {
      std::fprintf(stderr, "watchdog: %s still ran after %lld s\n", what.c_str(),
                   static_cast<long long>(limit.count()));
      _exit(124);
    }
  });
}

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(state_->mutex);
    state_->over = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
  delete state_;
}

}  // namespace trireme::test
