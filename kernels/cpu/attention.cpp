// Scaled dot-product attention without its matrix of weights: T. Dao et al., "FlashAttention: fast and
// memory-efficient exact attention with IO-awareness", 2022.
//
// Blocks of queries meet blocks of keys. Forward keeps each query's largest score and sum of exponentials as
// it goes (the online softmax of M. Milakov, N. Gimelshein, 2018); backward computes the weights again from
// their logarithm. Blocks depend on shapes alone, and gradients of keys and values are summed in the order of
// the queries, so bits do not depend on threads.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/scratch.h"
#include "kernels/vector_math.h"

namespace trireme::cpu {

namespace {

constexpr std::int64_t kQueries = 64, kKeys = 512;

/// A view of (..., rows, columns) as matrices with dense rows.
template <class T>
class Matrices {
 public:
  explicit Matrices(const View& v) : v_(v) {
    const std::int64_t stride = std::max({v.strides[v.dims - 2], v.shape[v.dims - 1], std::int64_t{1}});
    TRIREME_CHECK(stride <= std::numeric_limits<int>::max(),
                  "attention: a stride of {} elements is more than BLAS can count", stride);
    leading_ = static_cast<int>(stride);
  }
  MatrixOf<T> at(std::int64_t matrix, std::int64_t row) const {
    std::int64_t offset = row * leading_;
    for (int d = v_.dims - 3; d >= 0; --d) {
      offset += matrix % v_.shape[d] * v_.strides[d];
      matrix /= v_.shape[d];
    }
    return {v_.as<T>() + offset, leading_};
  }
  std::int64_t rows() const { return v_.shape[v_.dims - 2]; }
  int columns() const { return static_cast<int>(v_.shape[v_.dims - 1]); }
  std::int64_t count() const {
    std::int64_t n = 1;
    for (int d = 0; d < v_.dims - 2; ++d) n *= v_.shape[d];
    return n;
  }

 private:
  View v_;
  int leading_;
};

template <class T>
MatrixOf<T> transposed(MatrixOf<T> m) {
  m.transposed = !m.transposed;
  return m;
}

/// Returns the sum of x[k] * y[k].
template <class T>
T sum_of_products(const T* x, const T* y, std::int64_t count) {
  return sum_over<T>(count, [=](std::int64_t k) { return x[k] * y[k]; });
}

template <class T>
T sum_of(const T* x, std::int64_t count) {
  return sum_over<T>(count, [=](std::int64_t k) { return x[k]; });
}

/// Queries `query`.. of a matrix against keys `key`...
struct Block {
  std::int64_t matrix, query, key;
  int rows, columns;
};

/// The scores and the dropout of a block, which forward and backward share.
template <class T>
class Scores {
 public:
  Scores(const View& q, const View& k, const View* mask, const AttentionRule& rule)
      : q_(q), k_(k), mask_(mask), rule_(rule) {}

  std::int64_t matrices() const { return q_.count(); }
  std::int64_t queries() const { return q_.rows(); }
  Matrices<const T> q() const { return q_; }
  Matrices<const T> k() const { return k_; }

  /// Calls fn(block) for the blocks of keys that queries query.. look at, in order.
  template <class Fn>
  void for_keys(std::int64_t matrix, std::int64_t query, const Fn& fn) const {
    const std::int64_t rows = std::min(kQueries, queries() - query),
                       keys = rule_.causal ? std::min(k_.rows(), query + rows) : k_.rows();
    for (std::int64_t key = 0; key < keys; key += kKeys)
      fn(Block{matrix, query, key, static_cast<int>(rows), static_cast<int>(std::min(kKeys, keys - key))});
  }

  /// scale q k^T + mask, to rows of kKeys; -infinity where a query must not look.
  void compute(const Block& b, T* scores) const {
    gemm(b.rows, b.columns, q_.columns(), q_.at(b.matrix, b.query), transposed(k_.at(b.matrix, b.key)), T(0),
         {scores, static_cast<int>(kKeys)});
    const T scale = static_cast<T>(rule_.scale);
    for (std::int64_t r = 0; r < b.rows; ++r) {
      T* row = scores + r * kKeys;
      for (std::int64_t c = 0; c < b.columns; ++c) row[c] *= scale;
      if (mask_) add_mask(b, r, row);
      if (!rule_.causal) continue;
      const std::int64_t seen = std::clamp<std::int64_t>(b.query + r + 1 - b.key, 0, b.columns);
      std::fill(row + seen, row + b.columns, -std::numeric_limits<T>::infinity());
    }
  }

