// Memory for the length of one call.
#pragma once

#include <cstddef>

#include "kernels/device.h"

namespace trireme::cpu {

/// From the caching allocator, uninitialized.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes) : bytes_(bytes), data_(allocate(kCpu, bytes)) {}
  ~Scratch() { deallocate(kCpu, data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* data() const { return data_; }

 private:
  std::size_t bytes_;
  void* data_;
};

}  // namespace trireme::cpu
