// Memory that collectives work on, for as long as an object lives.
#pragma once

#include <cstddef>

#include "kernels/device.h"

namespace trireme {

/// From Take(device, bytes), given back to Give(device, memory, bytes). Uninitialized.
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
/// Of the host, for a device to write to while the host goes on.
using HostMemory = OwnedMemory<allocate_host, deallocate_host>;

}  // namespace trireme
