// Merges the dimensions of several strided views of the same shape into as few as possible. Loops over
// elements use the result, on every device.
#pragma once

#include <algorithm>
#include <array>

#include "kernels/host_device.h"
#include "kernels/view.h"

namespace trireme {

inline bool is_row_major(const View& view) {
  std::int64_t expected = 1;
  for (int d = view.dims - 1; d >= 0; --d) {
    if (view.shape[d] != 1 && view.strides[d] != expected) return false;
    expected *= view.shape[d];
  }
  return true;
}

/// N views of one shape (broadcast by zero strides). Dimensions are sorted by the first view's strides and
/// merged if all views allow it. There is at least one dimension, and the last is the innermost.
template <int N>
struct MergedViews {
  int dims = 0;
  std::int64_t shape[kMaxDims] = {};
  std::int64_t strides[N][kMaxDims] = {};

  explicit MergedViews(const std::array<const View*, N>& views) {
    const View& first = *views[0];
    if (std::all_of(views.begin(), views.end(), [](const View* v) { return is_row_major(*v); })) {
      dims = 1;
      shape[0] = first.numel();
      for (int v = 0; v < N; ++v) strides[v][0] = 1;
      return;
    }
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

  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int d = 0; d < dims; ++d) n *= shape[d];
    return n;
  }
  /// Returns true if the elements of each view are contiguous.
  bool is_dense() const {
    return dims == 1 && std::all_of(strides, strides + N, [](const auto& s) { return s[0] == 1; });
  }
  /// Returns the offset of element i in each view, over all dimensions but the last `skipped` ones.
  TRIREME_HOST_DEVICE std::array<std::int64_t, N> offsets(std::int64_t i, int skipped = 0) const {
    std::array<std::int64_t, N> at{};
    for (int d = dims - 1 - skipped; d >= 0; --d) {
      const std::int64_t index = d > 0 ? i % shape[d] : i;
      if (d > 0) i /= shape[d];
      for (int v = 0; v < N; ++v) at[v] += index * strides[v][d];
    }
    return at;
  }
};

}  // namespace trireme
