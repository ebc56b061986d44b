// Batch normalization over channels-last images seen as rows of C channels. Images of 16 bits have parameters
// and statistics of float32, in which all is computed: In is an image's type, T that of the arithmetic.
#include "kernels/cuda/columns.h"
#include "kernels/cuda/kernels.h"
#include "kernels/visit.h"

namespace trireme::cuda {

namespace {

std::int64_t rows_of(const View& x) { return x.shape[0] * x.shape[2] * x.shape[3]; }

template <class In, int P>
struct Moments {
  static constexpr int kPack = P;
  const In* x;
  std::int64_t channels;
  TRIREME_HOST_DEVICE Pack<In, P> load(std::int64_t r, std::int64_t k) const {
    return load_pack<P>(x + r * channels + k);
  }
  TRIREME_HOST_DEVICE void add(Sums<2> (&sums)[P], std::int64_t, const Pack<In, P>& loaded) const {
    TRIREME_UNROLL
    for (int p = 0; p < P; ++p) {
      const double v = static_cast<double>(loaded.values[p]);
      sums[p].values[0] += v;
      sums[p].values[1] += v * v;
    }
  }
};

template <class T>
struct Statistics {
  T *mean, *variance;
  double n;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k, const Sums<2>& sums) const {
    const double m = sums.values[0] / n, v = sums.values[1] / n - m * m;
    mean[k] = static_cast<T>(m);
    variance[k] = static_cast<T>(v < 0 ? 0 : v);  // a NaN stays a NaN
  }
};

/// Squares of what float64 numbers differ from their mean by: their moments would cancel digits that they
/// have.
template <int P>
struct CenteredSquares {
  static constexpr int kPack = P;
  const double *x, *mean;
  std::int64_t channels;
  TRIREME_HOST_DEVICE Pack<double, P> load(std::int64_t r, std::int64_t k) const {
    return load_pack<P>(x + r * channels + k);
  }
  TRIREME_HOST_DEVICE void add(Sums<1> (&sums)[P], std::int64_t k, const Pack<double, P>& loaded) const {
    TRIREME_UNROLL
    for (int p = 0; p < P; ++p) {
      const double d = loaded.values[p] - mean[k + p];
      sums[p].values[0] += d * d;
    }
  }
};

struct Average {
  double* out;
  double n;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k, const Sums<1>& sums) const {
    out[k] = sums.values[0] / n;
  }
};

template <class In, int P, class T = Compute<In>>
struct Apply {
  ColumnWalk walk;
  In* y;
  const In *x, *residual;
  const T *mean, *rstd, *gamma, *beta;
  bool relu;
  struct Loaded {
    Pack<In, P> x, residual;
  };
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    const std::int64_t k = walk.column<P>(i, warp);
    if (k >= walk.width) return;
    T scale[P], shift[P];
    TRIREME_UNROLL
    for (int p = 0; p < P; ++p) {
      scale[p] = rstd[k + p] * gamma[k + p];
      shift[p] = beta[k + p] - mean[k + p] * scale[p];
    }
    walk.each_row(
        i, warp,
        [&](std::int64_t r) {
          Loaded loaded{load_pack<P>(x + r * walk.width + k), {}};
          if (residual) loaded.residual = load_pack<P>(residual + r * walk.width + k);
          return loaded;
        },
        [&](std::int64_t r, const Loaded& loaded) {
          Pack<In, P> out;
          TRIREME_UNROLL
          for (int p = 0; p < P; ++p) {
            T v = static_cast<T>(loaded.x.values[p]) * scale[p] + shift[p];
            if (residual) v += static_cast<T>(loaded.residual.values[p]);
            if (relu) v = v > T(0) || v != v ? v : T(0);
            out.values[p] = static_cast<In>(v);
          }
          store_pack(y + r * walk.width + k, out);
        });
  }
};

/// Rows of x, and of what the ReLU lets through of dy: dy itself where there is no ReLU (y is null).
template <class In, int P, class T = Compute<In>>
struct GradientRows {
  const In *x, *dy, *y;
  std::int64_t channels;
  struct Loaded {
    Pack<In, P> x, dy, y;
    bool masked;
    TRIREME_HOST_DEVICE T gradient(int p) const {
      return masked && static_cast<T>(y.values[p]) <= T(0) ? T(0) : static_cast<T>(dy.values[p]);
    }
  };
  TRIREME_HOST_DEVICE Loaded load(std::int64_t r, std::int64_t k) const {
    const std::int64_t at = r * channels + k;
    Loaded loaded{load_pack<P>(x + at), load_pack<P>(dy + at), {}, y != nullptr};
    if (y) loaded.y = load_pack<P>(y + at);
    return loaded;
  }
};

template <class In, int P, class T = Compute<In>>
struct GradientSums {
  static constexpr int kPack = P;
  GradientRows<In, P> rows;
  const T* mean;
  TRIREME_HOST_DEVICE auto load(std::int64_t r, std::int64_t k) const { return rows.load(r, k); }
  TRIREME_HOST_DEVICE void add(Sums<2> (&sums)[P], std::int64_t k,
                               const typename GradientRows<In, P>::Loaded& loaded) const {
    TRIREME_UNROLL
    for (int p = 0; p < P; ++p) {
      const double g = static_cast<double>(loaded.gradient(p));
      sums[p].values[0] += g;
      sums[p].values[1] += g * (static_cast<double>(loaded.x.values[p]) - static_cast<double>(mean[k + p]));
    }
  }
};

