#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "kernels/device.h"

namespace trireme {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kCaching = false;  // blocks come directly from the sanitizer's malloc
#else
constexpr bool kCaching = true;
#endif

std::size_t used() { return allocator_statistics(kCpu).used_bytes; }

TEST(Allocator, GivesAlignedMemoryOfEverySize) {
  std::vector<std::pair<void*, std::size_t>> blocks;
  for (std::size_t power = 0; power <= 24; ++power)
    for (std::size_t bytes : {(std::size_t{1} << power) - 1, std::size_t{1} << power,
                              (std::size_t{1} << power) + 1, (std::size_t{5} << power) / 4})
      blocks.emplace_back(allocate(kCpu, bytes), bytes);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto [memory, bytes] = blocks[i];
    ASSERT_NE(memory, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % 64, 0u) << bytes;
    std::memset(memory, static_cast<int>(i % 251), bytes);
  }
  for (std::size_t i = 0; i < blocks.size(); ++i)  // blocks must not overlap
    for (std::size_t k = 0; k < blocks[i].second; k += 97)
      ASSERT_EQ(static_cast<unsigned char*>(blocks[i].first)[k], i % 251) << "block of " << blocks[i].second;
  for (const auto& [memory, bytes] : blocks) deallocate(kCpu, memory, bytes);
}

TEST(Allocator, GivesDifferentBlocksOfZeroBytes) {
  void *a = allocate(kCpu, 0), *b = allocate(kCpu, 0);
  EXPECT_NE(a, nullptr);
  EXPECT_NE(a, b);
  deallocate(kCpu, a, 0);
  deallocate(kCpu, b, 0);
  deallocate(kCpu, nullptr, 100);
}

TEST(Allocator, UsesABlockAgain) {
  if (!kCaching) GTEST_SKIP() << "not caching under the address sanitizer";
  for (std::size_t bytes : {std::size_t{0}, std::size_t{64}, std::size_t{256}, std::size_t{1000},
                            std::size_t{1} << 16, std::size_t{1} << 20, std::size_t{5} << 20}) {
    void* first = allocate(kCpu, bytes);
    deallocate(kCpu, first, bytes);
    const std::size_t reserved = allocator_statistics(kCpu).reserved_bytes;
    void* again = allocate(kCpu, bytes);
    EXPECT_EQ(again, first) << bytes;
    EXPECT_EQ(allocator_statistics(kCpu).reserved_bytes, reserved);
    deallocate(kCpu, again, bytes);
  }
}

TEST(Allocator, WastesAtMostAFifth) {
  if (!kCaching) GTEST_SKIP() << "not counted under the address sanitizer";
  for (std::size_t bytes = 256; bytes < (std::size_t{1} << 23); bytes += 1 + bytes / 7) {
    const std::size_t before = used();
    void* memory = allocate(kCpu, bytes);
    const std::size_t taken = used() - before;
    EXPECT_GE(taken, bytes);
    EXPECT_LE(static_cast<double>(taken), 1.25 * static_cast<double>(bytes) + 1) << bytes;
    deallocate(kCpu, memory, bytes);
    EXPECT_EQ(used(), before);
  }
  const std::size_t before = used();  // a power of two fits exactly
  void* memory = allocate(kCpu, 4096);
  EXPECT_EQ(used() - before, 4096u);
  deallocate(kCpu, memory, 4096);
}

TEST(Allocator, TakesBackBlocksOfOtherThreads) {
  const std::size_t before = used();
  std::vector<void*> blocks;
  std::thread([&] {
    for (int i = 0; i < 500; ++i) blocks.push_back(allocate(kCpu, 1024));
  }).join();
  EXPECT_EQ(std::set<void*>(blocks.begin(), blocks.end()).size(), 500u);
  for (void* block : blocks) deallocate(kCpu, block, 1024);
  EXPECT_EQ(used(), before);
  if (!kCaching) return;
  const std::size_t reserved = allocator_statistics(kCpu).reserved_bytes;
  for (void*& block : blocks) block = allocate(kCpu, 1024);
  EXPECT_EQ(allocator_statistics(kCpu).reserved_bytes, reserved);
  for (void* block : blocks) deallocate(kCpu, block, 1024);
}

TEST(Allocator, KeepsThreadsApart) {
  const std::size_t before = used();
  std::atomic<int> mixed{0};
  std::atomic<void*> handed[8] = {};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int round = 0; round < 2000; ++round) {
        const std::size_t bytes = 64u << ((round + t) % 12);
        auto* mine = static_cast<unsigned char*>(allocate(kCpu, bytes));
        std::memset(mine, t + 1, bytes);
        // Every block of 512 bytes is passed on, and the thread that takes it frees it.
        if (bytes == 512) {
          if (void* other = handed[(t + round) % 8].exchange(mine)) deallocate(kCpu, other, 512);
          continue;
        }
        for (std::size_t k = 0; k < bytes; k += 63) mixed += mine[k] != t + 1;
        deallocate(kCpu, mine, bytes);
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (auto& block : handed)
    if (void* left = block.load()) deallocate(kCpu, left, 512);
  EXPECT_EQ(mixed, 0);
  EXPECT_EQ(used(), before);
}

TEST(Allocator, SaysWhatItCouldNotGive) {
  EXPECT_THROW(allocate(kCpu, std::size_t{1} << 55), std::exception);
}

}  // namespace
}  // namespace trireme
