// Batch normalization over channels-last images seen as rows of C channels.

#include "kernels/cuda/columns.h"
#include "kernels/cuda/kernels.h"

namespace trireme::cuda {

namespace {

std::int64_t rows_of(const View& x) { return x.shape[0] * x.shape[2] * x.shape[3]; }

template <class T>
struct Moments {
  const T* x;
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

template <class T>
struct Apply {
  T* y;
  const T *x, *mean, *rstd, *gamma, *beta, *residual;
  std::int64_t channels;
  bool relu;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t k = i % channels;
    const T scale = rstd[k] * gamma[k], shift = beta[k] - mean[k] * scale;
    T v = x[i] * scale + shift;
    if (residual) v += residual[i];
    if (relu) v = v > T(0) || v != v ? v : T(0);
    y[i] = v;
  }
};

/// What the ReLU lets through of dy; dy itself where there is no ReLU (y is null).
template <class T>
struct Masked {
  const T *dy, *y;
  TRIREME_HOST_DEVICE T operator[](std::int64_t i) const { return !y || y[i] > T(0) ? dy[i] : T(0); }
};

template <class T>
struct GradientSums {
  Masked<T> gradient;
  const T *x, *mean;
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
template <class T>
struct GradientOfInput {
  T *dx, *kept;
  Masked<T> gradient;
  const T *x, *mean, *rstd, *gamma;
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
    if (kept) kept[i] = g;
    dx[i] = a * g + b * x[i] + d;
  }
};

}  // namespace

void batch_norm_statistics(const View& mean, const View& variance, const View& x) {
  visit_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    const std::int64_t rows = rows_of(x), channels = x.shape[1];
    const ColumnSums<2> sums(rows, channels, Moments<T>{x.as<T>(), channels});
    parallel_for(channels,
                 Statistics<T>{sums.data(), mean.as<T>(), variance.as<T>(), static_cast<double>(rows)});
  });
}

void batch_norm_apply(const View& y, const View& x, const View& mean, const View& rstd, const View& gamma,
                      const View& beta, const View* residual, bool relu) {
  visit_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    parallel_for(x.numel(), Apply<T>{y.as<T>(), x.as<T>(), mean.as<T>(), rstd.as<T>(), gamma.as<T>(),
                                     beta.as<T>(), residual ? residual->as<T>() : nullptr, x.shape[1], relu});
  });
}

void batch_norm_backward(const View& dx, const View& dgamma, const View& dbeta, const View* dresidual,
                         const View& dy, const View& x, const View* y, const View& mean, const View& rstd,
                         const View& gamma) {
  visit_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    const std::int64_t rows = rows_of(x), channels = x.shape[1];
    const Masked<T> gradient{dy.as<T>(), y ? y->as<T>() : nullptr};
    const ColumnSums<2> sums(rows, channels, GradientSums<T>{gradient, x.as<T>(), mean.as<T>(), channels});
    parallel_for(channels, GradientOfParameters<T>{sums.data(), rstd.as<T>(), dgamma.as<T>(), dbeta.as<T>()});
    parallel_for(x.numel(), GradientOfInput<T>{dx.as<T>(), dresidual ? dresidual->as<T>() : nullptr, gradient,
                                               x.as<T>(), mean.as<T>(), rstd.as<T>(), gamma.as<T>(),
                                               sums.data(), channels, static_cast<double>(rows)});
  });
}

}  // namespace trireme::cuda
