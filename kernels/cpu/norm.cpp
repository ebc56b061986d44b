// Batch normalization over channels-last images seen as rows of C channels.
//
// Per-channel sums are gathered in float64 over fixed pieces of rows, then over the pieces in order,
// so they depend on the shape alone.
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"

namespace trireme::cpu {

namespace {

struct Rows {
  std::int64_t rows, channels;
};

Rows rows_of(const View& x) { return {x.shape[0] * x.shape[2] * x.shape[3], x.shape[1]}; }

std::int64_t piece_of(const Rows& r) { return std::max<std::int64_t>(64, kPiece / std::max<std::int64_t>(1, r.channels)); }

/// Gathers `sums` vectors of C channels: body(first row, last row, accumulators) adds a piece of rows.
template <class Body>
std::vector<double> gather(const Rows& r, int sums, const Body& body) {
  const std::int64_t width = sums * r.channels, piece = piece_of(r), pieces = (r.rows + piece - 1) / piece;
  std::vector<double> partial(static_cast<std::size_t>(std::max<std::int64_t>(1, pieces) * width));
  for_pieces(r.rows, piece, [&](std::int64_t begin, std::int64_t end) {
    body(begin, end, partial.data() + begin / piece * width);
  });
  for (std::int64_t p = 1; p < pieces; ++p)
    for (std::int64_t i = 0; i < width; ++i) partial[static_cast<std::size_t>(i)] += partial[static_cast<std::size_t>(p * width + i)];
  return partial;
}

}  // namespace

void batch_norm_statistics(const View& mean, const View& variance, const View& x) {
  const Rows r = rows_of(x);
  visit_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    const T* in = x.as<T>();
    const std::int64_t c = r.channels;
    const auto sums = gather(r, 2, [&](std::int64_t begin, std::int64_t end, double* sum) {
      double* square = sum + c;
      for (std::int64_t row = begin; row < end; ++row) {
#pragma omp simd
        for (std::int64_t k = 0; k < c; ++k) {
          const double v = static_cast<double>(in[row * c + k]);
          sum[k] += v;
          square[k] += v * v;
        }
      }
    });
    for (std::int64_t k = 0; k < c; ++k) {
      const double m = sums[static_cast<std::size_t>(k)] / static_cast<double>(r.rows);
      const double v = sums[static_cast<std::size_t>(c + k)] / static_cast<double>(r.rows) - m * m;
      mean.as<T>()[k] = static_cast<T>(m);
      variance.as<T>()[k] = static_cast<T>(v < 0 ? 0 : v);  // a NaN stays a NaN
    }
  });
}

void batch_norm_apply(const View& y, const View& x, const View& mean, const View& rstd, const View& gamma,
                      const View& beta, const View* residual, bool relu) {
  const Rows r = rows_of(x);
  visit_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    const std::int64_t c = r.channels;
    std::vector<T> scale(static_cast<std::size_t>(c)), shift(static_cast<std::size_t>(c));
    for (std::int64_t k = 0; k < c; ++k) {
      scale[static_cast<std::size_t>(k)] = rstd.as<T>()[k] * gamma.as<T>()[k];
      shift[static_cast<std::size_t>(k)] = beta.as<T>()[k] - mean.as<T>()[k] * scale[static_cast<std::size_t>(k)];
    }
    const auto apply = [&](auto with_residual, auto with_relu) {
      for_pieces(r.rows, piece_of(r), [&](std::int64_t begin, std::int64_t end) {
        const T *a = scale.data(), *b = shift.data();
        for (std::int64_t row = begin; row < end; ++row) {
          const T* in = x.as<T>() + row * c;
          T* out = y.as<T>() + row * c;
          const T* skip = with_residual ? residual->as<T>() + row * c : nullptr;
#pragma omp simd
          for (std::int64_t k = 0; k < c; ++k) {
            T v = in[k] * a[k] + b[k];
            if constexpr (with_residual) v += skip[k];
            if constexpr (with_relu) v = v > T(0) || v != v ? v : T(0);
            out[k] = v;
          }
        }
      });
    };
    using std::bool_constant;
    if (residual) relu ? apply(bool_constant<true>{}, bool_constant<true>{}) : apply(bool_constant<true>{}, bool_constant<false>{});
    else relu ? apply(bool_constant<false>{}, bool_constant<true>{}) : apply(bool_constant<false>{}, bool_constant<false>{});
  });
}

