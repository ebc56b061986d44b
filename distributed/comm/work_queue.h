// A thread that runs jobs in the order they were given, and stops at the first error.
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

/// A job that was run. Times are nanoseconds of std::chrono::steady_clock.
struct TracedJob {
  const std::string& label;
  std::string_view op;
  std::size_t bytes;  ///< of the vector that this rank brings; 0: none, or not known
  std::int64_t enqueued_ns, begin_ns, end_ns;
};
/// Called after each job, on the queue's thread.
using JobTrace = std::function<void(const TracedJob&)>;
/// As a span of communication.
void record(Trace& trace, const TracedJob& job);

/// First in, first out, on one thread of its own. The first error, thrown by a job or given to fail(),
/// sticks: it is the result of all jobs that have not run yet. All methods may be called by any thread.
class WorkQueue {
 public:
  using Work = std::function<void(const std::string& label)>;
  /// `on_failure` is called once, on the queue's thread, after the first error and before any event says so.
  explicit WorkQueue(std::function<void(const std::exception_ptr&)> on_failure);
  /// Waits until all jobs have run or failed.
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  /// `op` must be a literal; `bytes` are for the trace. The event is done after `work` has returned and been
  /// destroyed.
  Event push(std::string_view op, std::string label, Work work, std::size_t bytes = 0);
  /// Never blocks. The job in progress goes on until it returns or throws. False if an error came before.
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
  std::deque<Job> jobs_;  // guarded by mutex_, as all below
  std::shared_ptr<const JobTrace> trace_;
  std::exception_ptr error_;
  bool reported_ = false;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace trireme
