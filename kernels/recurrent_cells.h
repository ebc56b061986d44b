// The computation of recurrent cells for one element, for every device. A row of gates has `width` elements
// for each gate, and k is the element's index in each.
#pragma once

#include <cstdint>

#include "kernels/vector_math.h"

namespace trireme {

/// Gates of row g (4 * width): input, forget, cell and output.
template <class T>
struct LstmElement {
  T in, forget, cell, out;
  TRIREME_INLINE LstmElement(const T* g, std::int64_t width, std::int64_t k)
      : in(fast_sigmoid(g[k])),
        forget(fast_sigmoid(g[width + k])),
        cell(fast_tanh(g[2 * width + k])),
        out(fast_sigmoid(g[3 * width + k])) {}
  /// Returns the next c.
  TRIREME_INLINE T next(T before) const { return forget * before + in * cell; }
  TRIREME_INLINE T shown(T now) const { return out * fast_tanh(now); }
  /// Writes the gradients of the gates to row dg. Returns the gradient of the previous c.
  TRIREME_INLINE T gradient(T before, T dh, T dafter, T* dg, std::int64_t width, std::int64_t k) const {
    const T bent = fast_tanh(next(before));
    const T d = dafter + dh * out * (T(1) - bent * bent);
    dg[k] = d * cell * in * (T(1) - in);
    dg[width + k] = d * before * forget * (T(1) - forget);
    dg[2 * width + k] = d * in * (T(1) - cell * cell);
    dg[3 * width + k] = dh * bent * out * (T(1) - out);
    return d * forget;
  }
};

/// Gates of rows x of the input and y of the state (3 * width): reset, update and new.
template <class T>
struct GruElement {
  T reset, keep, fresh, state;
  TRIREME_INLINE GruElement(const T* x, const T* y, std::int64_t width, std::int64_t k)
      : reset(fast_sigmoid(x[k] + y[k])),
        keep(fast_sigmoid(x[width + k] + y[width + k])),
        fresh(fast_tanh(x[2 * width + k] + reset * y[2 * width + k])),
        state(y[2 * width + k]) {}
  TRIREME_INLINE T next(T before) const { return fresh + keep * (before - fresh); }
  /// Writes the gradients of the gates to rows dx and dy. Returns the gradient of the previous state.
  TRIREME_INLINE T gradient(T before, T dafter, T* dx, T* dy, std::int64_t width, std::int64_t k) const {
    const T dfresh = dafter * (T(1) - keep) * (T(1) - fresh * fresh);
    dx[k] = dy[k] = dfresh * state * reset * (T(1) - reset);
    dx[width + k] = dy[width + k] = dafter * (before - fresh) * keep * (T(1) - keep);
    dx[2 * width + k] = dfresh;
    dy[2 * width + k] = dfresh * reset;
    return dafter * keep;
  }
};

}  // namespace trireme
