// Softmax, cross entropy and normalization of rows: a warp for each row.
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
    const double shift = static_cast<double>(largest) + std::log(sum);
    for (std::int64_t k = warp.lane(); k < width; k += kWarp)
      y[r * width + k] = static_cast<T>(static_cast<double>(in[k]) - shift);
  }
};

template <class T>
struct Nll {
  const T* log_probabilities;
  const std::int64_t* labels;
  T* losses;
  std::int64_t width;
  double smoothing;
  TRIREME_HOST_DEVICE void operator()(std::int64_t r, const Warp& warp) const {
    const T* lp = log_probabilities + r * width;
    double loss = -(1 - smoothing) * static_cast<double>(lp[labels[r]]);
    if (smoothing != 0)
      loss -= smoothing / static_cast<double>(width) *
              row_sum(warp, width, [=](std::int64_t k) { return lp[k]; });
    if (warp.lane() == 0) losses[r] = static_cast<T>(loss);
  }
};

template <class T>
struct CrossEntropyBackward {
  T* dx;
  const T *dlosses, *log_probabilities;
  const std::int64_t* labels;
  std::int64_t width;
  T spread, hit;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t r = i / width;
    const T d = fast_exp(log_probabilities[i]) - spread;
    dx[i] = (labels[r] == i % width ? d - hit : d) * dlosses[r];
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
template <class T>
struct RowNormTerms {
  const T *dy, *x, *mean, *rstd;
  std::int64_t width;
  TRIREME_HOST_DEVICE Sums<2> operator()(std::int64_t r, std::int64_t k) const {
    const T g = dy[r * width + k], normal = (x[r * width + k] - mean[r]) * rstd[r];
    return {{static_cast<double>(g * normal), static_cast<double>(g)}};
  }
};

template <class T>
struct RowNormParameters {
  const Sums<2>* sums;
  T *dgamma, *dbeta;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k) const {
    dgamma[k] = static_cast<T>(sums[k].values[0]);
    dbeta[k] = static_cast<T>(sums[k].values[1]);
  }
};

}  // namespace

void log_softmax(const View& y, const View& x) {
  visit_floating(x.dtype, "log_softmax", [&](auto type) {
    using T = decltype(type);
    parallel_warps(x.shape[0], LogSoftmax<T>{x.as<T>(), y.as<T>(), x.shape[1]});
  });
}

void nll_forward(const View& losses, const View& log_probabilities, const View& labels, double smoothing) {
  visit_floating(losses.dtype, "cross_entropy", [&](auto type) {
    using T = decltype(type);
    parallel_warps(losses.shape[0], Nll<T>{log_probabilities.as<T>(), labels.as<std::int64_t>(),
                                           losses.as<T>(), log_probabilities.shape[1], smoothing});
  });
}

void cross_entropy_backward(const View& dx, const View& dlosses, const View& log_probabilities,
                            const View& labels, double smoothing) {
  visit_floating(dx.dtype, "cross_entropy", [&](auto type) {
    using T = decltype(type);
    const std::int64_t width = dx.shape[1];
    parallel_for(dx.numel(), CrossEntropyBackward<T>{dx.as<T>(), dlosses.as<T>(), log_probabilities.as<T>(),
                                                     labels.as<std::int64_t>(), width,
                                                     static_cast<T>(smoothing / static_cast<double>(width)),
                                                     static_cast<T>(1 - smoothing)});
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
    const ColumnSums<2> sums(rows, width,
                             RowNormTerms<T>{dy.as<T>(), x.as<T>(), mean.as<T>(), rstd.as<T>(), width});
    parallel_for(width, RowNormParameters<T>{sums.data(), dgamma.as<T>(), dbeta.as<T>()});
  });
}

}  // namespace trireme::cuda
