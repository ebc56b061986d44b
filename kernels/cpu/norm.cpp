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

std::int64_t piece_of(const Rows& r) {
  return std::max<std::int64_t>(64, kPiece / std::max<std::int64_t>(1, r.channels));
}

/// Gathers `sums` vectors of C channels: body(first row, last row, accumulators) adds a piece of rows.
template <class Body>
std::vector<double> gather(const Rows& r, int sums, const Body& body) {
  const std::int64_t width = sums * r.channels, piece = piece_of(r), pieces = (r.rows + piece - 1) / piece;
  std::vector<double> partial(static_cast<std::size_t>(std::max<std::int64_t>(1, pieces) * width));
  for_pieces(r.rows, piece, [&](std::int64_t begin, std::int64_t end) {
    body(begin, end, partial.data() + begin / piece * width);
  });
  for (std::int64_t p = 1; p < pieces; ++p)
    for (std::int64_t i = 0; i < width; ++i)
      partial[static_cast<std::size_t>(i)] += partial[static_cast<std::size_t>(p * width + i)];
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
      for (std::int64_t row = begin; row < end; ++row)
        for (std::int64_t k = 0; k < c; ++k) {
          const double v = static_cast<double>(in[row * c + k]);
          sum[k] += v;
          square[k] += v * v;
        }
    });
    for (std::int64_t k = 0; k < c; ++k) {
      const double m = sums[static_cast<std::size_t>(k)] / static_cast<double>(r.rows);
      const double v = sums[static_cast<std::size_t>(c + k)] / static_cast<double>(r.rows) - m * m;
      mean.as<T>()[k] = static_cast<T>(m);
      variance.as<T>()[k] = static_cast<T>(v < 0 ? 0 : v);  // a NaN stays a NaN
    }
    // The difference above loses no digit that float32 has. Those of float64 need the mean first.
    if constexpr (std::is_same_v<T, double>) {
      const T* m = mean.as<T>();
      const auto squares = gather(r, 1, [&](std::int64_t begin, std::int64_t end, double* sum) {
        for (std::int64_t row = begin; row < end; ++row)
          for (std::int64_t k = 0; k < c; ++k) sum[k] += (in[row * c + k] - m[k]) * (in[row * c + k] - m[k]);
      });
      for (std::int64_t k = 0; k < c; ++k)
        variance.as<T>()[k] = squares[static_cast<std::size_t>(k)] / static_cast<double>(r.rows);
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
      shift[static_cast<std::size_t>(k)] =
          beta.as<T>()[k] - mean.as<T>()[k] * scale[static_cast<std::size_t>(k)];
    }
    const auto apply = [&](auto with_residual, auto with_relu) {
      for_pieces(r.rows, piece_of(r), [&](std::int64_t begin, std::int64_t end) {
        const T *a = scale.data(), *b = shift.data();
        for (std::int64_t row = begin; row < end; ++row) {
          const T* in = x.as<T>() + row * c;
          T* out = y.as<T>() + row * c;
          for (std::int64_t k = 0; k < c; ++k) {
            T v = in[k] * a[k] + b[k];
            if constexpr (with_residual) v += residual->as<T>()[row * c + k];
            if constexpr (with_relu) v = v > T(0) || v != v ? v : T(0);
            out[k] = v;
          }
        }
      });
    };
    using std::bool_constant;
    if (residual)
      relu ? apply(bool_constant<true>{}, bool_constant<true>{})
           : apply(bool_constant<true>{}, bool_constant<false>{});
    else
      relu ? apply(bool_constant<false>{}, bool_constant<true>{})
           : apply(bool_constant<false>{}, bool_constant<false>{});
  });
}

