// Images of another size, channels-last: channels are next to each other, so the inner loop is over them.
#include <algorithm>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"

namespace trireme::cpu {

namespace {

/// Calls fn(output pixel, input pixel, weight) for every pair of image n that meets with a weight, in order.
template <class Fn>
void for_each_tap(const View& y, const View& x, std::int64_t n, std::int64_t row, const Resampling& rows,
                  const Resampling& columns, const Fn& fn) {
  const std::int64_t h = x.shape[2], w = x.shape[3], wide = y.shape[3];
  const auto taps = [](const Resampling& axis, std::int64_t i, const auto& use) {
    const double next = axis.weight[static_cast<std::size_t>(i)];
    use(axis.first[static_cast<std::size_t>(i)], 1 - next);
    if (next != 0) use(axis.first[static_cast<std::size_t>(i)] + 1, next);
  };
  for (std::int64_t column = 0; column < wide; ++column)
    taps(rows, row, [&](std::int64_t from_row, double a) {
      taps(columns, column, [&](std::int64_t from_column, double b) {
        fn((n * y.shape[2] + row) * wide + column, (n * h + from_row) * w + from_column, a * b);
      });
    });
}

}  // namespace

void resample_forward(const View& y, const View& x, const Resampling& rows, const Resampling& columns) {
  const std::int64_t channels = x.shape[1], height = y.shape[2], line = y.shape[3] * channels;
  visit_floating(x.dtype, "interpolate", [&](auto type) {
    using T = decltype(type);
    const std::int64_t piece = std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(1, line));
    for_pieces(y.shape[0] * height, piece, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        std::fill_n(y.as<T>() + i * line, line, T(0));
        for_each_tap(y, x, i / height, i % height, rows, columns,
                     [&](std::int64_t to, std::int64_t from, double weight) {
                       T* __restrict out = y.as<T>() + to * channels;
                       const T *in = x.as<T>() + from * channels, factor = static_cast<T>(weight);
                       for (std::int64_t c = 0; c < channels; ++c) out[c] += in[c] * factor;
                     });
      }
    });
  });
}

void resample_backward(const View& dx, const View& dy, const Resampling& rows, const Resampling& columns) {
  const std::int64_t channels = dx.shape[1], image = dx.shape[2] * dx.shape[3] * channels;
  visit_floating(dx.dtype, "interpolate", [&](auto type) {
    using T = decltype(type);
    // Output pixels add to shared input pixels, so an image is one piece.
    for_pieces(dx.shape[0], 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) {
        std::fill_n(dx.as<T>() + n * image, image, T(0));
        for (std::int64_t row = 0; row < dy.shape[2]; ++row)
          for_each_tap(dy, dx, n, row, rows, columns, [&](std::int64_t from, std::int64_t to, double weight) {
            T* __restrict out = dx.as<T>() + to * channels;
            const T *in = dy.as<T>() + from * channels, factor = static_cast<T>(weight);
            for (std::int64_t c = 0; c < channels; ++c) out[c] += in[c] * factor;
          });
      }
    });
  });
}

}  // namespace trireme::cpu
