// Device: the place of memory and kernels, with its allocator and uploads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace trireme {

enum class DeviceType : std::uint8_t { kCpu, kCuda };

struct Device {
  DeviceType type = DeviceType::kCpu;
  std::int8_t index = 0;
  bool operator==(const Device&) const = default;
  bool is_cpu() const { return type == DeviceType::kCpu; }
};

inline constexpr Device kCpu{};

/// Returns the device's name, such as "cpu" or "cuda:0".
inline std::string name_of(Device device) {
  return device.is_cpu() ? "cpu" : "cuda:" + std::to_string(device.index);
}

/// Returns uninitialized memory of a device from its caching allocator, aligned to 64 bytes or more. Any
/// thread may call. Throws Error(kInternal) if no memory is left. allocate(0) returns a valid pointer.
void* allocate(Device device, std::size_t bytes);
/// Frees memory from allocate(). `bytes` must be the number that was allocated.
void deallocate(Device device, void* memory, std::size_t bytes) noexcept;

/// Returns CPU memory for asynchronous copies from and to a device. Throws Error(kInternal) if no memory is
/// left.
void* allocate_host(Device device, std::size_t bytes);
void deallocate_host(Device device, void* memory, std::size_t bytes) noexcept;

/// An asynchronous copy from CPU memory to a device other than the CPU, which overlaps with the device's
/// kernels. Any thread may construct one.
class Upload {
 public:
  /// Starts the copy. `host` has been read when the constructor returns. It waits for the device only if
  /// device memory or buffers are short.
  Upload(Device device, const void* host, std::size_t bytes);
  ~Upload();
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;
  /// Makes the bytes available at `to` for kernels that this thread enqueues later. Call it at most once.
  void finish(void* to);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct AllocatorStatistics {
  std::size_t reserved_bytes = 0;  ///< taken from the operating system or driver
  std::size_t used_bytes = 0;      ///< handed out now (rounded to size classes)
};
AllocatorStatistics allocator_statistics(Device device);

}  // namespace trireme
