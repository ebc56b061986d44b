#include "kernels/cuda/recorder.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

#include "kernels/cuda/engines.h"
#include "kernels/cuda/kernels.h"

namespace trireme::cuda {

namespace {

// The first graph after a wait is small, so that the device has work early; the next ones grow.
constexpr std::size_t kFirstWork = 16, kMostWork = 512;
constexpr std::size_t kMostGraphs = 1024;  // of a round: further work is started at once
/// A place whose work could not be captured so many times gets no graph.
constexpr int kMostFailures = 3;
/// A place whose graph is made anew more often than in one of so many rounds gets none.
constexpr std::int64_t kRoundsPerGraph = 8;

/// Streams for which a recorder holds work. Until it is started nobody else may use them: memory that comes
/// free meanwhile is free only behind that work.
class HeldStreams {
 public:
  void add(Stream stream) {
    const std::lock_guard lock(mutex_);
    if (!streams_.insert(stream).second) refuse();
    count_ = static_cast<int>(streams_.size());
  }
  void remove(Stream stream) {
    const std::lock_guard lock(mutex_);
    streams_.erase(stream);
    count_ = static_cast<int>(streams_.size());
  }
  bool contains(Stream stream) {
    if (count_ == 0) return false;
    const std::lock_guard lock(mutex_);
    return streams_.contains(stream);
  }
  [[noreturn]] static void refuse() {
    fail(ExitCode::kUsage,
         "cuda: a thread uses the device in the middle of another one's step, whose work is being recorded; "
         "leave out --cuda-graph");
  }

