// Sums down the columns of rows, in float64 and a fixed order. Include only from .cu files.
#pragma once

#include <algorithm>

#include "kernels/cuda/launch.h"

namespace trireme::cuda {

template <int N>
struct Sums {
  double values[N];
};

/// Part p of the rows of column k: terms(row, k) added up, to partial[p * width + k].
template <int N, class Terms>
struct SumPart {
  Terms terms;
  std::int64_t rows, width, part;
  Sums<N>* partial;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t k = i % width, begin = i / width * part;
    Sums<N> sums{};
    for (std::int64_t r = begin; r < begin + part && r < rows; ++r) {
      const Sums<N> term = terms(r, k);
      for (int n = 0; n < N; ++n) sums.values[n] += term.values[n];
    }
    partial[i] = sums;
  }
};

template <int N>
struct JoinParts {
  Sums<N>* partial;  ///< part 0 becomes the sum of all
  std::int64_t width, parts;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k) const {
    for (std::int64_t p = 1; p < parts; ++p)
      for (int n = 0; n < N; ++n) partial[k].values[n] += partial[p * width + k].values[n];
  }
};

/// N sums for each column, on the device. terms(row, column) gives Sums<N>.
template <int N>
class ColumnSums {
 public:
  template <class Terms>
  ColumnSums(std::int64_t rows, std::int64_t width, const Terms& terms)
      : part_(std::max<std::int64_t>(128, (rows + kMostParts - 1) / kMostParts)),
        parts_(std::max<std::int64_t>(1, (rows + part_ - 1) / part_)),
        partial_(static_cast<std::size_t>(parts_ * width) * sizeof(Sums<N>)) {
    parallel_for(parts_ * width,
                 SumPart<N, Terms>{terms, rows, width, part_, partial_.template as<Sums<N>>()});
    if (parts_ > 1) parallel_for(width, JoinParts<N>{partial_.template as<Sums<N>>(), width, parts_});
  }
  Sums<N>* data() const { return partial_.template as<Sums<N>>(); }

 private:
  static constexpr std::int64_t kMostParts = 512;
  std::int64_t part_;  ///< rows; a function of the shape alone
  std::int64_t parts_;
  Scratch partial_;
};

}  // namespace trireme::cuda
