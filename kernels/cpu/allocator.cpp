// A caching allocator: blocks are kept per size class and never given back to the system.
//
// Training asks for the same sizes every step, so after the first step no page is ever touched for
// the first time again (fresh pages cost more than the arithmetic on them). Large blocks are aligned
// to 2 MiB and ask for huge pages.
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "kernels/device.h"
#include "kernels/error.h"

namespace trireme {

void* cuda_allocate(std::size_t bytes);
AllocatorStatistics cuda_allocator_statistics();
void cuda_deallocate(void* memory, std::size_t bytes) noexcept;
void* cuda_allocate_host(std::size_t bytes);
void cuda_deallocate_host(void* memory) noexcept;

namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHuge = std::size_t{2} << 20;
constexpr std::size_t kAddressSpace = std::size_t{1} << 40;  // what sanitizers can serve
constexpr int kClasses = 64 * 4;
constexpr std::size_t kThreadCacheBytes = 64 * 1024;  // larger blocks go to the shared lists at once
constexpr std::size_t kThreadCacheBlocks = 64;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kPassThrough = true;  // so that the sanitizer sees every block's life
#else
constexpr bool kPassThrough = false;
#endif

/// Classes are 2^k * {1, 1.25, 1.5, 1.75}, so at most a fifth of a block is wasted.
struct SizeClass {
  int index;
  std::size_t bytes;
};

SizeClass size_class(std::size_t bytes) {
  if (bytes < 4 * kAlignment) {
    const std::size_t units = bytes == 0 ? 1 : (bytes + kAlignment - 1) / kAlignment;
    return {static_cast<int>(units) - 1, units * kAlignment};
  }
  const int power = std::bit_width(bytes - 1) - 1;  // 2^power < bytes <= 2^(power+1)
  const std::size_t base = std::size_t{1} << power, step = base / 4;
  const std::size_t steps = (bytes - base + step - 1) / step;
  return {4 * power + static_cast<int>(steps), base + steps * step};
}

struct Pool {
  std::mutex mutex;
  std::vector<void*> free[kClasses];
  char* slab = nullptr;
  std::size_t slab_left = 0;
  std::atomic<std::size_t> reserved{0};
  std::atomic<std::size_t> used{0};  ///< but for what the caches of threads count
  std::vector<struct ThreadCache*> caches;
};

Pool& pool() {
  static Pool* const instance = new Pool;  // outlives every static tensor
  return *instance;
}

void* map_huge(std::size_t bytes) {
  void* memory = std::aligned_alloc(kHuge, (bytes + kHuge - 1) / kHuge * kHuge);
  if (!memory) fail(ExitCode::kUsage, "allocate: out of memory: {} bytes more are needed", bytes);
  madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

/// Under the pool's lock.
void* take_fresh(Pool& p, std::size_t bytes) {
  if (bytes >= kHuge / 2) {
    void* memory = map_huge(bytes);
    p.reserved += (bytes + kHuge - 1) / kHuge * kHuge;
    return memory;
  }
  if (p.slab_left < bytes) {
    p.slab = static_cast<char*>(map_huge(kHuge));
    p.slab_left = kHuge;
    p.reserved += kHuge;
  }
  void* memory = p.slab;
  p.slab += bytes;
  p.slab_left -= bytes;
  return memory;
}

// Trivially destroyed, so it can still be asked after the cache of this thread is gone: tensors with
// static storage die later than that.
thread_local bool cache_is_gone = false;

struct ThreadCache {
  std::vector<void*> free[kClasses];
  /// Bytes handed out less those given back by this thread, modulo 2^64. Written by it alone, so that no
  /// locked instruction is needed.
  std::atomic<std::size_t> used{0};

  ThreadCache() {
    Pool& p = pool();
    std::lock_guard lock(p.mutex);
    p.caches.push_back(this);
  }
  ~ThreadCache() {
    cache_is_gone = true;
    Pool& p = pool();
    std::lock_guard lock(p.mutex);
    for (int c = 0; c < kClasses; ++c) p.free[c].insert(p.free[c].end(), free[c].begin(), free[c].end());
    std::erase(p.caches, this);
    p.used += used;
  }
  void count(std::size_t bytes) {
    used.store(used.load(std::memory_order_relaxed) + bytes, std::memory_order_relaxed);
  }
};

ThreadCache& thread_cache() {
  thread_local ThreadCache cache;
  return cache;
}

void* cpu_allocate(std::size_t bytes) {
  const SizeClass c = size_class(bytes);
  if (c.bytes <= kThreadCacheBytes && !cache_is_gone) {
    ThreadCache& cache = thread_cache();
    auto& own = cache.free[c.index];
    if (!own.empty()) {
      void* memory = own.back();
      own.pop_back();
      cache.count(c.bytes);
      return memory;
    }
  }
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  auto& shared = p.free[c.index];
  void* memory = shared.empty() ? take_fresh(p, c.bytes) : shared.back();
  if (!shared.empty()) shared.pop_back();
  p.used += c.bytes;
  return memory;
}

void cpu_deallocate(void* memory, std::size_t bytes) noexcept {
  const SizeClass c = size_class(bytes);
  if (c.bytes <= kThreadCacheBytes && !cache_is_gone) {
    ThreadCache& cache = thread_cache();
    auto& own = cache.free[c.index];
    if (own.size() < kThreadCacheBlocks) {
      own.push_back(memory);
      cache.count(-c.bytes);
      return;
    }
  }
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  p.used -= c.bytes;
  p.free[c.index].push_back(memory);
}

/// Memory and swap.
std::size_t machine_bytes() {
  struct sysinfo info {};
  if (sysinfo(&info) != 0) return kAddressSpace;
  return (static_cast<std::size_t>(info.totalram) + info.totalswap) * info.mem_unit;
}

}  // namespace

void* allocate(Device device, std::size_t bytes) {
  if (!device.is_cpu()) return cuda_allocate(bytes);
  // The system would promise them, and kill the process when it takes them.
  static const std::size_t most = std::min(machine_bytes(), kAddressSpace);
  if (bytes > most)
    fail(ExitCode::kUsage, "allocate: out of memory: {} bytes are more than the {} of this machine", bytes,
         most);
  if (!kPassThrough) return cpu_allocate(bytes);
  void* memory = nullptr;  // of this very size, so that no access behind it goes unseen
  if (posix_memalign(&memory, kAlignment, std::max<std::size_t>(bytes, 1)) != 0)
    fail(ExitCode::kUsage, "allocate: out of memory: {} bytes more are needed", bytes);
  pool().used += size_class(bytes).bytes;
  return memory;
}

void deallocate(Device device, void* memory, std::size_t bytes) noexcept {
  if (!memory) return;
  if (!device.is_cpu()) return cuda_deallocate(memory, bytes);
  if (!kPassThrough) return cpu_deallocate(memory, bytes);
  pool().used -= size_class(bytes).bytes;
  std::free(memory);
}

void* allocate_host(Device device, std::size_t bytes) {
  return device.is_cpu() ? allocate(kCpu, bytes) : cuda_allocate_host(bytes);
}

void deallocate_host(Device device, void* memory, std::size_t bytes) noexcept {
  if (device.is_cpu()) return deallocate(kCpu, memory, bytes);
  cuda_deallocate_host(memory);
}

AllocatorStatistics allocator_statistics(Device device) {
  if (!device.is_cpu()) return cuda_allocator_statistics();
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  std::size_t used = p.used;
  for (const ThreadCache* cache : p.caches) used += cache->used;
  return {p.reserved, used};
}

}  // namespace trireme
