// Device memory and the stream that this thread works on. Include only from kernels/cuda and
// distributed/comm.
#pragma once

#include <cstddef>
#include <utility>

#include "kernels/cuda/runtime.h"

namespace trireme::cuda {

/// Says which GPU this process works on, before anything else here is called; without it, device 0.
void choose_device(int index);

/// Where this thread's kernels and copies go: the device's one main stream, which all threads share, unless a
/// StreamScope says otherwise. The thread's first call takes the device.
Stream stream();

/// While alive, this thread works on another stream.
class StreamScope {
 public:
  explicit StreamScope(Stream other);
  ~StreamScope();
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  Stream before_;
};

/// Says that work on `other` uses memory that was allocated under another stream: it is not given out again
/// before that work is done.
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
  void* data_;
};

/// A value that the device made, for the host, which waits for it.
template <class T>
T fetch(const T* device) {
  T value;
  copy_to_host(&value, device, sizeof value, stream());
  synchronize(stream());
  return value;
}

/// Frees whatever the allocator holds but nobody uses. Waits for the device.
void release_cached_memory();

}  // namespace trireme::cuda
