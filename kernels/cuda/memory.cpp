#include "kernels/cuda/memory.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "kernels/cuda/allocator.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/recorder.h"
#include "kernels/device.h"

namespace trireme {

namespace cuda {

namespace {

thread_local Stream current = nullptr;
std::atomic<int> chosen{0};

/// One device a process: that of its rank.
struct MainDevice {
  Stream stream;
  // Memory that work uses which is only recorded so far must stay.
  CachingAllocator allocator{[](Stream of) {
    submit_recorded();
    return !is_held(of);
  }};
};

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
  void operator()(Stream stream) const { copy_on_device(to, from, bytes, stream); }
};

MainDevice& main_device() {
  take_device();
  // Never destroyed: tensors with static storage may outlive everything.
  static MainDevice* const device = [] {
    auto* made = new MainDevice;
    made->stream = make_stream();
    return made;
  }();
  return *device;
}

/// Allocates memory. If the memory is full of blocks that another thread's recorder still holds, waits until
/// that recorder has started its work, for about 10 seconds at most. Then it throws the allocator's Error.
void* allocate_beside_recorders(std::size_t bytes) {
  using namespace std::chrono_literals;
  MainDevice& device = main_device();
  for (int tries = 0;; ++tries) {
    try {
      return device.allocator.allocate(bytes, stream_as_it_is());
    } catch (const Error&) {
      if (tries == 1000 || !is_held(device.stream)) throw;
    }
    std::this_thread::sleep_for(10ms);
  }
}

void* allocate_here(std::size_t bytes) {
  CachingAllocator& allocator = main_device().allocator;
  Recorder* const here = recording();
  if (!here) return allocate_beside_recorders(bytes);
  void* const memory = allocator.allocate(bytes, stream_as_it_is(), here->wanted_memory(bytes));
  here->got_memory(memory, bytes);
  return memory;
}

}  // namespace

void choose_device(int index) { chosen = index; }

void take_device() {
  static thread_local const bool taken = (use_device(chosen), true);
  static_cast<void>(taken);
}

Stream stream() {
  submit_recorded();
  const Stream here = stream_as_it_is();
  check_not_held(here);
  return here;
}

Stream stream_as_it_is() {
  take_device();
  return current ? current : main_device().stream;
}

StreamScope::StreamScope(Stream other) : before_((take_device(), std::exchange(current, other))) {}
StreamScope::~StreamScope() { current = before_; }

void used_on(void* memory, Stream other) { main_device().allocator.used_on(memory, other); }

Scratch::Scratch(std::size_t bytes) : data_(allocate_here(bytes)) {}
Scratch::~Scratch() { main_device().allocator.free(data_); }

Aligned::Aligned(void* data, std::size_t bytes) : data_(data), bytes_(bytes) {
  if (reinterpret_cast<std::uintptr_t>(data) % kBytes == 0) return;
  copy_.emplace(bytes);
  enqueue_call(Copy{get(), data_, bytes_});
}

void Aligned::write_back() const {
  if (copy_) enqueue_call(Copy{data_, get(), bytes_});
}

void release_cached_memory() { main_device().allocator.release_unused(); }

}  // namespace cuda

void* cuda_allocate(std::size_t bytes) { return cuda::allocate_here(bytes); }
void cuda_deallocate(void* memory, std::size_t) noexcept {
  try {
    cuda::main_device().allocator.free(memory);
  } catch (const std::exception&) {
    // The process ends, and the runtime was gone before the last tensor.
  }
}

namespace cuda {

void copy_from_host(void* device, const void* host, std::size_t bytes) { upload(device, host, bytes); }

void copy_to_host(void* host, const void* device, std::size_t bytes) {
  copy_to_host(host, device, bytes, stream());
  synchronize(stream());
}

}  // namespace cuda

void* cuda_allocate_host(std::size_t bytes) {
  cuda::take_device();
  return cuda::pinned_malloc(bytes);
}
void cuda_deallocate_host(void* memory) noexcept { cuda::pinned_free(memory); }

AllocatorStatistics cuda_allocator_statistics() {
  const auto s = cuda::main_device().allocator.statistics();
  return {s.reserved_bytes, s.used_bytes};
}

}  // namespace trireme
