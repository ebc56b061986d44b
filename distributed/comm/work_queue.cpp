#include "distributed/comm/work_queue.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "core/metrics/trace.h"
#include "kernels/error.h"
#include "kernels/table.h"

namespace trireme {

namespace {

/// Lets this thread, which sleeps between short pieces of work, take the core as soon as it wakes: it asks
/// for little of it at a time. Linux 6.12 and later; others do as before. See sched(7), sched_setattr(2).
void ask_for_short_slices() {
  if (sched_getscheduler(0) != SCHED_OTHER) return;  // the user has chosen something else
  struct Attributes {                                // glibc before 2.41 has none
    std::uint32_t size = sizeof(Attributes), policy = 0;
    std::uint64_t flags = 0;
    std::int32_t nice = 0;
    std::uint32_t priority = 0;
    std::uint64_t runtime = 100'000, deadline = 0, period = 0;  // ns
  } wanted;
  wanted.nice = getpriority(PRIO_PROCESS, 0);
  syscall(SYS_sched_setattr, 0, &wanted, 0);
}

}  // namespace

void record(Trace& trace, const TracedJob& job) {
  if (!trace.enabled()) return;
  trace.span(fmt::format("{} {}", job.op, job.label), "communication", job.begin_ns, job.end_ns,
             Trace::kCommunication,
             {{"bytes", static_cast<double>(job.bytes)},
              {"queued_us", static_cast<double>(job.begin_ns - job.enqueued_ns) / 1e3}});
}

struct WorkQueue::Completion final : Event::State {
  bool done() const override {
    std::lock_guard lock(mutex);
    return finished;
  }

  void wait() const override {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return finished; });
    if (error) std::rethrow_exception(error);
  }

  void finish(std::exception_ptr result) {
    {
      std::lock_guard lock(mutex);
      error = std::move(result);
      finished = true;
    }
    changed.notify_all();
  }

  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  bool finished = false;
  std::exception_ptr error;
};

WorkQueue::WorkQueue(std::function<void(const std::exception_ptr&)> on_failure)
    : on_failure_(std::move(on_failure)), thread_([this] { loop(); }) {}

WorkQueue::~WorkQueue() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Event WorkQueue::push(std::string_view op, std::string label, Work work, std::size_t bytes) {
  auto completion = std::make_shared<Completion>();
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back({op, std::move(label), std::move(work), bytes, Trace::now_ns(), trace_, completion});
  }
  changed_.notify_all();
  return Event(std::move(completion));
}

bool WorkQueue::fail(std::exception_ptr error) {
  {
    std::lock_guard lock(mutex_);
    if (error_) return false;
    error_ = std::move(error);
  }
  changed_.notify_all();
  return true;
}

void WorkQueue::set_trace(JobTrace trace) {
  std::lock_guard lock(mutex_);
  trace_ = trace ? std::make_shared<const JobTrace>(std::move(trace)) : nullptr;
}

void WorkQueue::loop() {
  ask_for_short_slices();
  // Other cores compute. And what a library's kernel does with more threads may have other bits.
  set_threads(1);
  for (;;) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !jobs_.empty() || closing_ || (error_ && !reported_); });
    if (error_ && !reported_) {
      lock.unlock();
      report_failure();
      continue;
    }
    if (jobs_.empty()) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    run(std::move(job));
  }
}

void WorkQueue::run(Job job) {
  std::exception_ptr result;
  {
    std::lock_guard lock(mutex_);
    result = error_;
  }
  if (!result) {
    const std::int64_t begin = Trace::now_ns();
    try {
      job.work(job.label);
      if (job.trace) (*job.trace)({job.label, job.op, job.bytes, job.enqueued_ns, begin, Trace::now_ns()});
    } catch (...) {
      fail(std::current_exception());
      result = report_failure();
    }
  }
  job.work = nullptr;
  job.completion->finish(std::move(result));
}

std::exception_ptr WorkQueue::report_failure() {
  std::exception_ptr error;
  {
    std::lock_guard lock(mutex_);
    error = error_;
    if (std::exchange(reported_, true)) return error;
  }
  on_failure_(error);
  return error;
}

}  // namespace trireme
