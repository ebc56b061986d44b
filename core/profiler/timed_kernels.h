// The CPU's kernels, each telling who looks on how long it ran. Not for other folders.
#pragma once

#include <cstdint>

#include "kernels/table.h"

namespace trireme::profiler {

class KernelClock {
 public:
  virtual ~KernelClock() = default;
  /// `name` is a string literal: "matmul", or of an elementwise kernel "relu". Times are Trace::now_ns().
  virtual void kernel_ran(const char* name, std::int64_t begin_ns, std::int64_t end_ns) = 0;
};

/// The clock that is told of this thread's kernels, or null.
inline thread_local constinit KernelClock* kernel_clock = nullptr;

/// Returns kernels that report to kernel_clock. Only a thread whose kernel_clock is set may call them.
const KernelTable& timed_kernels();

}  // namespace trireme::profiler
