// Loops over fixed pieces of work. How many threads run them never changes what a piece computes.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace trireme::cpu {

/// A reference to a callable, so that a loop nest is compiled once and not once per op.
template <class... Args>
class FunctionRef {
 public:
  template <class Fn>
  FunctionRef(const Fn& fn)
      : object_(&fn),
        call_([](const void* object, Args... args) { (*static_cast<const Fn*>(object))(args...); }) {}
  void operator()(Args... args) const { call_(object_, args...); }

 private:
  const void* object_;
  void (*call_)(const void*, Args...);
};

/// Calls fn(begin, end) for the pieces of [0, count) of `piece` each, on up to threads() threads.
inline void for_pieces(std::int64_t count, std::int64_t piece, FunctionRef<std::int64_t, std::int64_t> fn) {
  const std::int64_t pieces = (count + piece - 1) / piece;
  // With one thread OpenMP is not entered at all: cheaper, and clean under the thread sanitizer.
  if (pieces <= 1 || omp_get_max_threads() == 1) {
    for (std::int64_t i = 0; i < pieces; ++i) fn(i * piece, std::min(count, (i + 1) * piece));
    return;
  }
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < pieces; ++i) fn(i * piece, std::min(count, (i + 1) * piece));
}

inline constexpr std::int64_t kPiece = 32768;  ///< elements of one piece of an elementwise loop

}  // namespace trireme::cpu
