// WorkQueue is a thread that runs jobs in the order of push() and stops at the first error.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "distributed/comm/communicator.h"

namespace trireme {

class Trace;

/// A job that has run. Times are nanoseconds of std::chrono::steady_clock.
struct TracedJob {
  const std::string& label;
  std::string_view op;
  std::size_t bytes;  ///< size of this rank's vector; 0: none or unknown
  std::int64_t enqueued_ns, begin_ns, end_ns;
};
/// A function that is called after each job, on the queue's thread.
using JobTrace = std::function<void(const TracedJob&)>;
/// Records a job in `trace` as a span of communication.
void record(Trace& trace, const TracedJob& job);

/// Runs jobs first in, first out, on its own thread. The first error, thrown by a job or passed to fail(), is
/// the result of all jobs that have not run yet and of all later ones. Any thread may call all methods.
class WorkQueue {
 public:
  using Work = std::function<void(const std::string& label)>;
  /// `on_failure` is called once, on the queue's thread, after the first error and before any event reports
  /// it.
  explicit WorkQueue(std::function<void(const std::exception_ptr&)> on_failure);
  /// Waits until all jobs have run or failed.
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  /// Enqueues a job. `op` must be a string literal. `bytes` is only recorded in the trace. The event is
  /// complete after `work` has returned and has been destroyed.
  Event push(std::string_view op, std::string label, Work work, std::size_t bytes = 0);
  /// Fails all jobs that have not started. The running job goes on until it returns or throws. Returns false
  /// if there was an earlier error. Never blocks.
  bool fail(std::exception_ptr error);
  /// Traces the jobs pushed after this call.
  void set_trace(JobTrace trace);

 private:
  struct Completion;
  struct Job {
    std::string_view op;
    std::string label;
    Work work;
    std::size_t bytes;
    std::int64_t enqueued_ns;
    std::shared_ptr<const JobTrace> trace;
    std::shared_ptr<Completion> completion;
  };
  void loop();
  void run(Job job);
  std::exception_ptr report_failure();

  std::function<void(const std::exception_ptr&)> on_failure_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;  // mutex_ guards this and the members below
  std::shared_ptr<const JobTrace> trace_;
  std::exception_ptr error_;
  bool reported_ = false;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace trireme
