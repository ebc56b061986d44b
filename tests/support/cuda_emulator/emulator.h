// A GPU on paper: kernels/cuda/runtime.h made of host memory and queues, for tests on machines without one.
//
// It is a strict referee. Work given to a stream runs only when somebody waits for it, so that a missing wait
// shows; device memory cannot be touched but by that work, so that host code that follows a device pointer
// crashes; fresh device memory begins with a MiB of NaN; behind each block lies memory that nothing may
// touch.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <utility>

#include "kernels/cuda/runtime.h"

namespace trireme::cuda::emulator {

/// What a Kernel's function is here.
using KernelFunction = void (*)(std::int64_t count, const void* functor);

void enqueue(Stream stream, std::function<void()> work);
/// Work that is stuck until it may run, and all behind it.
void enqueue_when(Stream stream, std::function<bool()> may_run, std::function<void()> work);
/// Runs what comes before the event; false if something there is stuck.
bool reaches(Event event);

/// fn(0) ... fn(lanes - 1) as fibers that meet in exchange().
void run_lanes(int lanes, const std::function<void(int)>& fn);
struct Slot {
  std::array<std::uint64_t, 2> words;
};
/// From inside of run_lanes, by every lane: gives `value` and returns that of lane `from`.
Slot exchange(int lane, const Slot& value, int from);

/// Returns true if a capture of `stream` is open.
bool is_capturing(Stream stream);
/// A library calls this where it initialises itself or makes a plan. Stops the program if a capture of this
/// thread is open: the real libraries may synchronize the device there, which invalidates the capture.
void making_plan();
/// Stops the program if `stream` captures `code` before it was started without a capture once: its first
/// start may load code, which may synchronize the device, too.
void starting(const void* code, Stream stream);

/// Says which functions of a shared library this folder has; before any is asked for
/// (kernels/cuda/library.h).
bool provide(std::initializer_list<std::pair<const char*, void*>> functions);
template <class F>
void* pointer(F* function) {
  return reinterpret_cast<void*>(function);
}

/// Memory that the device has; more is refused. For tests of what happens when it is full.
void set_device_bytes(std::size_t bytes);
/// Blocks that device_malloc has given out since the start.
std::size_t device_mallocs();
/// The same of pinned_malloc.
std::size_t pinned_mallocs();
/// Times that the host has waited for a stream or an event.
std::size_t waits();
/// Calls of the fused attention kernel so far.
int fused_attentions();
/// The next `count` queries of cuBLASLt's heuristic fail for want of memory.
void fail_heuristics(int count);
/// Graphs that are ready and not freed.
int ready_graphs();
/// Is called while a graph is made ready, which takes its time.
void set_while_making_ready(std::function<void()> fn);
/// Work that waits in all streams.
std::size_t pending();
/// Pieces of work of a stream that have run.
std::size_t done(Stream stream);
/// While one is alive no work runs because this thread asks whether it is done: who waits that way waits for
/// others, or for ever.
class TimeStands {
 public:
  TimeStands();
  ~TimeStands();
  TimeStands(const TimeStands&) = delete;
  TimeStands& operator=(const TimeStands&) = delete;
};

}  // namespace trireme::cuda::emulator
