// An emulated GPU: implements kernels/cuda/runtime.h with host memory and queues, for tests on machines
// without a GPU.
//
// It is stricter than a GPU. Work of a stream runs only when the host waits for it or asks whether it is
// done, so that a missing wait shows. Only that work can access device memory, so that host code crashes if
// it dereferences a device pointer. The first MiB of new device memory holds NaN. After each block there is
// memory that crashes any access.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <utility>

#include "kernels/cuda/runtime.h"

namespace trireme::cuda::emulator {

/// The type of Kernel::function in the emulator.
using KernelFunction = void (*)(std::int64_t count, const void* functor);

/// Enqueues work on a stream.
void enqueue(Stream stream, std::function<void()> work);
/// Enqueues work that blocks its stream until `may_run` returns true.
void enqueue_when(Stream stream, std::function<bool()> may_run, std::function<void()> work);
/// Runs the work of the event's stream up to the event. Returns false if some of it may not run yet.
bool reaches(Event event);

/// Runs fn(0) ... fn(lanes - 1) as fibers that synchronize in exchange().
void run_lanes(int lanes, const std::function<void(int)>& fn);
struct Slot {
  std::array<std::uint64_t, 2> words;
};
/// Publishes `value` and returns the value of lane `from`. All lanes of run_lanes() must call it.
Slot exchange(int lane, const Slot& value, int from);

/// Returns true if a capture of `stream` is open.
bool is_capturing(Stream stream);
/// Aborts the program if this thread has an open capture. Emulated libraries call this when they initialise
/// or make a plan, because the real ones may synchronize the device then, which invalidates the capture.
void making_plan();
/// Aborts the program if `stream` captures `code` that has never been launched without a capture. A first
/// launch may load code and so synchronize the device, which invalidates the capture.
void starting(const void* code, Stream stream);

/// Registers emulated functions of a shared library by name, for kernels/cuda/library.h. Call it during
/// static initialisation. Returns true.
bool provide(std::initializer_list<std::pair<const char*, void*>> functions);
template <class F>
void* pointer(F* function) {
  return reinterpret_cast<void*>(function);
}

/// Sets the size of the device's memory. Allocations beyond it fail.
void set_device_bytes(std::size_t bytes);
/// Returns the number of calls of device_malloc since the program began.
std::size_t device_mallocs();
/// Returns the number of calls of pinned_malloc since the program began.
std::size_t pinned_mallocs();
/// Returns how often the host has waited for a stream or an event.
std::size_t waits();
/// Returns the number of calls of the fused attention kernel.
int fused_attentions();
/// Makes the next `count` queries of cuBLASLt's heuristic fail with an allocation error.
void fail_heuristics(int count);
/// Returns the number of executable graphs that exist.
int ready_graphs();
/// Sets a function that make_ready() calls, to emulate the time that it takes to make a graph executable.
void set_while_making_ready(std::function<void()> fn);
/// Returns the number of work items that wait in all streams.
std::size_t pending();
/// Returns the number of a stream's work items that have run.
std::size_t done(Stream stream);
/// While an object of this class exists, is_done() runs no work on this thread. A loop over is_done() then
/// only ends if another thread runs the work.
class TimeStands {
 public:
  TimeStands();
  ~TimeStands();
  TimeStands(const TimeStands&) = delete;
  TimeStands& operator=(const TimeStands&) = delete;
};

}  // namespace trireme::cuda::emulator
