#include "core/base/object_cache.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "core/base/ref.h"

namespace trireme {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeeps = false;  // with sanitizers, memory is freed at once
#else
constexpr bool kKeeps = true;
#endif

TEST(ObjectCache, GivesAlignedMemoryOfEverySizeToOneAtATime) {
  std::vector<std::pair<unsigned char*, std::size_t>> held;
  for (int round = 0; round < 3; ++round) {
    for (std::size_t bytes = 1; bytes < 1500; bytes += 7) {
      auto* memory = static_cast<unsigned char*>(ObjectCache::take(bytes));
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % alignof(std::max_align_t), 0u);
      std::memset(memory, static_cast<int>(bytes % 251), bytes);
      held.emplace_back(memory, bytes);
    }
    for (const auto& [memory, bytes] : held)
      for (std::size_t i = 0; i < bytes; ++i) ASSERT_EQ(memory[i], bytes % 251) << bytes;
    for (const auto& [memory, bytes] : held) ObjectCache::give(memory, bytes);
    held.clear();
  }
}

TEST(ObjectCache, TakesAgainWhatThisThreadGave) {
  if (!kKeeps) GTEST_SKIP() << "not kept under the address sanitizer";
  void* const first = ObjectCache::take(100);
  ObjectCache::give(first, 100);
  void* const again = ObjectCache::take(128);  // has the same size class
  EXPECT_EQ(again, first);
  void* const other = ObjectCache::take(128);
  EXPECT_NE(other, again);
  ObjectCache::give(again, 128);
  ObjectCache::give(other, 128);
}

TEST(ObjectCache, KeepsNoMoreThanItsShare) {
  std::vector<void*> many;
  for (int i = 0; i < 5000; ++i) many.push_back(ObjectCache::take(64));
  for (void* memory : many) ObjectCache::give(memory, 64);
  const std::set<void*> before(many.begin(), many.end());
  EXPECT_EQ(before.size(), many.size());
}

TEST(ObjectCache, ObjectsMayGoOnAnotherThread) {
  struct Thing : RefCounted {
    int numbers[20] = {};
  };
  for (int round = 0; round < 20; ++round) {
    std::vector<Ref<Thing>> things;
    for (int i = 0; i < 200; ++i) things.push_back(make_ref<Thing>());
    std::thread([moved = std::move(things)]() mutable { moved.clear(); }).join();
  }
}

}  // namespace
}  // namespace trireme
