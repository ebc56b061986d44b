// ExitTimer bounds calls of libraries that may never return.
#pragma once

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>

#include "kernels/error.h"

namespace trireme {

/// Ends the process unless it is destroyed within its limit, because some MPI calls never return once a peer
/// is gone.
class ExitTimer {
 public:
  ExitTimer(std::chrono::milliseconds limit, ExitCode code, const char* doing)
      : thread_([this, limit, code, doing] {
          std::unique_lock lock(mutex_);
          if (changed_.wait_for(lock, limit, [this] { return over_; })) return;
          std::fprintf(stderr, "%s did not end within %.1f s: a peer is gone; ending this process\n", doing,
                       std::chrono::duration<double>(limit).count());
          _exit(static_cast<int>(code));
        }) {}

  ~ExitTimer() {
    {
      std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace trireme
