// A caching allocator of device memory, ordered by streams: memory that is given back is given out again to
// the same stream at once, though the work that used it may not have run yet (A. Paszke et al., "PyTorch: an
// imperative style, high-performance deep learning library", 2019, section 5.3).
//
// The driver is asked for whole segments, which are split into blocks; free neighbours are merged. Blocks of
// a stream serve that stream alone. Where work on another stream uses a block, it comes back once an event on
// that stream has passed.
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "kernels/cuda/runtime.h"

namespace trireme::cuda {

/// Allocates memory of one device, the current device of the calling thread. Thread-safe.
class CachingAllocator {
 public:
  struct Statistics {
    std::size_t reserved_bytes = 0;  ///< taken from the driver
    std::size_t used_bytes = 0;      ///< handed out, rounded
    std::size_t waiting_bytes = 0;   ///< given back, but work on other streams may still use it
    std::size_t driver_calls = 0;    ///< allocations and frees
  };

  /// `may_release` is asked before memory of a stream goes back to the driver: whether all work that uses it
  /// has been given to the stream.
  explicit CachingAllocator(std::function<bool(Stream)> may_release = [](Stream) { return true; })
      : may_release_(std::move(may_release)) {}
  ~CachingAllocator();
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  /// Uninitialized, aligned to 512 bytes, for work on `stream`. Throws Error(kUsage) that says who holds what
  /// when the device has no more, even after everything unused went back to the driver.
  /// The memory is `wanted` if that is free, and else as if nobody had asked for it.
  void* allocate(std::size_t bytes, Stream stream, void* wanted = nullptr);
  void free(void* memory) noexcept;
  void used_on(void* memory, Stream other);
  /// Gives segments without a used block back to the driver, after waiting for other streams.
  void release_unused();
  Statistics statistics() const;

 private:
  struct Block {
    char* memory = nullptr;
    std::size_t bytes = 0;
    Stream stream = nullptr;
    bool used = false;
    Block *before = nullptr, *after = nullptr;  ///< neighbours in the segment
    std::set<Stream> others;                    ///< that use it besides its own
    std::size_t segment_bytes = 0;              ///< size of the whole segment
  };
  struct BySize {
    using is_transparent = void;
    bool operator()(const Block* a, const Block* b) const {
      return a->bytes != b->bytes ? a->bytes < b->bytes : a->memory < b->memory;
    }
    bool operator()(const Block* a, std::size_t bytes) const { return a->bytes < bytes; }
  };
  using Pool = std::set<Block*, BySize>;
  struct Waiting {
    Block* block;
    std::vector<Event> events;
  };

  static bool is_small(std::size_t bytes);
  Pool& pool_of(const Block& block);
  Block* find_free(std::size_t bytes, Stream stream);
  Block* find_at(char* wanted, std::size_t bytes, Stream stream);
  Block* new_segment(std::size_t bytes, Stream stream);
  /// Leaves `bytes` of the block and returns the rest as one of its own, which is in no pool yet.
  Block* cut(Block* block, std::size_t bytes);
  void split(Block* block, std::size_t bytes);
  void put_back(Block* block);
  void merge(Block* block, Block* with);
  void collect_waiting(bool wait);
  void release_unused_locked();
  [[noreturn]] void fail_full(std::size_t bytes) const;

  const std::function<bool(Stream)> may_release_;
  mutable std::mutex mutex_;
  std::map<char*, std::unique_ptr<Block>> blocks_;  ///< all, by address
  std::map<std::pair<Stream, bool>, Pool> pools_;   ///< the free ones, small segments apart
  std::list<Waiting> waiting_;
  Statistics statistics_;
};

}  // namespace trireme::cuda
