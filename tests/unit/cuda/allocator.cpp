// Tests the caching allocator on an emulated device.
#include "kernels/cuda/allocator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/memory.h"
#include "kernels/rng.h"
#include "tests/support/cuda_emulator/emulator.h"
#include "tests/support/errors.h"

namespace trireme::cuda {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

TEST(CudaAllocator, GivesBackToTheSameStreamAtOnce) {
  CachingAllocator allocator;
  const Stream stream = make_stream();
  void* const first = allocator.allocate(1000, stream);
  emulator::enqueue(stream, [] {});  // does not run until the host waits
  allocator.free(first);
  EXPECT_EQ(allocator.allocate(1024, stream), first);
  EXPECT_EQ(emulator::pending(), 1u) << "nobody waited";
  synchronize(stream);
}

TEST(CudaAllocator, GivesWhatIsWantedIfItIsFree) {
  CachingAllocator allocator;
  const Stream stream = make_stream(), other = make_stream();
  std::set<void*> used;
  const auto get = [&](std::size_t bytes, Stream on, void* wanted = nullptr) {
    void* const memory = allocator.allocate(bytes, on, wanted);
    EXPECT_TRUE(used.insert(memory).second);
    return static_cast<char*>(memory);
  };
  const auto give = [&](void* memory) {
    used.erase(memory);
    allocator.free(memory);
  };
  char* const all = get(8192, stream);
  char* const behind = get(512, stream);
  give(all);
  EXPECT_EQ(get(1024, stream, all + 2048), all + 2048) << "out of the middle of a free block";
  EXPECT_EQ(get(2048, stream), all) << "what is before it is a block";
  EXPECT_EQ(get(5120, stream), all + 3072) << "and what is behind it";
  EXPECT_NE(get(512, stream, all + 2048), all + 2048) << "in use";
  EXPECT_NE(get(512, stream, all + 2560), all + 2560) << "in the middle of a used one";
  for (char* memory : {all, all + 2048, all + 3072}) give(memory);
  EXPECT_NE(get(16384, stream, all), all) << "too small";
  EXPECT_NE(get(512, other, all), all) << "another stream's";
  EXPECT_EQ(get(8192, stream, all), all) << "its pieces are one again";
  EXPECT_NE(get(512, stream, behind), behind);
  EXPECT_NE(get(512, stream, reinterpret_cast<void*>(1)), nullptr) << "nobody's";
  for (void* memory : used) allocator.free(memory);
}

TEST(CudaAllocatorDeathTest, MemoryIsGivenBackOnce) {
  CachingAllocator allocator;
  void* const memory = allocator.allocate(100, make_stream());
  allocator.free(memory);
  EXPECT_DEATH(allocator.free(memory), "is given back twice");
}

TEST(CudaAllocator, AsksTheDriverSeldom) {
  CachingAllocator allocator;
  const Stream stream = make_stream();
  std::size_t after_two_steps = 0;
  for (int step = 0; step < 6; ++step) {
    std::vector<void*> blocks;
    for (std::size_t i = 1; i < 60; ++i) blocks.push_back(allocator.allocate(i * i * 3000, stream));
    for (void* block : blocks) allocator.free(block);
    if (step == 1) after_two_steps = allocator.statistics().driver_calls;
  }
  EXPECT_EQ(allocator.statistics().driver_calls, after_two_steps);
  EXPECT_EQ(allocator.statistics().used_bytes, 0u);
}

TEST(CudaAllocator, SplitsAndMerges) {
  CachingAllocator allocator;
  const Stream stream = make_stream();
  std::vector<void*> blocks;
  for (int i = 0; i < 2048; ++i) blocks.push_back(allocator.allocate(1024, stream));
  EXPECT_EQ(allocator.statistics().reserved_bytes, 2 * kMiB) << "one small segment";
  EXPECT_EQ(std::set<void*>(blocks.begin(), blocks.end()).size(), blocks.size());
  for (std::size_t i = 0; i < blocks.size(); i += 2) allocator.free(blocks[i]);
  for (std::size_t i = 1; i < blocks.size(); i += 2) allocator.free(blocks[i]);
  void* const whole = allocator.allocate(kMiB, stream);
  void* const other = allocator.allocate(kMiB, stream);
  EXPECT_EQ(allocator.statistics().reserved_bytes, 2 * kMiB) << "all pieces became one again";
  allocator.free(whole);
  allocator.free(other);
}

TEST(CudaAllocator, StreamsDoNotShare) {
  CachingAllocator allocator;
  const Stream a = make_stream(), b = make_stream();
  void* const first = allocator.allocate(1 << 20, a);
  allocator.free(first);
  void* const second = allocator.allocate(1 << 20, b);
  EXPECT_NE(second, first) << "work on a may still use it";
  allocator.free(second);
}

TEST(CudaAllocator, WaitsForOtherStreamsThatUseABlock) {
  CachingAllocator allocator;
  const Stream a = make_stream(), b = make_stream();
  void* const block = allocator.allocate(4096, a);
  allocator.used_on(block, b);
  bool ran = false;
  emulator::enqueue(b, [&] { ran = true; });
  emulator::enqueue(b, [] {});
  emulator::enqueue(b, [] {});
  allocator.free(block);
  EXPECT_EQ(allocator.statistics().waiting_bytes, 4096u);
  void* const next = allocator.allocate(4096, a);
  EXPECT_NE(next, block);
  synchronize(b);
  EXPECT_TRUE(ran);
  void* const again = allocator.allocate(4096, a);
  EXPECT_EQ(again, block);
  EXPECT_EQ(allocator.statistics().waiting_bytes, 0u);
  allocator.free(next);
  allocator.free(again);
}

TEST(CudaAllocator, WaitsBeforeItGivesASegmentBack) {
  CachingAllocator allocator;
  const Stream stream = make_stream();
  auto* const block = static_cast<char*>(allocator.allocate(kMiB, stream));
  emulator::enqueue(stream, [block] { block[0] = 1; });
  allocator.free(block);
  allocator.release_unused();
  EXPECT_EQ(emulator::pending(), 0u);
  EXPECT_EQ(allocator.statistics().reserved_bytes, 0u);
}

TEST(CudaAllocator, GivesUnusedSegmentsBackBeforeItFails) {
  emulator::set_device_bytes(64 * kMiB);
  {
    CachingAllocator allocator;
    const Stream stream = make_stream();
    void* const large = allocator.allocate(40 * kMiB, stream);
    allocator.free(large);
    void* const two = allocator.allocate(60 * kMiB, stream);  // does not fit in addition to the first
    EXPECT_NE(two, nullptr);
    EXPECT_EQ(allocator.statistics().reserved_bytes, 60 * kMiB);
    const std::string error = test::error_of([&] { allocator.allocate(8 * kMiB, stream); });
    test::expect_holds(error, {"out of memory", "8388608 bytes", "1 x 60.0 MiB", "--global-batch"});
    EXPECT_EQ(error.find('\n'), std::string::npos);
    allocator.free(two);
    void* const after = allocator.allocate(8 * kMiB, stream);
    EXPECT_NE(after, nullptr) << "a failure leaves all in order";
    allocator.free(after);
  }
  emulator::set_device_bytes(std::size_t{1} << 30);
}

/// Tests that blocks never overlap for any order of calls, and that all memory is freed in the end.
TEST(CudaAllocator, RandomCalls) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    CachingAllocator allocator;
    const Stream streams[] = {make_stream(), make_stream()};
    std::map<char*, std::size_t> held;
    std::size_t bytes_held = 0;
    for (std::uint64_t i = 0; i < 500; ++i) {
      const auto draw = philox({seed}, 1, i);
      if (draw[0] % 5 < 3 && bytes_held < 50 * kMiB) {
        const std::size_t bytes = std::size_t{1} << draw[1] % 23 | draw[2] % 5000;
        auto* const block = static_cast<char*>(allocator.allocate(bytes, streams[draw[3] % 2]));
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % 512, 0u);
        const auto after = held.lower_bound(block);
        ASSERT_TRUE(after == held.end() || block + bytes <= after->first);
        ASSERT_TRUE(after == held.begin() || std::prev(after)->first + std::prev(after)->second <= block);
        held[block] = bytes;
        bytes_held += bytes;
      } else if (!held.empty()) {
        const auto pick = std::next(held.begin(), draw[1] % held.size());
        if (draw[2] % 4 == 0) {
          allocator.used_on(pick->first, streams[draw[3] % 2]);
          emulator::enqueue(streams[draw[3] % 2], [] {});
        }
        if (draw[2] % 50 == 1) allocator.release_unused();
        allocator.free(pick->first);
        bytes_held -= pick->second;
        held.erase(pick);
      }
    }
    for (const auto& [block, bytes] : held) allocator.free(block);
    allocator.release_unused();
    const auto s = allocator.statistics();
    EXPECT_EQ(s.used_bytes, 0u);
    EXPECT_EQ(s.waiting_bytes, 0u);
    EXPECT_EQ(s.reserved_bytes, 0u);
  }
}

}  // namespace
}  // namespace trireme::cuda
