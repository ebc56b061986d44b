// Owners of the memory that collectives use.
#pragma once

#include <cstddef>

#include "kernels/device.h"

namespace trireme {

/// Owns uninitialized memory: takes it from Take(device, bytes) and returns it to Give(device, memory,
/// bytes).
template <auto Take, auto Give>
class OwnedMemory {
 public:
  OwnedMemory(Device device, std::size_t bytes)
      : device_(device), bytes_(bytes), data_(static_cast<std::byte*>(Take(device, bytes))) {}
  ~OwnedMemory() { Give(device_, data_, bytes_); }
  OwnedMemory(const OwnedMemory&) = delete;
  OwnedMemory& operator=(const OwnedMemory&) = delete;
  std::byte* get() const { return data_; }

 private:
  Device device_;
  std::size_t bytes_;
  std::byte* data_;
};

using DeviceMemory = OwnedMemory<allocate, deallocate>;
/// CPU memory that a device can write to asynchronously.
using HostMemory = OwnedMemory<allocate_host, deallocate_host>;

}  // namespace trireme