 private:
  std::atomic<int> count_{0};
  std::mutex mutex_;
  std::set<Stream> streams_;
};

HeldStreams& held() {
  static HeldStreams* const one = new HeldStreams;
  return *one;
}

thread_local std::unique_ptr<Recorder> recorder;

void start_now(const Kernel& kernel, Stream stream) { start(kernel, stream); }
void start_now(const LibraryCall& call, Stream stream) { call.run(call.call.data(), stream); }

template <class Given>
void enqueue_here(const Given& given) {
  if (Recorder* const here = recording()) return here->enqueue(given);
  start_now(given, stream());
}

}  // namespace

void enqueue(const Kernel& kernel) { enqueue_here(kernel); }
void enqueue(const LibraryCall& call) { enqueue_here(call); }

Recorder* recording() {
  return recorder && recorder->is_on() && stream_as_it_is() == recorder->target() ? recorder.get() : nullptr;
}

void submit_recorded() {
  if (recorder) recorder->submit();
}

bool is_held(Stream stream) { return held().contains(stream); }

void check_not_held(Stream stream) {
  if (is_held(stream)) HeldStreams::refuse();
}

void begin_recording() {
  if (!recorder) recorder = std::make_unique<Recorder>(stream_as_it_is());
  recorder->begin_round();
}

void end_recording() {
  if (recorder) recorder->end_round();
}

RecordingStatistics recording_statistics() {
  return recorder ? recorder->statistics() : RecordingStatistics();
}

Recorder::~Recorder() {
  if (is_open_ && !is_plain_) held().remove(target_);
  try {
    if (!graphs_.empty()) synchronize(target_);
  } catch (const std::exception&) {
    // The device is gone; so are its graphs.
  }
  for (Recorded& recorded : graphs_) drop_graph(recorded);
}

void Recorder::Work::start_on(Stream stream) const {
  if (function)
    start(kernel(), stream);
  else
    run(bytes.data(), stream);
}

const void* Recorder::Work::code() const {
  if (function) return function;
  return plan ? plan : reinterpret_cast<const void*>(run);
}

void Recorder::begin_round() {
  submit();
  on_ = true;
  place_ = 0;
  most_ = kFirstWork;
  allocated_ = 0;
  ++statistics_.rounds;
}

void Recorder::end_round() {
  on_ = false;
  submit();
}

void Recorder::enqueue(const Kernel& kernel) { take(kernel); }
void Recorder::enqueue(const LibraryCall& call) { take(call); }

template <class Given>
void Recorder::take(const Given& given) {
  if (!is_open_) open();
  if (is_plain_) {
    start_now(given, target_);
  } else {
    Recorded& recorded = graphs_[place_];
    if (done_ == recorded.work.size() || !matches(recorded, given)) {
      forget_from_here(recorded);
      recorded.work.emplace_back(given);
    }
  }
  ++statistics_.work;
  if (++done_ < most_) return;
  const std::size_t most = most_;
  submit();
  most_ = std::min(2 * most, kMostWork);
}

void Recorder::open() {
  if (place_ == graphs_.size() && place_ < kMostGraphs) graphs_.emplace_back();
  is_plain_ =
      place_ >= kMostGraphs || graphs_[place_].made > kRoundsPerGraph + statistics_.rounds / kRoundsPerGraph;
  if (!is_plain_) held().add(target_);
  is_open_ = true;
  done_ = 0;
}

/// Returns true if the work at this place is `k`, or could be changed into it.
bool Recorder::matches(Recorded& recorded, const Kernel& k) {
  Work& work = recorded.work[done_];
  if (work.function != k.function || work.threads != k.threads || work.bytes.size() != k.functor.size())
    return false;
  if (work.blocks == k.blocks && work.count == k.count && std::ranges::equal(work.bytes, k.functor))
    return true;
  if (recorded.ready) {
    change(recorded.ready, work.node, k);
    ++statistics_.changed;
  }
  work.blocks = k.blocks;
  work.count = k.count;
  std::ranges::copy(k.functor, work.bytes.begin());
  return true;
}

/// Returns true if the work at this place is `call`. A graph's call cannot be changed.
bool Recorder::matches(Recorded& recorded, const LibraryCall& call) {
  const Work& work = recorded.work[done_];
  return work.run == call.run && std::ranges::equal(work.bytes, call.call);
}

/// Drops the recorded work from this place on, and the graph that holds it.
void Recorder::forget_from_here(Recorded& recorded) {
  if (recorded.ready) synchronize(target_);  // it may be running
  drop_graph(recorded);
  recorded.work.erase(recorded.work.begin() + static_cast<std::ptrdiff_t>(done_), recorded.work.end());
}

void Recorder::submit() {
  if (!is_open_) return;
  is_open_ = false;
  most_ = kFirstWork;
  const std::size_t place = place_++;
  if (is_plain_) return;
  try {
    start_recorded(graphs_[place]);
  } catch (...) {
    drop_graph(graphs_[place]);
    graphs_[place].work.clear();
    held().remove(target_);
    throw;
  }
  held().remove(target_);
}

void Recorder::start_recorded(Recorded& recorded) {
  if (done_ < recorded.work.size()) forget_from_here(recorded);  // it had more the last time
  const auto has_started = [&](const Work& work) { return started_.contains(work.code()); };
  std::string failure;
  if (!recorded.ready && recorded.failures < kMostFailures && std::ranges::all_of(recorded.work, has_started))
    failure = make_graph(recorded);
  if (recorded.ready) {
    start(recorded.ready, target_);
    ++statistics_.graphs;
    return;
  }
  for (const Work& work : recorded.work) {
    work.start_on(target_);
    started_.insert(work.code());
  }
  // Another thread may have synchronized the device meanwhile, so one failure does not mean that the next one
  // fails.
  if (failure.empty() || ++recorded.failures < kMostFailures) return;
  add_notice(fmt::format("a part of each step runs without a CUDA graph, because it cannot be captured: {}",
                         failure));
}

/// Returns why the work cannot be captured; empty if its graph is ready.
std::string Recorder::make_graph(Recorded& recorded) {
  if (!recording_) recording_ = make_stream();
  try {
    begin_capture(recording_);
    for (Work& work : recorded.work) {
      work.start_on(recording_);
      if (work.function) work.node = last_node(recording_);
    }
    recorded.graph = end_capture(recording_);
    recorded.ready = make_ready(recorded.graph);
  } catch (const std::exception& error) {  // also what a library's front end throws
    abandon_capture(recording_);
    drop_graph(recorded);
    return error.what();
  }
  ++recorded.made;
  ++statistics_.made;
  return "";
}

void* Recorder::wanted_memory(std::size_t bytes) const {
  const bool is_like = allocated_ < memory_.size() && memory_[allocated_].bytes == bytes;
  return is_like ? memory_[allocated_].data : nullptr;
}

void Recorder::got_memory(void* memory, std::size_t bytes) {
  if (allocated_ == memory_.size()) memory_.emplace_back();
  memory_[allocated_++] = {memory, bytes};
}

void Recorder::drop_graph(Recorded& recorded) noexcept {
  if (recorded.ready) free_ready(std::exchange(recorded.ready, nullptr));
  if (recorded.graph) free_graph(std::exchange(recorded.graph, nullptr));
}

}  // namespace trireme::cuda
