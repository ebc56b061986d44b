// Rows folded in 16 partial results, so that compilers may use vectors of any width without changing bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace trireme::cpu {

inline constexpr int kLanes = 16;

/// term(0) + ... + term(count - 1) in A.
template <class A, class Term>
A sum_over(std::int64_t count, const Term& term) {
  A lanes[kLanes] = {};
  std::int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes)
    for (int i = 0; i < kLanes; ++i) lanes[i] += static_cast<A>(term(k + i));
  for (int i = 0; k < count; ++k, ++i) lanes[i] += static_cast<A>(term(k));
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

/// Returns the largest of floating point numbers, without NaNs, or -infinity if there is none.
template <class T>
T largest_of(const T* x, std::int64_t count) {
  T lanes[kLanes];
  std::fill_n(lanes, kLanes, -std::numeric_limits<T>::infinity());
  std::int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes)
    for (int i = 0; i < kLanes; ++i) lanes[i] = x[k + i] > lanes[i] ? x[k + i] : lanes[i];
  for (int i = 0; k < count; ++k, ++i) lanes[i] = x[k] > lanes[i] ? x[k] : lanes[i];
  return *std::max_element(lanes, lanes + kLanes);
}

}  // namespace trireme::cpu
