// Who looks on while a thread computes: a profiler. A thread without one pays a test of a thread-local.
#pragma once

#include <span>

#include "kernels/device.h"
#include "kernels/table.h"

namespace trireme {

class Tensor;

class Observer {
 public:
  virtual ~Observer() = default;
  /// What the thread calls in place of the device's own kernels.
  virtual const KernelTable& kernels(Device device) = 0;
  /// An op made `out`.
  virtual void op_done(const char* op, const Tensor& out, std::span<const Tensor* const> inputs) = 0;
  /// Backward runs a node of this op. Nodes nest where one runs a pass of its own.
  virtual void backward_begins(const char* op) = 0;
  virtual void backward_ends() = 0;
  virtual void allocated(const void* memory, std::size_t bytes) = 0;
  virtual void freed(const void* memory) = 0;
};

/// Of this thread; null: nobody looks on. Whoever sets it puts the former one back.
inline thread_local constinit Observer* observer = nullptr;

/// The kernels that core calls: those of the device, as the observer wants to see them.
inline const KernelTable& kernels_for(Device device) {
  return observer ? observer->kernels(device) : kernels_of(device);
}

}  // namespace trireme
