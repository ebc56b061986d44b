// Row-wise softmax and cross entropy.
#include <cmath>
#include <type_traits>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cross_entropy.h"
#include "kernels/low_precision.h"
#include "kernels/visit.h"

namespace trireme::cpu {

namespace {

std::int64_t piece_of_rows(std::int64_t width) {
  return std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(1, width));
}

/// A row of 16-bit numbers at a time, as what is computed in: loops that convert as they go are no vector
/// instructions. Other rows are used where they lie.
template <class In>
class ComputedRow {
 public:
  using T = Compute<In>;
  explicit ComputedRow(std::int64_t width)
      : width_(width), memory_(kCopies ? static_cast<std::size_t>(width) * sizeof(T) : 0) {}
  const T* load(const In* row) const {
    if constexpr (kCopies) {
      T* to = place(nullptr);
      for (std::int64_t k = 0; k < width_; ++k) to[k] = static_cast<T>(row[k]);
      return to;
    } else {
      return row;
    }
  }
  /// Returns the memory for the result of `row`. Call store(row) once it is written.
  T* place([[maybe_unused]] In* row) const {
    if constexpr (kCopies)
      return static_cast<T*>(memory_.data());
    else
      return row;
  }
  void store([[maybe_unused]] In* row) const {
    if constexpr (kCopies)
      for (std::int64_t k = 0; k < width_; ++k) row[k] = static_cast<In>(place(row)[k]);
  }

 private:
  static constexpr bool kCopies = !std::is_same_v<In, T>;
  std::int64_t width_;
  Scratch memory_;
};

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
        // One after the other: the sum of both would lose the logarithm beside a large logit.
        const double most = static_cast<double>(largest), log_sum = std::log(sum);
        for (std::int64_t k = 0; k < width; ++k)
          out[k] = static_cast<T>(static_cast<double>(in[k]) - most - log_sum);
      }
    });
  });
}

void cross_entropy_forward(const View& losses, const View& normalizers, const View& logits,
                           const View& labels, double smoothing) {
  const std::int64_t rows = logits.shape[0], width = logits.shape[1];
  visit_any_floating(logits.dtype, "cross_entropy", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    for_pieces(rows, piece_of_rows(width), [&](std::int64_t begin, std::int64_t end) {
      const ComputedRow<In> row(width);
      for (std::int64_t r = begin; r < end; ++r) {
        const T* in = row.load(logits.as<In>() + r * width);
        const T largest = largest_of(in, width), own = in[labels.as<std::int64_t>()[r]];
        const double sum = sum_over<double>(width, [=](std::int64_t k) { return fast_exp(in[k] - largest); });
        const double origin = smoothing_origin(own);
        const double excess = smoothing == 0 ? 0 : sum_over<double>(width, [=](std::int64_t k) {
          return static_cast<double>(in[k]) - origin;
        });
        losses.as<T>()[r] = static_cast<T>(cross_entropy_of(largest, sum, excess, own, smoothing, width));
        normalizers.as<T>()[2 * r] = largest;
        normalizers.as<T>()[2 * r + 1] = static_cast<T>(sum - 1);
      }
    });
  });
}

void cross_entropy_backward(const View& dx, const View& dlosses, const View& logits, const View& normalizers,
                            const View& labels, double smoothing) {
  const std::int64_t rows = dx.shape[0], width = dx.shape[1];
  visit_any_floating(dx.dtype, "cross_entropy", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    for_pieces(rows, piece_of_rows(width), [&](std::int64_t begin, std::int64_t end) {
      const ComputedRow<In> row(width);
      for (std::int64_t r = begin; r < end; ++r) {
        const T* in = row.load(logits.as<In>() + r * width);
        In* to = dx.as<In>() + r * width;
        T* out = row.place(to);
        const CrossEntropySlope<T> slope(normalizers.as<T>() + 2 * r, smoothing, width, dlosses.as<T>()[r]);
        const std::int64_t label = labels.as<std::int64_t>()[r];
        const T at_label = slope.at_label(in[label]);
        for (std::int64_t k = 0; k < width; ++k) out[k] = slope(in[k]);
        out[label] = at_label;
        row.store(to);
      }
    });
  });
}

}  // namespace trireme::cpu