namespace {

/// Returns element k of a row of dy, or 0 where the ReLU cut it off. Without a ReLU, y is null.
template <bool kRelu, class T>
inline T masked(const T* dy, const T* y, std::int64_t k) {
  if constexpr (kRelu)
    return y[k] <= T(0) ? T(0) : dy[k];
  else
    return dy[k];
}

/// Per channel: sum of the gradient, then sum of gradient * (x - mean). Keeps the masked gradient if `kept`
/// is given.
template <bool kRelu, class T>
std::vector<double> gradient_sums(const Rows& r, const T* dy, const T* y, const T* x, const T* mean,
                                  T* kept) {
  return gather(r, 2, [&](std::int64_t begin, std::int64_t end, double* sums) {
    double* __restrict sum_g = sums, * __restrict sum_gx = sums + r.channels;
    for (std::int64_t row = begin; row < end; ++row) {
      const T *g = dy + row * r.channels, *out = kRelu ? y + row * r.channels : nullptr,
              *in = x + row * r.channels;
      for (std::int64_t k = 0; k < r.channels; ++k) {
        const double grad = static_cast<double>(masked<kRelu>(g, out, k));
        sum_g[k] += grad;
        sum_gx[k] += grad * (static_cast<double>(in[k]) - static_cast<double>(mean[k]));
      }
      if (!kept) continue;
      T* __restrict to = kept + row * r.channels;
      for (std::int64_t k = 0; k < r.channels; ++k) to[k] = masked<kRelu>(g, out, k);
    }
  });
}

/// dx = a * gradient + b * x + d, per channel.
template <bool kRelu, class T>
void gradient_of_input(const Rows& r, T* dx, const T* dy, const T* y, const T* x, const std::vector<T>& as,
                       const std::vector<T>& bs, const std::vector<T>& ds) {
  for_pieces(r.rows, piece_of(r), [&](std::int64_t begin, std::int64_t end) {
    const T *a = as.data(), *b = bs.data(), *d = ds.data();
    for (std::int64_t row = begin; row < end; ++row) {
      const T *g = dy + row * r.channels, *out = kRelu ? y + row * r.channels : nullptr,
              *in = x + row * r.channels;
      T* __restrict to = dx + row * r.channels;
      for (std::int64_t k = 0; k < r.channels; ++k)
        to[k] = a[k] * masked<kRelu>(g, out, k) + b[k] * in[k] + d[k];
    }
  });
}

}  // namespace

void batch_norm_backward(const View& dx, const View& dgamma, const View& dbeta, const View* dresidual,
                         const View& dy, const View& x, const View* y, const View& mean, const View& rstd,
                         const View& gamma) {
  const Rows r = rows_of(x);
  visit_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    const T *in = x.as<T>(), *g = dy.as<T>(), *out = y ? y->as<T>() : nullptr, *mu = mean.as<T>();
    T* kept = dresidual ? dresidual->as<T>() : nullptr;
    const auto sums =
        out ? gradient_sums<true>(r, g, out, in, mu, kept) : gradient_sums<false>(r, g, out, in, mu, kept);
    // dx = gamma * rstd * (g - mean(g) - xhat * mean(g * xhat)), as a * g + b * x + d per channel.
    const auto c = static_cast<std::size_t>(r.channels);
    std::vector<T> a(c), b(c), d(c);
    const double n = static_cast<double>(r.rows);
    for (std::size_t i = 0; i < c; ++i) {
      const double rs = static_cast<double>(rstd.as<T>()[i]),
                   scale = rs * static_cast<double>(gamma.as<T>()[i]);
      const double sum_g = sums[i], sum_gx = sums[i + c];
      dbeta.as<T>()[i] = static_cast<T>(sum_g);
      dgamma.as<T>()[i] = static_cast<T>(sum_gx * rs);
      a[i] = static_cast<T>(scale);
      b[i] = static_cast<T>(-scale * rs * rs * sum_gx / n);
      d[i] = static_cast<T>(-scale * sum_g / n + scale * rs * rs * sum_gx / n * static_cast<double>(mu[i]));
    }
    if (kept)
      gradient_of_input<false>(r, dx.as<T>(), kept, out, in, a, b, d);
    else if (out)
      gradient_of_input<true>(r, dx.as<T>(), g, out, in, a, b, d);
    else
      gradient_of_input<false>(r, dx.as<T>(), g, out, in, a, b, d);
  });
}

}  // namespace trireme::cpu
