// Batch normalization over channels-last images seen as rows of C channels. Images of 16 bits have parameters
// and statistics of float32, in which all is computed: In is an image's type, T that of the arithmetic.
#include "kernels/cuda/columns.h"
#include "kernels/cuda/kernels.h"
#include "kernels/visit.h"

namespace trireme::cuda {

namespace {

std::int64_t rows_of(const View& x) { return x.shape[0] * x.shape[2] * x.shape[3]; }

template <class In>
struct Moments {
  const In* x;
  std::int64_t channels;
  TRIREME_HOST_DEVICE Sums<2> operator()(std::int64_t r, std::int64_t k) const {
    const double v = static_cast<double>(x[r * channels + k]);
    return {{v, v * v}};
  }
};

template <class T>
struct Statistics {
  const Sums<2>* sums;
  T *mean, *variance;
  double n;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k) const {
    const double m = sums[k].values[0] / n, v = sums[k].values[1] / n - m * m;
    mean[k] = static_cast<T>(m);
    variance[k] = static_cast<T>(v < 0 ? 0 : v);  // a NaN stays a NaN
  }
};

template <class In, class T = Compute<In>>
struct Apply {
  In* y;
  const In *x, *residual;
  const T *mean, *rstd, *gamma, *beta;
  std::int64_t channels;
  bool relu;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t k = i % channels;
    const T scale = rstd[k] * gamma[k], shift = beta[k] - mean[k] * scale;
    T v = static_cast<T>(x[i]) * scale + shift;
    if (residual) v += static_cast<T>(residual[i]);
    if (relu) v = v > T(0) || v != v ? v : T(0);
    y[i] = static_cast<In>(v);
  }
};

/// What the ReLU lets through of dy; dy itself where there is no ReLU (y is null).
template <class In, class T = Compute<In>>
struct Masked {
  const In *dy, *y;
  TRIREME_HOST_DEVICE T operator[](std::int64_t i) const {
    return !y || static_cast<T>(y[i]) > T(0) ? static_cast<T>(dy[i]) : T(0);
  }
};

template <class In, class T = Compute<In>>
struct GradientSums {
  Masked<In> gradient;
  const In* x;
  const T* mean;
  std::int64_t channels;
  TRIREME_HOST_DEVICE Sums<2> operator()(std::int64_t r, std::int64_t k) const {
    const std::int64_t i = r * channels + k;
    const double g = static_cast<double>(gradient[i]);
    return {{g, g * (static_cast<double>(x[i]) - static_cast<double>(mean[k]))}};
  }
};

template <class T>
struct GradientOfParameters {
  const Sums<2>* sums;
  const T* rstd;
  T *dgamma, *dbeta;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k) const {
    dbeta[k] = static_cast<T>(sums[k].values[0]);
    dgamma[k] = static_cast<T>(sums[k].values[1] * static_cast<double>(rstd[k]));
  }
};

/// dx = gamma * rstd * (g - mean(g) - xhat * mean(g * xhat)), as a * g + b * x + d.
template <class In, class T = Compute<In>>
struct GradientOfInput {
  In *dx, *kept;
  Masked<In> gradient;
  const In* x;
  const T *mean, *rstd, *gamma;
  const Sums<2>* sums;
  std::int64_t channels;
  double n;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t k = i % channels;
    const double rs = static_cast<double>(rstd[k]), scale = rs * static_cast<double>(gamma[k]);
    const double sum_g = sums[k].values[0], bend = scale * rs * rs * sums[k].values[1] / n;
    const T a = static_cast<T>(scale), b = static_cast<T>(-bend),
            d = static_cast<T>(-scale * sum_g / n + bend * static_cast<double>(mean[k]));
    const T g = gradient[i];
    if (kept) kept[i] = static_cast<In>(g);
    dx[i] = static_cast<In>(a * g + b * static_cast<T>(x[i]) + d);
  }
};

}  // namespace

void batch_norm_statistics(const View& mean, const View& variance, const View& x) {
  visit_any_floating(x.dtype, "batch_norm", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    const std::int64_t rows = rows_of(x), channels = x.shape[1];
    const ColumnSums<2> sums(rows, channels, Moments<In>{x.as<In>(), channels});
    parallel_for(channels,
                 Statistics<T>{sums.data(), mean.as<T>(), variance.as<T>(), static_cast<double>(rows)});
  });
}

void batch_norm_apply(const View& y, const View& x, const View& mean, const View& rstd, const View& gamma,
                      const View& beta, const View* residual, bool relu) {
  visit_any_floating(x.dtype, "batch_norm", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    parallel_for(x.numel(),
                 Apply<In>{y.as<In>(), x.as<In>(), residual ? residual->as<In>() : nullptr, mean.as<T>(),
                           rstd.as<T>(), gamma.as<T>(), beta.as<T>(), x.shape[1], relu});
  });
}

void batch_norm_backward(const View& dx, const View& dgamma, const View& dbeta, const View* dresidual,
                         const View& dy, const View& x, const View* y, const View& mean, const View& rstd,
                         const View& gamma) {
  visit_any_floating(x.dtype, "batch_norm", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    const std::int64_t rows = rows_of(x), channels = x.shape[1];
    const Masked<In> gradient{dy.as<In>(), y ? y->as<In>() : nullptr};
    const ColumnSums<2> sums(rows, channels, GradientSums<In>{gradient, x.as<In>(), mean.as<T>(), channels});
    parallel_for(channels, GradientOfParameters<T>{sums.data(), rstd.as<T>(), dgamma.as<T>(), dbeta.as<T>()});
    parallel_for(x.numel(),
                 GradientOfInput<In>{dx.as<In>(), dresidual ? dresidual->as<In>() : nullptr, gradient,
                                     x.as<In>(), mean.as<T>(), rstd.as<T>(), gamma.as<T>(), sums.data(),
                                     channels, static_cast<double>(rows)});
  });
}

}  // namespace trireme::cuda
