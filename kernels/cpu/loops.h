// Loops over several strided views of one shape, with as few and as long inner loops as possible.
#pragma once

#include <algorithm>
#include <array>

#include "kernels/cpu/parallel.h"
#include "kernels/view.h"

namespace trireme::cpu {

/// N views of one shape (broadcast by zero strides), dimensions sorted by the first view's strides and
/// merged where all views allow it. The last dimension is the inner loop.
template <int N>
struct Loops {
  int dims = 0;
  std::array<std::int64_t, kMaxDims> shape{};
  std::array<std::array<std::int64_t, kMaxDims>, N> strides{};

  explicit Loops(const std::array<const View*, N>& views) {
    const View& first = *views[0];
    int order[kMaxDims], count = 0;
    for (int d = 0; d < first.dims; ++d)
      if (first.shape[d] != 1) order[count++] = d;
    std::stable_sort(order, order + count, [&](int a, int b) { return first.strides[a] > first.strides[b]; });
    for (int i = 0; i < count; ++i) {
      bool merges = dims > 0;
      for (int v = 0; v < N && merges; ++v)
        merges = strides[v][dims - 1] == views[v]->strides[order[i]] * first.shape[order[i]];
      if (!merges) shape[dims++] = 1;
      shape[dims - 1] *= first.shape[order[i]];
      for (int v = 0; v < N; ++v) strides[v][dims - 1] = views[v]->strides[order[i]];
    }
    if (dims == 0) {
      dims = 1;
      shape[0] = 1;
    }
  }

  /// Calls body(offsets, count) for every inner run; offsets[v] and strides in elements.
  template <class Body>
  void run(const Body& body) const {
    const std::int64_t inner = shape[dims - 1];
    std::int64_t outer = 1;
    for (int d = 0; d + 1 < dims; ++d) outer *= shape[d];
    if (inner == 0 || outer == 0) return;
    if (outer == 1) {
      for_pieces(inner, kPiece, [&](std::int64_t begin, std::int64_t end) {
        std::array<std::int64_t, N> at;
        for (int v = 0; v < N; ++v) at[v] = begin * strides[v][dims - 1];
        body(at, end - begin);
      });
      return;
    }
    for_pieces(outer, std::max<std::int64_t>(1, kPiece / inner), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        std::array<std::int64_t, N> at{};
        std::int64_t rest = i;
        for (int d = dims - 2; d >= 0; --d) {
          const std::int64_t index = rest % shape[d];
          rest /= shape[d];
          for (int v = 0; v < N; ++v) at[v] += index * strides[v][d];
        }
        body(at, inner);
      }
    });
  }

  std::int64_t inner_stride(int v) const { return strides[v][dims - 1]; }
};

}  // namespace trireme::cpu
