#include "kernels/cuda/allocator.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace trireme::cuda {

namespace {

constexpr std::size_t kUnit = 512;  // blocks are multiples of it
constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kSmall = kMiB;  // up to here blocks come from small segments
constexpr std::size_t kSmallSegment = 2 * kMiB, kMiddleSegment = 20 * kMiB;
constexpr std::size_t kMiddle = 10 * kMiB;  // up to here from middle ones; else its own

std::size_t rounded(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

std::size_t segment_for(std::size_t bytes) {
  if (bytes <= kSmall) return kSmallSegment;
  return bytes <= kMiddle ? kMiddleSegment : rounded(bytes, kSmallSegment);
}

}  // namespace

bool CachingAllocator::is_small(std::size_t bytes) { return bytes <= kSmall; }

CachingAllocator::~CachingAllocator() {
  try {
    release_unused();
  } catch (const std::exception&) {
    // The device is gone; so is its memory.
  }
}

CachingAllocator::Pool& CachingAllocator::pool_of(const Block& block) {
  return pools_[{block.stream, block.segment_bytes == kSmallSegment}];
}

void* CachingAllocator::allocate(std::size_t bytes, Stream stream, void* wanted) {
  const std::size_t size = rounded(std::max<std::size_t>(bytes, 1), kUnit);
  std::lock_guard lock(mutex_);
  collect_waiting(false);
  Block* block = wanted ? find_at(static_cast<char*>(wanted), size, stream) : nullptr;
  if (!block) block = find_free(size, stream);
  if (!block) block = new_segment(size, stream);
  if (!block) {
    release_unused_locked();
    block = find_free(size, stream);  // what other streams held may have come back to this one
    if (!block) block = new_segment(size, stream);
  }
  if (!block) fail_full(bytes);
  split(block, size);
  block->used = true;
  statistics_.used_bytes += block->bytes;
  return block->memory;
}

CachingAllocator::Block* CachingAllocator::find_free(std::size_t bytes, Stream stream) {
  Pool& pool = pools_[{stream, is_small(bytes)}];
  const auto found = pool.lower_bound(bytes);
  if (found == pool.end()) return nullptr;
  Block* const block = *found;
  // A large block is not broken for one that leaves most of it unused and would keep it from its like.
  if (!is_small(bytes) && bytes > kMiddle && block->bytes > bytes + kMiddleSegment) return nullptr;
  pool.erase(found);
  return block;
}

CachingAllocator::Block* CachingAllocator::find_at(char* wanted, std::size_t bytes, Stream stream) {
  const auto after = blocks_.upper_bound(wanted);
  if (after == blocks_.begin()) return nullptr;
  Block* const block = std::prev(after)->second.get();
  const auto before = static_cast<std::size_t>(wanted - block->memory);
  if (block->bytes < before + bytes || block->stream != stream) return nullptr;
  Pool& pool = pool_of(*block);
  if (!pool.erase(block)) return nullptr;  // in use
  if (before == 0) return block;
  Block* const rest = cut(block, before);
  pool.insert(block);
  return rest;
}

CachingAllocator::Block* CachingAllocator::new_segment(std::size_t bytes, Stream stream) {
  const std::size_t segment = segment_for(bytes);
  ++statistics_.driver_calls;
  void* const memory = device_malloc(segment);
  if (!memory) return nullptr;
  statistics_.reserved_bytes += segment;
  auto block = std::make_unique<Block>();
  block->memory = static_cast<char*>(memory);
  block->bytes = block->segment_bytes = segment;
  block->stream = stream;
  return (blocks_[block->memory] = std::move(block)).get();
}

CachingAllocator::Block* CachingAllocator::cut(Block* block, std::size_t bytes) {
  auto rest = std::make_unique<Block>();
  rest->memory = block->memory + bytes;
  rest->bytes = block->bytes - bytes;
  rest->stream = block->stream;
  rest->segment_bytes = block->segment_bytes;
  rest->before = block;
  rest->after = block->after;
  if (rest->after) rest->after->before = rest.get();
  block->after = rest.get();
  block->bytes = bytes;
  return (blocks_[rest->memory] = std::move(rest)).get();
}

void CachingAllocator::split(Block* block, std::size_t bytes) {
  const std::size_t rest = block->bytes - bytes;
  // What is left of a large block is worth keeping if other large ones fit in.
  if (block->segment_bytes == kSmallSegment ? rest < kUnit : rest <= kSmall) return;
  pool_of(*block).insert(cut(block, bytes));
}

void CachingAllocator::free(void* memory) noexcept {
  if (!memory) return;
  std::lock_guard lock(mutex_);
  const auto found = blocks_.find(static_cast<char*>(memory));
  if (found == blocks_.end()) return;  // not ours: nothing that a noexcept function could do about it
  Block* const block = found->second.get();
  if (!block->used) {
    fmt::print(stderr, "cuda: device memory {} is given back twice\n", memory);
    std::abort();  // whoever has it now would lose it
  }
  block->used = false;
  statistics_.used_bytes -= block->bytes;
  try {
    if (block->others.empty()) return put_back(block);
    Waiting waiting{block, {}};
    for (const Stream other : block->others) {
      waiting.events.push_back(make_event());
      record(waiting.events.back(), other);
    }
    block->others.clear();
    statistics_.waiting_bytes += block->bytes;
    waiting_.push_back(std::move(waiting));
  } catch (const std::exception&) {
    // The device failed; the block stays out of use, and the next call says what happened.
  }
}

void CachingAllocator::used_on(void* memory, Stream other) {
  std::lock_guard lock(mutex_);
  const auto found = blocks_.find(static_cast<char*>(memory));
  TRIREME_CHECK(found != blocks_.end() && found->second->used, "cuda: used_on: {} is no allocated block",
                memory);
  if (other != found->second->stream) found->second->others.insert(other);
}

void CachingAllocator::merge(Block* block, Block* with) {
  block->bytes += with->bytes;
  block->after = with->after;
  if (block->after) block->after->before = block;
  blocks_.erase(with->memory);
}

void CachingAllocator::put_back(Block* block) {
  Pool& pool = pool_of(*block);
  // Blocks that wait for events are in no pool.
  if (Block* const after = block->after; after && pool.erase(after)) merge(block, after);
  if (Block* const before = block->before; before && pool.erase(before)) {
    merge(before, block);
    block = before;
  }
  pool.insert(block);
}

void CachingAllocator::collect_waiting(bool wait) {
  for (auto w = waiting_.begin(); w != waiting_.end();) {
    while (!w->events.empty()) {
      if (wait)
        synchronize(w->events.back());
      else if (!is_done(w->events.back()))
        break;
      free_event(w->events.back());
      w->events.pop_back();
    }
    if (!w->events.empty()) {
      ++w;
      continue;
    }
    statistics_.waiting_bytes -= w->block->bytes;
    put_back(w->block);
    w = waiting_.erase(w);
  }
}

void CachingAllocator::release_unused() {
  std::lock_guard lock(mutex_);
  release_unused_locked();
}

void CachingAllocator::release_unused_locked() {
  collect_waiting(true);
  for (auto& [key, pool] : pools_) {
    if (!may_release_(key.first)) continue;
    bool waited = false;
    for (auto b = pool.begin(); b != pool.end();) {
      Block* const block = *b;
      if (block->before || block->after) {
        ++b;
        continue;
      }
      // Work that was enqueued before the block came back may still use it.
      if (!waited) synchronize(key.first);
      waited = true;
      b = pool.erase(b);
      ++statistics_.driver_calls;
      statistics_.reserved_bytes -= block->bytes;
      device_free(block->memory);
      blocks_.erase(block->memory);
    }
  }
}

CachingAllocator::Statistics CachingAllocator::statistics() const {
  std::lock_guard lock(mutex_);
  return statistics_;
}

void CachingAllocator::fail_full(std::size_t bytes) const {
  std::map<std::size_t, std::size_t, std::greater<>> held;  // size -> number of used blocks
  for (const auto& [memory, block] : blocks_)
    if (block->used) ++held[block->bytes];
  std::vector<std::pair<std::size_t, std::size_t>> most(held.begin(), held.end());
  std::ranges::stable_sort(most, std::greater(), [](const auto& h) { return h.first * h.second; });
  std::string who;
  for (std::size_t i = 0; i < std::min<std::size_t>(3, most.size()); ++i)
    who += fmt::format("{}{} x {:.1f} MiB", i ? ", " : "", most[i].second,
                       static_cast<double>(most[i].first) / static_cast<double>(kMiB));
  const MemoryInfo info = memory_info();
  fail(ExitCode::kUsage,
       "cuda: out of memory: {} bytes more are needed; of {} on the device {} are free, this process holds "
       "{} and "
       "uses {} (most of it {}); use a smaller --global-batch, more ranks, or recompute activations",
       bytes, info.total, info.free, statistics_.reserved_bytes, statistics_.used_bytes,
       who.empty() ? "nothing" : who);
}

}  // namespace trireme::cuda
