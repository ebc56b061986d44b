// The interface through which a profiler observes what a thread computes. A thread without an observer pays
// only for the test of a thread-local pointer.
#pragma once

#include <span>

#include "kernels/device.h"
#include "kernels/table.h"

namespace trireme {

class Tensor;

class Observer {
 public:
  virtual ~Observer() = default;
  /// Returns the kernels that the thread calls in place of the device's own ones.
  virtual const KernelTable& kernels(Device device) = 0;
  /// Is called after an op has computed `out`.
  virtual void op_done(const char* op, const Tensor& out, std::span<const Tensor* const> inputs) = 0;
  /// Is called before backward runs a node of this op. Calls nest if a node runs a backward pass of its own.
  virtual void backward_begins(const char* op) = 0;
  virtual void backward_ends() = 0;
  virtual void allocated(const void* memory, std::size_t bytes) = 0;
  virtual void freed(const void* memory) = 0;
};

/// The observer of this thread, or null. Code that sets it restores the previous value afterwards.
inline thread_local constinit Observer* observer = nullptr;

/// Returns the kernels that core calls on `device`: the observer's ones if this thread has an observer, else
/// the device's own.
inline const KernelTable& kernels_for(Device device) {
  return observer ? observer->kernels(device) : kernels_of(device);
}

}  // namespace trireme
