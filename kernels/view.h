// View: the memory, element type, shape and strides of a tensor, as kernels use it. It owns nothing.
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
  std::int64_t strides[kMaxDims] = {};  ///< in elements; 0 in broadcast dimensions

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

/// Returns a view of a vector (N) as (B,M,N), the shape of `matrices`: every row is the vector.
inline View along_rows(const View& vector, const View& matrices) {
  View wide = matrices;
  wide.data = vector.data;
  wide.strides[0] = wide.strides[1] = 0;
  wide.strides[2] = vector.strides[0];
  return wide;
}

}  // namespace trireme
