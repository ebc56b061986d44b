// What recurrent cells do between their matrix products, in one pass over memory.
#include <algorithm>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/vector_math.h"

namespace trireme::cpu {

namespace {

/// Calls fn(row, T{}) for the rows of (N,H).
template <class Fn>
void for_rows(const View& h, const char* name, const Fn& fn) {
  const std::int64_t piece = std::max<std::int64_t>(1, 2048 / std::max<std::int64_t>(1, h.shape[1]));
  visit_floating(h.dtype, name, [&](auto type) {
    for_pieces(h.shape[0], piece, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) fn(n, type);
    });
  });
}

/// Row n of (N, parts * width).
template <class T>
T* row_of(const View& v, std::int64_t n) {
  return v.as<T>() + n * v.shape[1];
}

}  // namespace

void lstm_forward(const View& h_next, const View& c_next, const View& gates, const View& c) {
  const std::int64_t width = c.shape[1];
  for_rows(c, "lstm_cell", [&](std::int64_t n, auto type) {
    using T = decltype(type);
    const T *g = row_of<const T>(gates, n), *before = row_of<const T>(c, n);
    T* __restrict h = row_of<T>(h_next, n), * __restrict after = row_of<T>(c_next, n);
    for (std::int64_t k = 0; k < width; ++k) {
      const T in = fast_sigmoid(g[k]), forget = fast_sigmoid(g[width + k]),
              cell = fast_tanh(g[2 * width + k]), out = fast_sigmoid(g[3 * width + k]);
      const T now = forget * before[k] + in * cell;
      after[k] = now;
      h[k] = out * fast_tanh(now);
    }
  });
}

void lstm_backward(const View& dgates, const View& dc, const View& gates, const View& c, const View& dh_next,
                   const View& dc_next) {
  const std::int64_t width = c.shape[1];
  for_rows(c, "lstm_cell", [&](std::int64_t n, auto type) {
    using T = decltype(type);
    const T *g = row_of<const T>(gates, n), *before = row_of<const T>(c, n),
            *dh = row_of<const T>(dh_next, n), *dafter = row_of<const T>(dc_next, n);
    T* __restrict dg = row_of<T>(dgates, n), * __restrict dbefore = row_of<T>(dc, n);
    for (std::int64_t k = 0; k < width; ++k) {
      const T in = fast_sigmoid(g[k]), forget = fast_sigmoid(g[width + k]),
              cell = fast_tanh(g[2 * width + k]), out = fast_sigmoid(g[3 * width + k]);
      const T shown = fast_tanh(forget * before[k] + in * cell);
      const T d = dafter[k] + dh[k] * out * (T(1) - shown * shown);
      dbefore[k] = d * forget;
      dg[k] = d * cell * in * (T(1) - in);
      dg[width + k] = d * before[k] * forget * (T(1) - forget);
      dg[2 * width + k] = d * in * (T(1) - cell * cell);
      dg[3 * width + k] = dh[k] * shown * out * (T(1) - out);
    }
  });
}

void gru_forward(const View& h_next, const View& gi, const View& gh, const View& h) {
  const std::int64_t width = h.shape[1];
  for_rows(h, "gru_cell", [&](std::int64_t n, auto type) {
    using T = decltype(type);
    const T *x = row_of<const T>(gi, n), *y = row_of<const T>(gh, n), *before = row_of<const T>(h, n);
    T* __restrict after = row_of<T>(h_next, n);
    for (std::int64_t k = 0; k < width; ++k) {
      const T reset = fast_sigmoid(x[k] + y[k]), keep = fast_sigmoid(x[width + k] + y[width + k]);
      const T fresh = fast_tanh(x[2 * width + k] + reset * y[2 * width + k]);
      after[k] = fresh + keep * (before[k] - fresh);
    }
  });
}

void gru_backward(const View& dgi, const View& dgh, const View& dh, const View& gi, const View& gh,
                  const View& h, const View& dh_next) {
  const std::int64_t width = h.shape[1];
  for_rows(h, "gru_cell", [&](std::int64_t n, auto type) {
    using T = decltype(type);
    const T *x = row_of<const T>(gi, n), *y = row_of<const T>(gh, n), *before = row_of<const T>(h, n),
            *dafter = row_of<const T>(dh_next, n);
    T* __restrict dx = row_of<T>(dgi, n), * __restrict dy = row_of<T>(dgh, n), * __restrict dbefore = row_of<T>(dh, n);
    for (std::int64_t k = 0; k < width; ++k) {
      const T reset = fast_sigmoid(x[k] + y[k]), keep = fast_sigmoid(x[width + k] + y[width + k]);
      const T fresh = fast_tanh(x[2 * width + k] + reset * y[2 * width + k]);
      const T dfresh = dafter[k] * (T(1) - keep) * (T(1) - fresh * fresh);
      dbefore[k] = dafter[k] * keep;
      dx[k] = dy[k] = dfresh * y[2 * width + k] * reset * (T(1) - reset);
      dx[width + k] = dy[width + k] = dafter[k] * (before[k] - fresh) * keep * (T(1) - keep);
      dx[2 * width + k] = dfresh;
      dy[2 * width + k] = dfresh * reset;
    }
  });
}

}  // namespace trireme::cpu