  bool has_dropout() const { return rule_.dropout_p > 0; }
  /// For each weight of a row 0 or 1/(1-p).
  void dropout_factors(const Block& b, std::int64_t row, T* factors) const {
    const auto threshold = static_cast<std::uint64_t>(rule_.dropout_p * 0x1p32);
    const T kept = rule_.dropout_p < 1 ? static_cast<T>(1 / (1 - rule_.dropout_p)) : T(0);
    const auto sample = static_cast<std::uint64_t>(rule_.first_sample) +
                        static_cast<std::uint64_t>(b.matrix / rule_.matrices_per_sample);
    const std::int64_t first =
        (b.matrix % rule_.matrices_per_sample * queries() + b.query + row) * k_.rows() + b.key;
    for (std::int64_t e = first / 4 * 4; e < first + b.columns; e += 4) {
      const auto bits = philox(rule_.key, sample, static_cast<std::uint64_t>(e / 4));
      const std::int64_t begin = std::max(e, first), end = std::min(e + 4, first + b.columns);
      for (std::int64_t i = begin; i < end; ++i)
        factors[i - first] = bits[static_cast<std::size_t>(i - e)] >= threshold ? kept : T(0);
    }
  }

 private:
  void add_mask(const Block& b, std::int64_t r, T* row) const {
    const View& m = *mask_;
    std::int64_t matrix = b.matrix,
                 at = (b.query + r) * m.strides[m.dims - 2] + b.key * m.strides[m.dims - 1];
    const std::int64_t step = m.strides[m.dims - 1];
    for (int d = m.dims - 3; d >= 0; --d) {
      at += matrix % m.shape[d] * m.strides[d];
      matrix /= m.shape[d];
    }
    if (m.dtype == DType::kBool) {
      const bool* seen = m.as<bool>() + at;
      for (std::int64_t c = 0; c < b.columns; ++c)
        row[c] = seen[c * step] ? row[c] : -std::numeric_limits<T>::infinity();
    } else {
      const T* add = m.as<T>() + at;
      for (std::int64_t c = 0; c < b.columns; ++c) row[c] += add[c * step];
    }
  }

  Matrices<const T> q_, k_;
  const View* mask_;
  AttentionRule rule_;
};

template <class T>
void fill_rows(MatrixOf<T> m, std::int64_t rows, int columns) {
  for (std::int64_t r = 0; r < rows; ++r) std::fill_n(m.data + r * m.leading, columns, T(0));
}

template <class T>
void scale_row(T* row, int columns, T factor) {
  for (int c = 0; c < columns; ++c) row[c] *= factor;
}

/// One block of queries.
template <class T>
void forward_queries(const Scores<T>& scores, const Matrices<const T>& v, MatrixOf<T> out, T* log_sums,
                     std::int64_t matrix, std::int64_t query, T* memory) {
  T *weights = memory, *factors = memory + kQueries * kKeys;
  T largest[kQueries], sums[kQueries] = {};
  std::fill_n(largest, kQueries, -std::numeric_limits<T>::infinity());
  const int width = v.columns(), rows = static_cast<int>(std::min(kQueries, scores.queries() - query));
  fill_rows(out, rows, width);
  scores.for_keys(matrix, query, [&](const Block& b) {
    scores.compute(b, weights);
    for (int r = 0; r < b.rows; ++r) {
      T* row = weights + r * kKeys;
      const T before = largest[r], now = std::max(before, largest_of(row, b.columns));
      const bool has_nan = std::any_of(row, row + b.columns, [](T score) { return score != score; });
      if (now == -std::numeric_limits<T>::infinity() && !has_nan) {  // nothing seen yet: no weight
        std::fill_n(row, b.columns, T(0));
        continue;
      }
      for (int c = 0; c < b.columns; ++c) row[c] = fast_exp(row[c] - now);
      const T shrunk = fast_exp(before - now);
      sums[r] = sums[r] * shrunk + sum_of(row, b.columns);
      largest[r] = now;
      if (b.key > 0 && shrunk != T(1)) scale_row(out.data + r * out.leading, width, shrunk);
      if (!scores.has_dropout()) continue;
      scores.dropout_factors(b, r, factors);
      for (int c = 0; c < b.columns; ++c) row[c] *= factors[c];
    }
    gemm(b.rows, width, b.columns, {weights, static_cast<int>(kKeys)}, v.at(matrix, b.key),
         T(b.key > 0 ? 1 : 0), out);
  });
  for (int r = 0; r < rows; ++r) {
    const bool blind = sums[r] == T(0);
    scale_row(out.data + r * out.leading, width, blind ? T(0) : T(1) / sums[r]);
    log_sums[r] = blind ? std::numeric_limits<T>::infinity() : largest[r] + std::log(sums[r]);
  }
}

/// Gradients with respect to one matrix of scores, block by block.
template <class T>
struct Gradients {
  Matrices<const T> v, out, dout;
  Matrices<T> dq, dk, dv;

