#include "core/base/object_cache.h"

namespace trireme {

bool ObjectCache::begin() {
  if (lists_.state == State::kGone) return false;
  struct Closer {
    ~Closer() {
      lists_.state = State::kGone;
      for (void*& first : lists_.first)
        while (void* const memory = first) {
          first = *static_cast<void**>(memory);
          ::operator delete(memory);
        }
    }
  };
  thread_local Closer closer;
  (void)closer;
  lists_.state = State::kOpen;
  return true;
}

}  // namespace trireme
