// Device memory and the stream that this thread works on. Include only from kernels/cuda and
// distributed/comm.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <utility>

#include "kernels/cuda/runtime.h"

namespace trireme::cuda {

/// Says which GPU this process works on, before anything else here is called; without it, device 0.
void choose_device(int index);

/// Makes that GPU the one of this thread: CUDA keeps it per thread. Streams, events, handles of libraries and
/// memory are made on it, so each way to them begins here. Cheap after the thread's first call.
void take_device();

/// Returns the stream of this thread's kernels and copies. That is the device's main stream, which all
/// threads share, unless a StreamScope is alive. Takes the device, and first starts the work that was
/// recorded before (recorder.h). Throws Error(kUsage) if another thread's recorder holds work for it.
Stream stream();
/// Returns the same stream as stream(), but does not start recorded work.
Stream stream_as_it_is();

/// Makes this thread work on another stream during its lifetime. Takes the device.
class StreamScope {
 public:
  explicit StreamScope(Stream other);
  ~StreamScope();
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  Stream before_;
};

/// A place in a stream: an event of its own.
class Mark {
 public:
  Mark() : event_((take_device(), make_event())) {}
  ~Mark() { free_event(event_); }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  Event get() const { return event_; }

 private:
  Event event_;
};

/// Says that work which was given to `other` uses memory that was allocated under another stream: it is not
/// given out again before that work is done.
void used_on(void* memory, Stream other);

/// Memory for the work that a call enqueues: goes back, in stream order, at its end.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* const data_;
};

/// Memory at a multiple of 16 bytes with the contents of `data`: `data` itself, where it is one. Libraries
/// choose other kernels for other alignments; by this their choice, and with it the bits of results, does not
/// depend on where memory lies.
class Aligned {
 public:
  static constexpr std::size_t kBytes = 16;
  Aligned(void* data, std::size_t bytes);
  void* get() const { return copy_ ? copy_->as<void>() : data_; }
  /// Takes a result that was written to get() to where it belongs.
  void write_back() const;

 private:
  void* data_;
  std::size_t bytes_;
  std::optional<Scratch> copy_;
};

/// Copies host memory, which may be written to or go away at once; enqueued on stream(), without a wait
/// but where pinned buffers are at their most.
void upload(void* device, const void* host, std::size_t bytes);

/// Device memory with these bytes, for work that this thread enqueues now. Asked for step after step it is
/// made once: nothing is copied, and the address stays.
const void* kept_on_device(std::span<const std::byte> bytes);

/// Frees whatever the allocator holds but nobody uses. Waits for the device.
void release_cached_memory();

}  // namespace trireme::cuda
