// The parts of reductions for every device: identities, joins, and the split into kept and reduced
// dimensions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/dtype.h"
#include "kernels/host_device.h"
#include "kernels/view.h"

namespace trireme {

/// A list of dimensions with the input's strides (and the output's, for kept ones).
struct Dims {
  int count = 0;
  std::int64_t shape[kMaxDims], in[kMaxDims], out[kMaxDims];
  void add(std::int64_t size, std::int64_t in_stride, std::int64_t out_stride) {
    shape[count] = size;
    in[count] = in_stride;
    out[count++] = out_stride;
  }
  TRIREME_HOST_DEVICE std::int64_t numel() const {
    std::int64_t n = 1;
    for (int d = 0; d < count; ++d) n *= shape[d];
    return n;
  }
  TRIREME_HOST_DEVICE std::int64_t offset(std::int64_t index, const std::int64_t* strides) const {
    std::int64_t at = 0;
    for (int d = count - 1; d > 0; --d) {
      at += index % shape[d] * strides[d];
      index /= shape[d];
    }
    return count > 0 ? at + index * strides[0] : 0;
  }
};

/// The type that elements of type T are accumulated in: double for floating point, int64 for integers.
template <class T>
using Accumulator = std::conditional_t<std::is_integral_v<T>, std::int64_t, double>;

/// Identity and join of a reduction; Out is the result's type for elements of type T.
struct Sum {
  template <class A>
  TRIREME_HOST_DEVICE static A start() {
    return 0;
  }
  template <class A>
  TRIREME_HOST_DEVICE static A join(A x, A y) {
    return x + y;
  }
  template <class T>
  using Out = std::conditional_t<std::is_integral_v<T>, std::int64_t, T>;
};

struct Mean : Sum {};

struct Prod : Sum {
  template <class A>
  TRIREME_HOST_DEVICE static A start() {
    return 1;
  }
  template <class A>
  TRIREME_HOST_DEVICE static A join(A x, A y) {
    return x * y;
  }
};

struct Max {
  template <class A>
  TRIREME_HOST_DEVICE static A start() {
    if constexpr (std::is_integral_v<A>)
      return std::numeric_limits<A>::min();
    else
      return -std::numeric_limits<A>::infinity();
  }
  template <class A>
  TRIREME_HOST_DEVICE static A join(A x, A y) {
    return x > y || x != x ? x : y;
  }
  template <class T>
  using Out = T;
};

struct Min : Max {
  template <class A>
  TRIREME_HOST_DEVICE static A start() {
    if constexpr (std::is_integral_v<A>)
      return std::numeric_limits<A>::max();
    else
      return std::numeric_limits<A>::infinity();
  }
  template <class A>
  TRIREME_HOST_DEVICE static A join(A x, A y) {
    return x < y || x != x ? x : y;
  }
};

struct Any {
  template <class A>
  TRIREME_HOST_DEVICE static A start() {
    return 0;
  }
  template <class A>
  TRIREME_HOST_DEVICE static A join(A x, A y) {
    return x != 0 || y != 0 ? A(1) : A(0);
  }
  template <class T>
  using Out = bool;
};

struct All : Any {
  template <class A>
  TRIREME_HOST_DEVICE static A start() {
    return 1;
  }
  template <class A>
  TRIREME_HOST_DEVICE static A join(A x, A y) {
    return x != 0 && y != 0 ? A(1) : A(0);
  }
};

/// Returns the result of a reduction of `count` elements that were accumulated in `a`. It is rounded once.
template <class R, class Out, class A>
TRIREME_HOST_DEVICE Out result_of(A a, std::int64_t count) {
  if constexpr (std::is_same_v<R, Mean>)
    return static_cast<Out>(a / static_cast<A>(count));
  else
    return static_cast<Out>(a);
}

template <class T>
TRIREME_HOST_DEVICE Accumulator<T> to_accumulator(T x) {
  return static_cast<Accumulator<T>>(static_cast<Compute<T>>(x));
}

/// The dimensions of `in` that are kept (those with sizes above 1 in `out`) and those that are reduced,
/// largest strides first.
struct SplitDims {
  Dims kept, reduced;
};

inline SplitDims split_dims(const View& out, const View& in) {
  SplitDims dims;
  int by_stride[kMaxDims];
  for (int d = 0; d < in.dims; ++d) by_stride[d] = d;
  std::stable_sort(by_stride, by_stride + in.dims,
                   [&](int a, int b) { return in.strides[a] > in.strides[b]; });
  for (int i = 0; i < in.dims; ++i) {
    const int d = by_stride[i];
    if (in.shape[d] == 1) continue;
    if (out.shape[d] == 1)
      dims.reduced.add(in.shape[d], in.strides[d], 0);
    else
      dims.kept.add(in.shape[d], in.strides[d], out.strides[d]);
  }
  return dims;
}

}  // namespace trireme
