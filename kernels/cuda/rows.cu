// Softmax and normalization of rows: a warp for each row.
#include <cmath>

#include "kernels/cuda/columns.h"
#include "kernels/cuda/kernels.h"
#include "kernels/vector_math.h"

namespace trireme::cuda {

namespace {

/// Sum of term(k) over a row of `width`, on all lanes.
template <class Term>
TRIREME_HOST_DEVICE double row_sum(const Warp& warp, std::int64_t width, const Term& term) {
  double sum = 0;
  for (std::int64_t k = warp.lane(); k < width; k += kWarp) sum += static_cast<double>(term(k));
  return warp.sum(sum);
}

template <class T>
struct LogSoftmax {
  const T* x;
  T* y;
  std::int64_t width;
  TRIREME_HOST_DEVICE void operator()(std::int64_t r, const Warp& warp) const {
    const T* in = x + r * width;
    T largest = -std::numeric_limits<T>::infinity();
    for (std::int64_t k = warp.lane(); k < width; k += kWarp) largest = in[k] > largest ? in[k] : largest;
    largest = warp.all(largest, [](T a, T b) { return a > b ? a : b; });
    const double sum = row_sum(warp, width, [=](std::int64_t k) { return fast_exp(in[k] - largest); });
    // One after the other: the sum of both would lose the logarithm beside a large logit.
    const double most = static_cast<double>(largest), log_sum = std::log(sum);
    for (std::int64_t k = warp.lane(); k < width; k += kWarp)
      y[r * width + k] = static_cast<T>(static_cast<double>(in[k]) - most - log_sum);
  }
};

template <class T>
struct RowNormForward {
  T *y, *mean, *rstd;
  const T *x, *scale, *shift;
  std::int64_t width;
  double eps;
  bool centered;
  TRIREME_HOST_DEVICE void operator()(std::int64_t r, const Warp& warp) const {
    const T* in = x + r * width;
    const double n = static_cast<double>(width);
    const double m = centered ? row_sum(warp, width, [=](std::int64_t k) { return in[k]; }) / n : 0;
    const double squares = row_sum(warp, width, [=](std::int64_t k) {
      const double v = static_cast<double>(in[k]) - m;
      return v * v;
    });
    const T a = static_cast<T>(m), b = static_cast<T>(1 / std::sqrt(squares / n + eps));
    if (warp.lane() == 0) {
      mean[r] = a;
      rstd[r] = b;
    }
    for (std::int64_t k = warp.lane(); k < width; k += kWarp) {
      const T v = (in[k] - a) * b;
      y[r * width + k] = (scale ? v * scale[k] : v) + (shift ? shift[k] : T(0));
    }
  }
};

template <class T>
struct RowNormBackward {
  T* dx;
  const T *dy, *x, *mean, *rstd, *scale;
  std::int64_t width;
  bool centered;
  TRIREME_HOST_DEVICE void operator()(std::int64_t r, const Warp& warp) const {
    const T *in = x + r * width, *g = dy + r * width, *by = scale;
    const T m = mean[r], s = rstd[r];
    const auto slope_at = [=](std::int64_t k) { return by ? g[k] * by[k] : g[k]; };
    const double n = static_cast<double>(width);
    const double sum = centered ? row_sum(warp, width, slope_at) : 0;
    const double along = row_sum(warp, width, [=](std::int64_t k) {
      return static_cast<double>(slope_at(k)) * static_cast<double>((in[k] - m) * s);
    });
    const T average = static_cast<T>(sum / n), slope = static_cast<T>(along / n);
    for (std::int64_t k = warp.lane(); k < width; k += kWarp)
      dx[r * width + k] = (slope_at(k) - average - (in[k] - m) * s * slope) * s;
  }
};

/// Terms of the gradients of gamma and beta.
template <class T, int P>
struct RowNormTerms {
  static constexpr int kPack = P;
  const T *dy, *x, *mean, *rstd;
  std::int64_t width;
  struct Loaded {
    Pack<T, P> dy, x;
    T mean, rstd;
  };
  TRIREME_HOST_DEVICE Loaded load(std::int64_t r, std::int64_t k) const {
    return {load_pack<P>(dy + r * width + k), load_pack<P>(x + r * width + k), mean[r], rstd[r]};
  }
  TRIREME_HOST_DEVICE void add(Sums<2> (&sums)[P], std::int64_t, const Loaded& loaded) const {
    TRIREME_UNROLL
    for (int p = 0; p < P; ++p) {
      const T g = loaded.dy.values[p], normal = (loaded.x.values[p] - loaded.mean) * loaded.rstd;
      sums[p].values[0] += static_cast<double>(g * normal);
      sums[p].values[1] += static_cast<double>(g);
    }
  }
};

template <class T>
struct RowNormParameters {
  T *dgamma, *dbeta;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k, const Sums<2>& sums) const {
    dgamma[k] = static_cast<T>(sums.values[0]);
    dbeta[k] = static_cast<T>(sums.values[1]);
  }
};

}  // namespace

void log_softmax(const View& y, const View& x) {
  visit_floating(x.dtype, "log_softmax", [&](auto type) {
    using T = decltype(type);
    parallel_warps(x.shape[0], LogSoftmax<T>{x.as<T>(), y.as<T>(), x.shape[1]});
  });
}

void row_norm_forward(const View& y, const View& mean, const View& rstd, const View& x, const View* gamma,
                      const View* beta, double eps, bool centered) {
  visit_floating(x.dtype, "row_norm", [&](auto type) {
    using T = decltype(type);
    parallel_warps(x.shape[0], RowNormForward<T>{y.as<T>(), mean.as<T>(), rstd.as<T>(), x.as<T>(),
                                                 gamma ? gamma->as<T>() : nullptr,
                                                 beta ? beta->as<T>() : nullptr, x.shape[1], eps, centered});
  });
}

void row_norm_backward(const View& dx, const View& dy, const View& x, const View& mean, const View& rstd,
                       const View* gamma, bool centered) {
  visit_floating(x.dtype, "row_norm", [&](auto type) {
    using T = decltype(type);
    parallel_warps(x.shape[0],
                   RowNormBackward<T>{dx.as<T>(), dy.as<T>(), x.as<T>(), mean.as<T>(), rstd.as<T>(),
                                      gamma ? gamma->as<T>() : nullptr, x.shape[1], centered});
  });
}

void row_norm_parameters(const View& dgamma, const View& dbeta, const View& dy, const View& x,
                         const View& mean, const View& rstd) {
  visit_floating(x.dtype, "row_norm", [&](auto type) {
    using T = decltype(type);
    const std::int64_t rows = x.shape[0], width = x.shape[1];
    with_pack<T>(
        width,
        [&](auto pack) {
          sum_columns<2>(rows, width, sizeof(T),
                         RowNormTerms<T, pack>{dy.as<T>(), x.as<T>(), mean.as<T>(), rstd.as<T>(), width},
                         RowNormParameters<T>{dgamma.as<T>(), dbeta.as<T>()});
        },
        dy.as<T>(), x.as<T>());
  });
}

}  // namespace trireme::cuda
