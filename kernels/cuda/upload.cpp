// Copies from host memory that the host does not wait for: by way of pinned buffers.
#include <algorithm>
#include <bit>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <vector>

#include "kernels/cuda/memory.h"
#include "kernels/device.h"

namespace trireme {

namespace cuda {

namespace {

constexpr std::size_t kSmallest = 4096, kMost = std::size_t{1} << 30;  // bytes: of a buffer, of all

/// Pinned buffers of powers of two. One is used again when the copy out of it has passed.
class Staging {
 public:
  /// False if buffers are at their most.
  bool copy(void* device, const void* host, std::size_t bytes) {
    Buffer* const buffer = take(std::bit_ceil(std::max(bytes, kSmallest)));
    if (!buffer) return false;
    const struct Filled {
      Staging& staging;
      Buffer& buffer;
      ~Filled() {
        const std::lock_guard lock(staging.mutex_);
        buffer.filling = false;
      }
    } filled{*this, *buffer};
    std::memcpy(buffer->memory, host, bytes);
    copy_to_device(device, buffer->memory, bytes, stream());
    record(buffer->passed, stream());
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

namespace {

/// Returns the stream that copies batches to the device while the main stream works.
Stream copy_stream() {
  static const Stream one = (take_device(), make_stream());
  return one;
}

/// Bytes of kept_on_device().
struct Kept {
  const Stream stream;  ///< whose work alone finds them there
  const std::vector<std::byte> bytes;
  std::optional<Scratch> memory;

  Kept(Stream of, std::span<const std::byte> given) : stream(of), bytes(given.begin(), given.end()) {
    const Mark free;
    {
      // Of another stream's memory: here it would lie where the next step wants its own.
      const StreamScope scope(copy_stream());
      memory.emplace(bytes.size());
      record(free.get(), copy_stream());
    }
    wait_for(of, free.get());
  }
  ~Kept() { used_on(memory->as<void>(), stream); }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;
};

}  // namespace

const void* kept_on_device(std::span<const std::byte> bytes) {
  constexpr std::size_t kMostKept = 64;
  static std::mutex mutex;
  static auto& all = *new std::list<Kept>;  // the last used first; never destroyed: work may be under way
  const std::lock_guard lock(mutex);
  const Stream here = stream_as_it_is();
  const auto found = std::ranges::find_if(
      all, [&](const Kept& kept) { return kept.stream == here && std::ranges::equal(kept.bytes, bytes); });
  if (found != all.end()) {
    all.splice(all.begin(), all, found);
    return all.front().memory->as<void>();
  }
  const Stream started = stream();  // also the work that uses what goes now
  std::list<Kept> made;
  Kept& kept = made.emplace_back(started, bytes);
  upload(kept.memory->as<void>(), bytes.data(), bytes.size());
  if (all.size() == kMostKept) all.pop_back();
  all.splice(all.begin(), made);
  return kept.memory->as<void>();
}

}  // namespace cuda

/// The bytes arrive in memory of the copying stream and move on inside of the device: so neither stream waits
/// for memory of the other, and kernels find each batch where they found the last one.
struct Upload::State {
  std::size_t bytes;
  cuda::Scratch memory{bytes};
  cuda::Mark arrived;
};

Upload::Upload(Device, const void* host, std::size_t bytes) {
  const cuda::StreamScope scope(cuda::copy_stream());
  state_.reset(new State{bytes});
  cuda::upload(state_->memory.as<void>(), host, bytes);
  cuda::record(state_->arrived.get(), cuda::stream());
}

Upload::~Upload() = default;

void Upload::finish(void* to) {
  const cuda::Stream here = cuda::stream();
  void* const from = state_->memory.as<void>();
  cuda::wait_for(here, state_->arrived.get());
  cuda::copy_on_device(to, from, state_->bytes, here);
  cuda::used_on(from, here);
  state_.reset();
}

}  // namespace trireme