/// dx = gamma * rstd * (g - mean(g) - xhat * mean(g * xhat)) = of_g * g + of_x * x + constant.
template <class T>
struct Slope {
  T of_g, of_x, constant;
};

template <class T>
struct GradientOfParameters {
  const T *mean, *rstd, *gamma;
  T *dgamma, *dbeta;
  Slope<T>* slopes;
  double n;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k, const Sums<2>& sums) const {
    const double rs = static_cast<double>(rstd[k]), scale = rs * static_cast<double>(gamma[k]);
    const double bend = scale * rs * rs * sums.values[1] / n;
    dbeta[k] = static_cast<T>(sums.values[0]);
    dgamma[k] = static_cast<T>(sums.values[1] * rs);
    slopes[k] = {static_cast<T>(scale), static_cast<T>(-bend),
                 static_cast<T>(-scale * sums.values[0] / n + bend * static_cast<double>(mean[k]))};
  }
};

template <class In, int P, class T = Compute<In>>
struct GradientOfInput {
  ColumnWalk walk;
  GradientRows<In, P> rows;
  In *dx, *kept;
  const Slope<T>* slopes;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    const std::int64_t k = walk.column<P>(i, warp);
    if (k >= walk.width) return;
    Slope<T> slope[P];
    TRIREME_UNROLL
    for (int p = 0; p < P; ++p) slope[p] = slopes[k + p];
    walk.each_row(
        i, warp, [&](std::int64_t r) { return rows.load(r, k); },
        [&](std::int64_t r, const auto& loaded) {
          Pack<In, P> passed, out;
          TRIREME_UNROLL
          for (int p = 0; p < P; ++p) {
            const T g = loaded.gradient(p);
            passed.values[p] = static_cast<In>(g);
            out.values[p] = static_cast<In>(
                slope[p].of_g * g + slope[p].of_x * static_cast<T>(loaded.x.values[p]) + slope[p].constant);
          }
          if (kept) store_pack(kept + r * walk.width + k, passed);
          store_pack(dx + r * walk.width + k, out);
        });
  }
};

}  // namespace

void batch_norm_statistics(const View& mean, const View& variance, const View& x) {
  visit_any_floating(x.dtype, "batch_norm", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    const std::int64_t rows = rows_of(x), channels = x.shape[1];
    with_pack<In>(
        channels,
        [&](auto pack) {
          sum_columns<2>(rows, channels, sizeof(In), Moments<In, pack>{x.as<In>(), channels},
                         Statistics<T>{mean.as<T>(), variance.as<T>(), static_cast<double>(rows)});
          if constexpr (std::is_same_v<In, double>)
            sum_columns<1>(rows, channels, sizeof(In),
                           CenteredSquares<pack>{x.as<In>(), mean.as<T>(), channels},
                           Average{variance.as<T>(), static_cast<double>(rows)});
        },
        x.as<In>());
  });
}

void batch_norm_apply(const View& y, const View& x, const View& mean, const View& rstd, const View& gamma,
                      const View& beta, const View* residual, bool relu) {
  visit_any_floating(x.dtype, "batch_norm", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    const In* const more = residual ? residual->as<In>() : nullptr;
    with_pack<In>(
        x.shape[1],
        [&](auto pack) {
          const ColumnWalk walk(rows_of(x), x.shape[1], sizeof(In), pack, ColumnWalk::kWarpsOfMaps);
          parallel_warps(walk.warps(), Apply<In, pack>{walk, y.as<In>(), x.as<In>(), more, mean.as<T>(),
                                                       rstd.as<T>(), gamma.as<T>(), beta.as<T>(), relu});
        },
        y.as<In>(), x.as<In>(), more);
  });
}

void batch_norm_backward(const View& dx, const View& dgamma, const View& dbeta, const View* dresidual,
                         const View& dy, const View& x, const View* y, const View& mean, const View& rstd,
                         const View& gamma) {
  visit_any_floating(x.dtype, "batch_norm", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    const std::int64_t rows = rows_of(x), channels = x.shape[1];
    In* const kept = dresidual ? dresidual->as<In>() : nullptr;
    const In* const shown = y ? y->as<In>() : nullptr;
    const Scratch memory(static_cast<std::size_t>(channels) * sizeof(Slope<T>));
    auto* const slopes = memory.as<Slope<T>>();
    with_pack<In>(
        channels,
        [&](auto pack) {
          const GradientRows<In, pack> of{x.as<In>(), dy.as<In>(), shown, channels};
          sum_columns<2>(rows, channels, sizeof(In), GradientSums<In, pack>{of, mean.as<T>()},
                         GradientOfParameters<T>{mean.as<T>(), rstd.as<T>(), gamma.as<T>(), dgamma.as<T>(),
                                                 dbeta.as<T>(), slopes, static_cast<double>(rows)});
          const ColumnWalk walk(rows, channels, sizeof(In), pack, ColumnWalk::kWarpsOfMaps);
          parallel_warps(walk.warps(), GradientOfInput<In, pack>{walk, of, dx.as<In>(), kept, slopes});
        },
        x.as<In>(), dy.as<In>(), shown, dx.as<In>(), kept);
  });
}

}  // namespace trireme::cuda