namespace {

/// What batch_norm_backward reads and writes; rows of `channels`.
template <class T>
struct BackwardData {
  const T *x, *dy, *y, *mean;
  T *dx, *dresidual;
};

/// Sums of g and g * (x - mean) per channel, where g is dy masked by ReLU. The masked gradient is written to `g_out`
/// (memory of the residual's gradient, or of dx, which is overwritten later) so that the second pass needs no mask.
/// Pointers are restrict, and ReLU a template argument, so that the loops become vector code.
template <bool kRelu, class T>
void backward_sums(std::int64_t begin, std::int64_t end, std::int64_t channels, const BackwardData<T>& d, T* __restrict g_out,
                   double* __restrict sum_g, double* __restrict sum_gx) {
  const T* __restrict mean = d.mean;
  for (std::int64_t row = begin; row < end; ++row) {
    const T* __restrict x = d.x + row * channels;
    const T* __restrict dy = d.dy + row * channels;
    const T* __restrict y = kRelu ? d.y + row * channels : nullptr;
    T* __restrict out = g_out + row * channels;
    for (std::int64_t k = 0; k < channels; ++k) {
      const T g = kRelu ? (y[k] > T(0) ? dy[k] : T(0)) : dy[k];
      if constexpr (kRelu) out[k] = g;
      sum_g[k] += static_cast<double>(g);
      sum_gx[k] += static_cast<double>(g) * static_cast<double>(x[k] - mean[k]);
    }
  }
}

/// dx = a * g + b * x + c per channel; g may be dx's own memory.
template <class T>
void backward_apply(std::int64_t begin, std::int64_t end, std::int64_t channels, const T* g, const T* __restrict x, T* dx,
                    const T* __restrict a, const T* __restrict b, const T* __restrict c) {
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t at = row * channels;
#pragma omp simd
    for (std::int64_t k = 0; k < channels; ++k) dx[at + k] = a[k] * g[at + k] + b[k] * x[at + k] + c[k];
  }
}

}  // namespace

void batch_norm_backward(const View& dx, const View& dgamma, const View& dbeta, const View* dresidual, const View& dy,
                         const View& x, const View* y, const View& mean, const View& rstd, const View& gamma) {
  const Rows r = rows_of(x);
  visit_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    const std::int64_t channels = r.channels;
    const BackwardData<T> d{x.as<T>(),  dy.as<T>(), y ? y->as<T>() : nullptr, mean.as<T>(),
                            dx.as<T>(), dresidual ? dresidual->as<T>() : nullptr};
    T* masked = d.dresidual ? d.dresidual : d.dx;
    const auto sums = gather(r, 2, [&](std::int64_t begin, std::int64_t end, double* sum) {
      if (d.y) backward_sums<true>(begin, end, channels, d, masked, sum, sum + channels);
      else backward_sums<false>(begin, end, channels, d, masked, sum, sum + channels);
    });
    // dx = gamma * rstd * (g - mean(g) - xhat * mean(g * xhat)), as a * g + b * x + c per channel.
    std::vector<T> a(static_cast<std::size_t>(channels)), b(a), c(a);
    const double n = static_cast<double>(r.rows);
    for (std::int64_t k = 0; k < channels; ++k) {
      const auto i = static_cast<std::size_t>(k);
      const double rs = static_cast<double>(rstd.as<T>()[k]), scale = rs * static_cast<double>(gamma.as<T>()[k]);
      const double sum_g = sums[i], sum_gx = sums[i + static_cast<std::size_t>(channels)];
      dbeta.as<T>()[k] = static_cast<T>(sum_g);
      dgamma.as<T>()[k] = static_cast<T>(sum_gx * rs);
      a[i] = static_cast<T>(scale);
      b[i] = static_cast<T>(-scale * rs * rs * sum_gx / n);
      c[i] = static_cast<T>(-scale * sum_g / n + scale * rs * rs * sum_gx / n * static_cast<double>(d.mean[k]));
    }
    const T* g = d.y ? masked : d.dy;
    for_pieces(r.rows, piece_of(r), [&](std::int64_t begin, std::int64_t end) {
      backward_apply(begin, end, channels, g, d.x, d.dx, a.data(), b.data(), c.data());
    });
  });
}

}  // namespace trireme::cpu
