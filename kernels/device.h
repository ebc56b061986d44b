// Where memory lives and kernels run.
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

/// "cpu", "cuda:0".
inline std::string name_of(Device device) {
  return device.is_cpu() ? "cpu" : "cuda:" + std::to_string(device.index);
}

/// Memory of a device from its caching allocator: uninitialized, aligned to 64 bytes or more.
/// Thread-safe. Throws Error(kInternal) when there is none left. allocate(0) gives a valid pointer.
void* allocate(Device device, std::size_t bytes);
/// Gives back what allocate returned; `bytes` must be the same.
void deallocate(Device device, void* memory, std::size_t bytes) noexcept;

/// Host memory that copies from and to a device can use while the host goes on. Throws as allocate().
void* allocate_host(Device device, std::size_t bytes);
void deallocate_host(Device device, void* memory, std::size_t bytes) noexcept;

/// Bytes on their way from the host to a device that is not the CPU, beside its work. Any thread may make
/// one.
class Upload {
 public:
  /// Has read `host` when it returns. Waits for the device only where memory is short: of it, or of buffers.
  Upload(Device device, const void* host, std::size_t bytes);
  ~Upload();
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;
  /// Kernels that this thread enqueues from now on find the bytes at `to`. Once.
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
