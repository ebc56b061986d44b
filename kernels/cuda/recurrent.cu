#include "kernels/recurrent_cells.h"

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace trireme::cuda {

namespace {

template <class T>
struct LstmForward {
  T *h, *after;
  const T *gates, *before;
  std::int64_t width;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const LstmElement<T> e(gates + i / width * 4 * width, width, i % width);
    after[i] = e.next(before[i]);
    h[i] = e.shown(after[i]);
  }
};

template <class T>
struct LstmBackward {
  T *dgates, *dbefore;
  const T *gates, *before, *dh, *dafter;
  std::int64_t width;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t row = i / width * 4 * width, k = i % width;
    dbefore[i] =
        LstmElement<T>(gates + row, width, k).gradient(before[i], dh[i], dafter[i], dgates + row, width, k);
  }
};

template <class T>
struct GruForward {
  T* after;
  const T *gi, *gh, *before;
  std::int64_t width;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t row = i / width * 3 * width;
    after[i] = GruElement<T>(gi + row, gh + row, width, i % width).next(before[i]);
  }
};

template <class T>
struct GruBackward {
  T *dgi, *dgh, *dbefore;
  const T *gi, *gh, *before, *dafter;
  std::int64_t width;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t row = i / width * 3 * width, k = i % width;
    dbefore[i] = GruElement<T>(gi + row, gh + row, width, k)
                     .gradient(before[i], dafter[i], dgi + row, dgh + row, width, k);
  }
};

}  // namespace

void lstm_forward(const View& h_next, const View& c_next, const View& gates, const View& c) {
  visit_floating(c.dtype, "lstm_cell", [&](auto type) {
    using T = decltype(type);
    parallel_for(c.numel(),
                 LstmForward<T>{h_next.as<T>(), c_next.as<T>(), gates.as<T>(), c.as<T>(), c.shape[1]});
  });
}

void lstm_backward(const View& dgates, const View& dc, const View& gates, const View& c, const View& dh_next,
                   const View& dc_next) {
  visit_floating(c.dtype, "lstm_cell", [&](auto type) {
    using T = decltype(type);
    parallel_for(c.numel(), LstmBackward<T>{dgates.as<T>(), dc.as<T>(), gates.as<T>(), c.as<T>(),
                                            dh_next.as<T>(), dc_next.as<T>(), c.shape[1]});
  });
}

void gru_forward(const View& h_next, const View& gi, const View& gh, const View& h) {
  visit_floating(h.dtype, "gru_cell", [&](auto type) {
    using T = decltype(type);
    parallel_for(h.numel(), GruForward<T>{h_next.as<T>(), gi.as<T>(), gh.as<T>(), h.as<T>(), h.shape[1]});
  });
}

void gru_backward(const View& dgi, const View& dgh, const View& dh, const View& gi, const View& gh,
                  const View& h, const View& dh_next) {
  visit_floating(h.dtype, "gru_cell", [&](auto type) {
    using T = decltype(type);
    parallel_for(h.numel(), GruBackward<T>{dgi.as<T>(), dgh.as<T>(), dh.as<T>(), gi.as<T>(), gh.as<T>(),
                                           h.as<T>(), dh_next.as<T>(), h.shape[1]});
  });
}

}  // namespace trireme::cuda
