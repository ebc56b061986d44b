// Loops over fixed pieces of work. How many threads run them never changes what a piece computes.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace trireme::cpu {

/// Calls fn(begin, end) for the pieces of [0, count) of `piece` each, on up to threads() threads.
template <class Fn>
void for_pieces(std::int64_t count, std::int64_t piece, const Fn& fn) {
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
