// Layer and RMS normalization of rows. Sums of a row are gathered in float64; those of a column go down the
// rows in order, so bits depend on the shape alone.
#include <cmath>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/parallel.h"

namespace trireme::cpu {

void row_norm_forward(const View& y, const View& mean, const View& rstd, const View& x, const View* gamma,
                      const View* beta, double eps, bool centered) {
  const std::int64_t rows = x.shape[0], width = x.shape[1];
  visit_floating(x.dtype, "row_norm", [&](auto type) {
    using T = decltype(type);
    const T* scale = gamma ? gamma->as<T>() : nullptr;
    const T* shift = beta ? beta->as<T>() : nullptr;
    for_pieces(rows, std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(1, width)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r) {
                   const T* in = x.as<T>() + r * width;
                   T* out = y.as<T>() + r * width;
                   const double sum =
                       centered ? sum_over<double>(width, [=](std::int64_t k) { return in[k]; }) : 0;
                   const double m = sum / static_cast<double>(width);
                   const double squares = sum_over<double>(width, [=](std::int64_t k) {
                     const double v = static_cast<double>(in[k]) - m;
                     return v * v;
                   });
                   const double s = 1 / std::sqrt(squares / static_cast<double>(width) + eps);
                   mean.as<T>()[r] = static_cast<T>(m);
                   rstd.as<T>()[r] = static_cast<T>(s);
                   const T a = static_cast<T>(m), b = static_cast<T>(s);
                   for (std::int64_t k = 0; k < width; ++k) {
                     const T v = (in[k] - a) * b;
                     out[k] = (scale ? v * scale[k] : v) + (shift ? shift[k] : T(0));
                   }
                 }
               });
  });
}

void row_norm_backward(const View& dx, const View& dy, const View& x, const View& mean, const View& rstd,
                       const View* gamma, bool centered) {
  const std::int64_t rows = x.shape[0], width = x.shape[1];
  visit_floating(x.dtype, "row_norm", [&](auto type) {
    using T = decltype(type);
    const T* scale = gamma ? gamma->as<T>() : nullptr;
    for_pieces(rows, std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(1, width)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r) {
                   const T *in = x.as<T>() + r * width, *g = dy.as<T>() + r * width;
                   T* out = dx.as<T>() + r * width;
                   const T m = mean.as<T>()[r], s = rstd.as<T>()[r];
                   const auto slope_at = [=](std::int64_t k) { return scale ? g[k] * scale[k] : g[k]; };
                   const double sum = centered ? sum_over<double>(width, slope_at) : 0;
                   const double along = sum_over<double>(width, [=](std::int64_t k) {
                     return static_cast<double>(slope_at(k)) * static_cast<double>((in[k] - m) * s);
                   });
                   const T average = static_cast<T>(sum / static_cast<double>(width)),
                           slope = static_cast<T>(along / static_cast<double>(width));
                   for (std::int64_t k = 0; k < width; ++k)
                     out[k] = (slope_at(k) - average - (in[k] - m) * s * slope) * s;
                 }
               });
  });
}

void row_norm_parameters(const View& dgamma, const View& dbeta, const View& dy, const View& x,
                         const View& mean, const View& rstd) {
  const std::int64_t rows = x.shape[0], width = x.shape[1];
  visit_floating(x.dtype, "row_norm", [&](auto type) {
    using T = decltype(type);
    constexpr std::int64_t kBlock = 64;
    for_pieces(width, kBlock, [&](std::int64_t begin, std::int64_t end) {
      double gammas[kBlock] = {}, betas[kBlock] = {};
      for (std::int64_t r = 0; r < rows; ++r) {
        const T *in = x.as<T>() + r * width, *g = dy.as<T>() + r * width;
        const T m = mean.as<T>()[r], s = rstd.as<T>()[r];
        for (std::int64_t k = begin; k < end; ++k) {
          gammas[k - begin] += static_cast<double>(g[k] * ((in[k] - m) * s));
          betas[k - begin] += static_cast<double>(g[k]);
        }
      }
      for (std::int64_t k = begin; k < end; ++k) {
        dgamma.as<T>()[k] = static_cast<T>(gammas[k - begin]);
        dbeta.as<T>()[k] = static_cast<T>(betas[k - begin]);
      }
    });
  });
}

}  // namespace trireme::cpu
