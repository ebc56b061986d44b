// The elementwise part of recurrent cells, between their matrix products, in one pass over memory.
#include <algorithm>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/recurrent_cells.h"

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
      const LstmElement<T> e(g, width, k);
      const T now = e.next(before[k]);
      after[k] = now;
      h[k] = e.shown(now);
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
    for (std::int64_t k = 0; k < width; ++k)
      dbefore[k] = LstmElement<T>(g, width, k).gradient(before[k], dh[k], dafter[k], dg, width, k);
  });
}

void gru_forward(const View& h_next, const View& gi, const View& gh, const View& h) {
  const std::int64_t width = h.shape[1];
  for_rows(h, "gru_cell", [&](std::int64_t n, auto type) {
    using T = decltype(type);
    const T *x = row_of<const T>(gi, n), *y = row_of<const T>(gh, n), *before = row_of<const T>(h, n);
    T* __restrict after = row_of<T>(h_next, n);
    for (std::int64_t k = 0; k < width; ++k) after[k] = GruElement<T>(x, y, width, k).next(before[k]);
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
    for (std::int64_t k = 0; k < width; ++k)
      dbefore[k] = GruElement<T>(x, y, width, k).gradient(before[k], dafter[k], dx, dy, width, k);
  });
}

}  // namespace trireme::cpu
