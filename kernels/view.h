// What a kernel sees of a tensor: memory, element type, shape and strides. No ownership.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace trireme {

inline constexpr int kMaxDims = 8;

struct View {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  int dims = 0;
  std::int64_t shape[kMaxDims] = {};
  std::int64_t strides[kMaxDims] = {};  ///< in elements; 0 where broadcast

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }

  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int d = 0; d < dims; ++d) n *= shape[d];
    return n;
  }
};

/// A vector (N) as the rows of `matrices` (B,M,N).
inline View along_rows(const View& vector, const View& matrices) {
  View wide = matrices;
  wide.data = vector.data;
  wide.strides[0] = wide.strides[1] = 0;
  wide.strides[2] = vector.strides[0];
  return wide;
}

}  // namespace trireme
