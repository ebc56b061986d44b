// Copies from host memory that the host does not wait for: by way of pinned buffers.
#include <algorithm>
#include <bit>
#include <cstring>
#include <list>
#include <mutex>

#include "kernels/cuda/memory.h"

namespace trireme::cuda {

namespace {

constexpr std::size_t kSmallest = 4096, kMost = std::size_t{1} << 30;  // bytes: of a buffer, of all

/// Pinned buffers of powers of two. One is used again when the copy out of it has passed.
class Staging {
 public:
  /// False if buffers are at their most.
  bool copy(void* device, const void* host, std::size_t bytes) {
    Buffer* const buffer = take(std::bit_ceil(std::max(bytes, kSmallest)));
    if (!buffer) return false;
    std::memcpy(buffer->memory, host, bytes);
    copy_to_device(device, buffer->memory, bytes, stream());
    record(buffer->passed, stream());
    const std::lock_guard lock(mutex_);
    buffer->filling = false;
    return true;
  }

 private:
  struct Buffer {
    std::size_t bytes;
    void* memory;
    Event passed;
    bool filling = true;
  };

  Buffer* take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    for (Buffer& buffer : buffers_) {
      if (buffer.bytes != bytes || buffer.filling || !is_done(buffer.passed)) continue;
      buffer.filling = true;
      return &buffer;
    }
    if (bytes > kMost - total_) return nullptr;
    take_device();
    buffers_.push_back({bytes, pinned_malloc(bytes), make_event()});
    total_ += bytes;
    return &buffers_.back();
  }

  std::mutex mutex_;
  std::list<Buffer> buffers_;  // stay where they are
  std::size_t total_ = 0;
};

}  // namespace

void upload(void* device, const void* host, std::size_t bytes) {
  if (bytes == 0) return;
  static auto* const staging = new Staging;  // never destroyed: copies may be under way
  if (staging->copy(device, host, bytes)) return;
  copy_to_device(device, host, bytes, stream());
  synchronize(stream());
}

}  // namespace trireme::cuda
