// Memory of small objects that come and go with every operation: each thread keeps what it frees and takes
// it again, in a tenth of the instructions of malloc and free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace trireme {

class ObjectCache {
 public:
  /// Uninitialized, aligned as operator new does. Throws std::bad_alloc.
  static void* take(std::size_t bytes) {
    const std::size_t c = class_of(bytes);
    if (c < kClasses)
      if (void* const memory = lists_.first[c]) {
        lists_.first[c] = *static_cast<void**>(memory);
        --lists_.count[c];
        return memory;
      }
    return ::operator new(c* kStep);
  }

  /// Gives back memory that take(bytes) returned on this or another thread.
  static void give(void* memory, std::size_t bytes) noexcept {
    const std::size_t c = class_of(bytes);
    if (kPassThrough || c >= kClasses || lists_.count[c] >= kMost || !open())
      return ::operator delete(memory);
    *static_cast<void**>(memory) = lists_.first[c];
    lists_.first[c] = memory;
    ++lists_.count[c];
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr bool kPassThrough = true;  // so that the sanitizer sees every object's life
#else
  static constexpr bool kPassThrough = false;
#endif
  static constexpr std::size_t kStep = 64, kClasses = 17;
  static constexpr std::uint32_t kMost = 1024;  ///< objects kept of each class

  static std::size_t class_of(std::size_t bytes) { return (bytes + kStep - 1) / kStep; }

  enum class State : std::uint8_t { kUnused, kOpen, kGone };
  /// Trivially destroyed: objects with static storage die after a thread's other variables.
  struct Lists {
    void* first[kClasses];
    std::uint32_t count[kClasses];
    State state;
  };
  static inline thread_local constinit Lists lists_{};

  static bool open() { return lists_.state == State::kOpen || begin(); }
  /// Has the thread's end empty the lists. False if that has been.
  static bool begin();
};

/// For containers in such objects.
template <class T>
struct CachedAllocator {
  using value_type = T;
  CachedAllocator() = default;
  template <class U>
  CachedAllocator(const CachedAllocator<U>&) {}
  T* allocate(std::size_t count) { return static_cast<T*>(ObjectCache::take(count * sizeof(T))); }
  void deallocate(T* memory, std::size_t count) noexcept { ObjectCache::give(memory, count * sizeof(T)); }
  bool operator==(const CachedAllocator&) const { return true; }
};

/// A base whose objects' memory comes from there.
struct Cached {
  static void* operator new(std::size_t bytes) { return ObjectCache::take(bytes); }
  static void operator delete(void* memory, std::size_t bytes) noexcept { ObjectCache::give(memory, bytes); }
};

}  // namespace trireme