  void add(const Scores<T>& scores, const Block& b, const T* log_sums, T* memory) const {
    T *weights = memory, *slopes = memory + kQueries * kKeys, *factors = slopes + kQueries * kKeys;
    const int leading = static_cast<int>(kKeys);
    const auto above = dout.at(b.matrix, b.query), result = out.at(b.matrix, b.query);
    scores.compute(b, weights);
    gemm(b.rows, b.columns, dout.columns(), above, transposed(v.at(b.matrix, b.key)), T(0),
         {slopes, leading});
    for (int r = 0; r < b.rows; ++r) {
      T *row = weights + r * kKeys, *slope = slopes + r * kKeys;
      const T log_sum = log_sums[r],
              average = sum_of_products(above.data + r * above.leading, result.data + r * result.leading,
                                        dout.columns());
      for (int c = 0; c < b.columns; ++c) row[c] = fast_exp(row[c] - log_sum);
      if (!scores.has_dropout()) {
        for (int c = 0; c < b.columns; ++c) slope[c] = row[c] * (slope[c] - average) * scale;
        continue;
      }
      scores.dropout_factors(b, r, factors);
      for (int c = 0; c < b.columns; ++c) {
        slope[c] = row[c] * (slope[c] * factors[c] - average) * scale;
        row[c] *= factors[c];
      }
    }
    const MatrixOf<const T> p{weights, leading}, ds{slopes, leading};
    gemm(b.columns, dv.columns(), b.rows, transposed(p), above, T(1), dv.at(b.matrix, b.key));
    gemm(b.rows, dq.columns(), b.columns, ds, scores.k().at(b.matrix, b.key), T(1), dq.at(b.matrix, b.query));
    gemm(b.columns, dk.columns(), b.rows, transposed(ds), scores.q().at(b.matrix, b.query), T(1),
         dk.at(b.matrix, b.key));
  }

  T scale;
};

}  // namespace

void attention_forward(const View& out, const View& log_sums, const View& q, const View& k, const View& v,
                       const View* mask, const AttentionRule& rule) {
  visit_floating(q.dtype, "attention", [&](auto type) {
    using T = decltype(type);
    const Scores<T> scores(q, k, mask, rule);
    const Matrices<const T> values(v);
    const Matrices<T> result(out);
    const std::int64_t length = scores.queries(), blocks = (length + kQueries - 1) / kQueries;
    if (values.columns() == 0) return fill(log_sums, 0);
    for_pieces(scores.matrices() * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      const OneThread alone;
      const Scratch memory(sizeof(T) * (kQueries + 1) * kKeys);
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t matrix = i / blocks, query = i % blocks * kQueries;
        forward_queries(scores, values, result.at(matrix, query), log_sums.as<T>() + matrix * length + query,
                        matrix, query, static_cast<T*>(memory.data()));
      }
    });
  });
}

void attention_backward(const View& dq, const View& dk, const View& dv, const View& dout, const View& out,
                        const View& log_sums, const View& q, const View& k, const View& v, const View* mask,
                        const AttentionRule& rule) {
  visit_floating(q.dtype, "attention", [&](auto type) {
    using T = decltype(type);
    const Scores<T> scores(q, k, mask, rule);
    const Gradients<T> gradients{Matrices<const T>(v),      Matrices<const T>(out), Matrices<const T>(dout),
                                 Matrices<T>(dq),           Matrices<T>(dk),        Matrices<T>(dv),
                                 static_cast<T>(rule.scale)};
    const std::int64_t length = scores.queries();
    for_pieces(scores.matrices(), 1, [&](std::int64_t begin, std::int64_t end) {
      const OneThread alone;
      const Scratch memory(sizeof(T) * (2 * kQueries + 1) * kKeys);
      for (std::int64_t m = begin; m < end; ++m) {
        for (const Matrices<T>* to : {&gradients.dq, &gradients.dk, &gradients.dv})
          fill_rows(to->at(m, 0), to->rows(), to->columns());
        if (gradients.dv.columns() == 0) continue;
        for (std::int64_t query = 0; query < length; query += kQueries)
          scores.for_keys(m, query, [&](const Block& b) {
            gradients.add(scores, b, log_sums.as<T>() + m * length + query, static_cast<T*>(memory.data()));
          });
      }
    });
  });
}

}  // namespace trireme::cpu
