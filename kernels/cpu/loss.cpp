// Row-wise softmax and cross entropy.
#include <cmath>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/parallel.h"
#include "kernels/vector_math.h"

namespace trireme::cpu {

namespace {

std::int64_t piece_of_rows(std::int64_t width) {
  return std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(1, width));
}

}  // namespace

void log_softmax(const View& y, const View& x) {
  const std::int64_t rows = x.shape[0], width = x.shape[1];
  visit_floating(x.dtype, "log_softmax", [&](auto type) {
    using T = decltype(type);
    for_pieces(rows, piece_of_rows(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* in = x.as<T>() + r * width;
        T* out = y.as<T>() + r * width;
        const T largest = width ? largest_of(in, width) : T(0);
        const double sum = sum_over<double>(width, [=](std::int64_t k) { return fast_exp(in[k] - largest); });
        const double shift = static_cast<double>(largest) + std::log(sum);
        for (std::int64_t k = 0; k < width; ++k) out[k] = static_cast<T>(static_cast<double>(in[k]) - shift);
      }
    });
  });
}

void nll_forward(const View& losses, const View& log_probabilities, const View& labels, double smoothing) {
  const std::int64_t rows = log_probabilities.shape[0], width = log_probabilities.shape[1];
  visit_floating(losses.dtype, "cross_entropy", [&](auto type) {
    using T = decltype(type);
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* lp = log_probabilities.as<T>() + r * width;
      double loss = -(1 - smoothing) * static_cast<double>(lp[labels.as<std::int64_t>()[r]]);
      if (smoothing != 0) {
        const double sum = sum_over<double>(width, [=](std::int64_t k) { return lp[k]; });
        loss -= smoothing / static_cast<double>(width) * sum;
      }
      losses.as<T>()[r] = static_cast<T>(loss);
    }
  });
}

void cross_entropy_backward(const View& dx, const View& dlosses, const View& log_probabilities,
                            const View& labels, double smoothing) {
  const std::int64_t rows = dx.shape[0], width = dx.shape[1];
  visit_floating(dx.dtype, "cross_entropy", [&](auto type) {
    using T = decltype(type);
    const T spread = static_cast<T>(smoothing / static_cast<double>(width)),
            hit = static_cast<T>(1 - smoothing);
    for_pieces(rows, piece_of_rows(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* lp = log_probabilities.as<T>() + r * width;
        T* out = dx.as<T>() + r * width;
        const T g = dlosses.as<T>()[r];
        const std::int64_t label = labels.as<std::int64_t>()[r];
        for (std::int64_t k = 0; k < width; ++k) out[k] = (fast_exp(lp[k]) - spread) * g;
        out[label] = (fast_exp(lp[label]) - spread - hit) * g;
      }
    });
  });
}

}  // namespace trireme::cpu
