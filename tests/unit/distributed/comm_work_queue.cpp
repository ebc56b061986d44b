#include "distributed/comm/work_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/metrics/trace.h"
#include "tests/support/watchdog.h"
#include "tests/unit/core/metrics_scratch.h"

namespace trireme {
namespace {

using namespace std::chrono_literals;

std::string message_of(const Event& event) {
  try {
    event.wait();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

std::exception_ptr error(const char* text) { return std::make_exception_ptr(std::runtime_error(text)); }

class WorkQueueTest : public testing::Test {
 protected:
  Event push(std::function<void()> fn, std::string label = "x") {
    return queue_.push("test", std::move(label), [fn = std::move(fn)](const std::string&) { fn(); });
  }

  test::Watchdog watchdog_{"a queue test", 60s};
  std::atomic<int> failures_ = 0;
  WorkQueue queue_{[this](const std::exception_ptr&) { ++failures_; }};
};

TEST_F(WorkQueueTest, ADefaultEventIsDone) {
  const Event event;
  EXPECT_TRUE(event.done());
  event.wait();
}

TEST_F(WorkQueueTest, RunsInOrderOnItsOwnThread) {
  std::vector<int> order;
  std::thread::id thread;
  Event last;
  for (int i = 0; i < 100; ++i) {
    last = push([&, i] {
      order.push_back(i);
      thread = std::this_thread::get_id();
    });
  }
  last.wait();
  ASSERT_EQ(order.size(), 100u);
  EXPECT_TRUE(std::ranges::is_sorted(order));
  EXPECT_NE(thread, std::this_thread::get_id());
}

TEST_F(WorkQueueTest, PushReturnsAtOnceAndDoneTellsTheTruth) {
  std::promise<void> gate;
  const Event event = push([&] { gate.get_future().wait(); });
  EXPECT_FALSE(event.done());
  gate.set_value();
  event.wait();
  EXPECT_TRUE(event.done());
}

TEST_F(WorkQueueTest, TheFirstErrorSticksAndIsThrownAgain) {
  int ran = 0;
  const Event before = push([&] { ++ran; });
  const Event bad = push([] { throw std::runtime_error("first"); });
  const Event after = push([] { throw std::runtime_error("second"); });
  EXPECT_EQ(message_of(before), "");
  EXPECT_EQ(message_of(bad), "first");
  EXPECT_EQ(message_of(bad), "first");
  EXPECT_EQ(message_of(after), "first");
  EXPECT_EQ(message_of(push([&] { ++ran; })), "first");
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(failures_, 1);
}

TEST_F(WorkQueueTest, FailStopsWhatHasNotRunYet) {
  std::promise<void> started, gate;
  const Event running = push([&] {
    started.set_value();
    gate.get_future().wait();
  });
  const Event waiting = push([] { ADD_FAILURE() << "ran"; });
  started.get_future().wait();
  EXPECT_TRUE(queue_.fail(error("stop")));
  EXPECT_FALSE(queue_.fail(error("too late")));
  EXPECT_FALSE(waiting.done());
  gate.set_value();
  EXPECT_EQ(message_of(running), "");
  EXPECT_EQ(message_of(waiting), "stop");
}

TEST_F(WorkQueueTest, AnIdleQueueReportsAFailureToo) {
  queue_.fail(error("stop"));
  while (failures_ == 0) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(message_of(push([] {})), "stop");
  EXPECT_EQ(failures_, 1);
}

TEST_F(WorkQueueTest, WorkIsDestroyedBeforeItsEventIsDone) {
  auto data = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = data;
  const Event event = push([data = std::move(data)] {});
  event.wait();
  EXPECT_TRUE(watch.expired());
}

TEST_F(WorkQueueTest, TracesLabelOpAndTimes) {
  struct Entry {
    std::string label, op;
    std::size_t bytes;
    std::int64_t enqueued, begin, end;
  };
  std::vector<Entry> trace;
  push([] {}, "not traced").wait();
  queue_.set_trace([&](const TracedJob& job) {
    trace.push_back({job.label, std::string(job.op), job.bytes, job.enqueued_ns, job.begin_ns, job.end_ns});
  });
  push([] { std::this_thread::sleep_for(2ms); }, "a");
  queue_
      .push(
          "test", "b", [](const std::string&) {}, 12)
      .wait();
  ASSERT_EQ(trace.size(), 2u);
  EXPECT_EQ(trace[0].label, "a");
  EXPECT_EQ(trace[0].op, "test");
  EXPECT_EQ(trace[0].bytes, 0u);
  EXPECT_GE(trace[0].end - trace[0].begin, 2'000'000);
  EXPECT_EQ(trace[1].label, "b");
  EXPECT_EQ(trace[1].bytes, 12u);
  EXPECT_LE(trace[0].end, trace[1].begin);
  EXPECT_LT(trace[1].enqueued, trace[0].end) << "b had to wait";
}

TEST(WorkQueueTrace, ASpanTellsBytesAndHowLongTheJobWaited) {
  const test::Scratch scratch;
  Trace trace(scratch.path(), 0);
  const std::string label = "bucket 3";
  record(trace, {label, "sum", 4096, 1'000'000, 3'500'000, 9'000'000});
  trace.close();
  int spans = 0;
  read_traces(std::vector{Trace::file_path(scratch.path(), 0)}, [&](std::size_t, const TraceSpan& span) {
    ++spans;
    EXPECT_EQ(span.name, "sum bucket 3");
    EXPECT_EQ(span.category, "communication");
    EXPECT_EQ(span.track, Trace::kCommunication);
    EXPECT_DOUBLE_EQ(span.begin_us, 3500);
    EXPECT_DOUBLE_EQ(span.end_us, 9000);
    EXPECT_EQ(span.args, (std::map<std::string, double>{{"bytes", 4096}, {"queued_us", 2500}}));
  });
  EXPECT_EQ(spans, 1);
}

TEST_F(WorkQueueTest, AnErrorOfTheTraceIsAnErrorOfTheCall) {
  queue_.set_trace([](const TracedJob&) { throw std::runtime_error("no room for the trace"); });
  EXPECT_EQ(message_of(push([] {})), "no room for the trace");
  EXPECT_EQ(failures_, 1);
}

TEST(WorkQueueDestructor, RunsWhatIsLeft) {
  const test::Watchdog watchdog("a queue's destructor", 60s);
  int ran = 0;
  {
    WorkQueue queue([](const std::exception_ptr&) {});
    for (int i = 0; i < 10; ++i) queue.push("test", "x", [&](const std::string&) { ++ran; });
  }
  EXPECT_EQ(ran, 10);
}

}  // namespace
}  // namespace trireme
