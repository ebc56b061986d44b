// Scaled dot-product attention. Where cuDNN has a fused kernel, it computes the whole pass. Otherwise
// cuBLASLt multiplies, one kernel of ours per pass computes everything between its products, and the weights
// of a limited number of matrices are in memory at a time. Both ways store the same logarithms of sums, from
// which the backward pass computes the weights again.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "kernels/cuda/fused_attention.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/rng.h"
#include "kernels/vector_math.h"
#include "kernels/visit.h"

namespace trireme::cuda {

namespace {

constexpr std::int64_t kWeightBytes = std::int64_t{256} << 20;  ///< limit of one set of several matrices

View dense_view(void* data, DType dtype, std::int64_t matrices, std::int64_t rows, std::int64_t columns) {
  return {data, dtype, 3, {matrices, rows, columns}, {rows * columns, columns, 1}};
}

View transposed(View m) {
  std::swap(m.shape[1], m.shape[2]);
  std::swap(m.strides[1], m.strides[2]);
  return m;
}

/// A view (...,rows,columns) as matrices of one distance: where its leading dimensions do not merge, those of
/// a dense copy.
class Matrices {
 public:
  explicit Matrices(const View& v) : original_(v), merged_(v) {
    const int rows = v.dims - 2;
    std::int64_t count = 1, apart = 0;
    bool merges = true;
    for (int d = rows - 1; d >= 0; --d) {
      if (v.shape[d] == 1) continue;
      if (count == 1)
        apart = v.strides[d];
      else
        merges = merges && v.strides[d] == apart * count;
      count *= v.shape[d];
    }
    merged_ = {v.data,
               v.dtype,
               3,
               {count, v.shape[rows], v.shape[rows + 1]},
               {apart, v.strides[rows], v.strides[rows + 1]}};
    if (merges) return;
    copy_.emplace(static_cast<std::size_t>(v.numel()) * size_of(v.dtype));
    merged_ = dense_view(copy_->as<void>(), v.dtype, count, v.shape[rows], v.shape[rows + 1]);
  }

  /// Before reading.
  const Matrices& loaded() const {
    if (copy_) copy(unmerged(), original_);
    return *this;
  }
  /// After writing.
  void store() const {
    if (copy_) copy(original_, unmerged());
  }

  std::int64_t count() const { return merged_.shape[0]; }
  std::int64_t rows() const { return merged_.shape[1]; }
  View part(std::int64_t begin, std::int64_t count) const {
    View v = merged_;
    v.data =
        static_cast<std::byte*>(v.data) + begin * v.strides[0] * static_cast<std::int64_t>(size_of(v.dtype));
    v.shape[0] = count;
    return v;
  }

 private:
  View unmerged() const {
    View v = original_;
    v.data = merged_.data;
    std::int64_t stride = 1;
    for (int d = v.dims - 1; d >= 0; --d) {
      v.strides[d] = stride;
      stride *= v.shape[d];
    }
    return v;
  }

  View original_, merged_;
  std::optional<Scratch> copy_;
};

/// Turns products of q and k into scores, and applies dropout. Forward and backward share it.
template <class T>
struct Scores {
  static constexpr T kNever = -std::numeric_limits<T>::infinity();
  std::int64_t first;  ///< matrix of those that are there
  std::int64_t queries, keys;
  View mask;  ///< no data: none
  AttentionRule rule;
  std::uint64_t dropout_threshold;
  T kept;

  TRIREME_HOST_DEVICE std::int64_t matrix(std::int64_t row) const { return first + row / queries; }

  /// Offset of the mask of row (matrix, query).
  TRIREME_HOST_DEVICE std::int64_t mask_offset(std::int64_t row) const {
    std::int64_t m = matrix(row), at = row % queries * mask.strides[mask.dims - 2];
    for (int d = mask.dims - 3; d >= 0; --d) {
      at += m % mask.shape[d] * mask.strides[d];
      m /= mask.shape[d];
    }
    return at;
  }

  TRIREME_HOST_DEVICE T score(T product, std::int64_t row, std::int64_t key, std::int64_t mask_at) const {
    if (rule.causal && key > row % queries) return kNever;
    const T scaled = product * static_cast<T>(rule.scale);
    if (!mask.data) return scaled;
    const std::int64_t at = mask_at + key * mask.strides[mask.dims - 1];
    if (mask.dtype == DType::kBool) return static_cast<const bool*>(mask.data)[at] ? scaled : kNever;
    return scaled + static_cast<const T*>(mask.data)[at];
  }

  /// 0 or 1/(1-p).
  TRIREME_HOST_DEVICE T dropout_factor(std::int64_t row, std::int64_t key) const {
    if (rule.dropout_p <= 0) return T(1);
    const std::int64_t m = matrix(row), per_sample = rule.matrices_per_sample;
    const std::int64_t e = (m % per_sample * queries + row % queries) * keys + key;
    const auto bits = philox(rule.key, static_cast<std::uint64_t>(rule.first_sample + m / per_sample),
                             static_cast<std::uint64_t>(e / 4));
    return bits[static_cast<std::size_t>(e % 4)] >= dropout_threshold ? kept : T(0);
  }
};

/// A row of products, of T, becomes one of weights: of In, in the same memory where that is the same type.
template <class In, class T = Compute<In>>
struct Forward {
  Scores<T> scores;
  T* products;
  In* weights;
  T* log_sums;
  TRIREME_HOST_DEVICE void operator()(std::int64_t r, const Warp& warp) const {
    T* row = products + r * scores.keys;
    const std::int64_t mask_at = scores.mask.data ? scores.mask_offset(r) : 0;
    T largest = Scores<T>::kNever;
    bool has_nan = false;
    for (std::int64_t k = warp.lane(); k < scores.keys; k += kWarp) {
      row[k] = scores.score(row[k], r, k, mask_at);
      largest = row[k] > largest ? row[k] : largest;
      has_nan = has_nan || row[k] != row[k];
    }
    largest = warp.all(largest, [](T a, T b) { return a > b ? a : b; });
    has_nan = warp.all(static_cast<unsigned>(has_nan), [](unsigned a, unsigned b) { return a | b; }) != 0;
    const bool blind = largest == Scores<T>::kNever && !has_nan;
    double sum = 0;
    for (std::int64_t k = warp.lane(); k < scores.keys; k += kWarp) {
      row[k] = blind ? T(0) : fast_exp(row[k] - largest);
      sum += static_cast<double>(row[k]);
    }
    sum = warp.sum(sum);
    const T shrink = blind ? T(0) : static_cast<T>(1 / sum);
    for (std::int64_t k = warp.lane(); k < scores.keys; k += kWarp)
      weights[r * scores.keys + k] = static_cast<In>(row[k] * (shrink * scores.dropout_factor(r, k)));
    if (warp.lane() == 0)
      log_sums[r] = blind ? std::numeric_limits<T>::infinity()
                          : static_cast<T>(static_cast<double>(largest) + std::log(sum));
  }
};

/// A row of products becomes one of weights after dropout, and their gradients become those of the products:
/// both of In, in the same memory where that is T.
template <class In, class T = Compute<In>>
struct Backward {
  Scores<T> scores;
  const T *products, *gradients;
  In *weights, *slopes;
  const T* log_sums;
  View out, dout;  ///< (matrices, queries, width), dense rows

  TRIREME_HOST_DEVICE static const In* row_of(const View& v, std::int64_t r) {
    return static_cast<const In*>(v.data) + r / v.shape[1] * v.strides[0] + r % v.shape[1] * v.strides[1];
  }

  TRIREME_HOST_DEVICE void operator()(std::int64_t r, const Warp& warp) const {
    const std::int64_t begin = r * scores.keys;
    const In *result = row_of(out, r), *above = row_of(dout, r);
    double sum = 0;
    for (std::int64_t c = warp.lane(); c < out.shape[2]; c += kWarp)
      sum += static_cast<double>(result[c]) * static_cast<double>(above[c]);
    const T average = static_cast<T>(warp.sum(sum)), log_sum = log_sums[r],
            scale = static_cast<T>(scores.rule.scale);
    const std::int64_t mask_at = scores.mask.data ? scores.mask_offset(r) : 0;
    for (std::int64_t k = warp.lane(); k < scores.keys; k += kWarp) {
      const T weight = fast_exp(scores.score(products[begin + k], r, k, mask_at) - log_sum);
      const T factor = scores.dropout_factor(r, k);
      slopes[begin + k] = static_cast<In>(weight * (gradients[begin + k] * factor - average) * scale);
      weights[begin + k] = static_cast<In>(weight * factor);
    }
  }
};

template <class T>
Scores<T> scores_of(const Matrices& q, const Matrices& k, const View* mask, const AttentionRule& rule,
                    std::int64_t first) {
  const double p = rule.dropout_p;
  return {first,
          q.rows(),
          k.rows(),
          mask ? *mask : View{},
          rule,
          static_cast<std::uint64_t>(p * 0x1p32),
          p < 1 ? static_cast<T>(1 / (1 - p)) : T(0)};
}

/// Returns the dtype of intermediate results: float32 if the inputs have 16 bits.
DType between(DType in) { return is_low_precision(in) ? DType::kFloat32 : in; }

/// Products of some matrices, and what is made of them: in the same memory where it has the same type.
struct Weights {
  Scratch memory;
  std::optional<Scratch> rounded;
  View products, weights;

  Weights(DType in, std::int64_t matrices, std::int64_t rows, std::int64_t columns)
      : memory(static_cast<std::size_t>(matrices * rows * columns) * size_of(between(in))),
        products(dense_view(memory.as<void>(), between(in), matrices, rows, columns)),
        weights(products) {
    if (in == products.dtype) return;
    rounded.emplace(static_cast<std::size_t>(matrices * rows * columns) * size_of(in));
    weights = dense_view(rounded->as<void>(), in, matrices, rows, columns);
  }
};

/// fn(begin, count) for matrices whose weights are there at once: by shape alone.
template <class Fn>
void for_parts(std::int64_t matrices, std::int64_t queries, std::int64_t keys, DType dtype, const Fn& fn) {
  const std::int64_t bytes =
      std::max<std::int64_t>(1, queries * keys * static_cast<std::int64_t>(size_of(between(dtype))));
  const std::int64_t most = std::max<std::int64_t>(1, kWeightBytes / bytes);
  for (std::int64_t begin = 0; begin < matrices; begin += most) fn(begin, std::min(most, matrices - begin));
}

/// Returns why the fused kernels cannot take a tensor, which must be 16-bit (B,H,rows,width) with samples,
/// heads and rows multiples of 16 bytes apart; null if they can.
const char* unfit(const View& v) {
  constexpr std::int64_t kAligned = Aligned::kBytes / 2, kWidest = 128;
  if (!is_low_precision(v.dtype)) return "the fused kernel takes bfloat16 and float16 only";
  if (v.dims != 4) return "the fused kernel takes tensors of the shape (batch, heads, rows, width) only";
  if (v.shape[3] % kAligned != 0 || v.shape[3] > kWidest)
    return "the fused kernel takes heads whose width is a multiple of 8 and at most 128 only";
  bool fits = v.strides[3] == 1;
  for (int d = 0; d < 3; ++d)
    fits = fits && (v.shape[d] == 1 || (v.strides[d] > 0 && v.strides[d] % kAligned == 0));
  return fits ? nullptr
              : "the fused kernel takes samples, heads and rows that lie multiples of 16 bytes apart only";
}

std::size_t extent_of(const View& v) {
  std::int64_t elements = 1;
  for (int d = 0; d < v.dims; ++d) elements += (v.shape[d] - 1) * v.strides[d];
  return static_cast<std::size_t>(elements) * size_of(v.dtype);
}

using Operands = std::array<View, kOperands>;  ///< no data: the pass has no such operand

/// Returns why the fused kernels cannot compute a pass; null if they might.
const char* unfit(const Operands& all, const View* mask, const AttentionRule& rule) {
  if (mask) return "the fused kernel takes no mask";
  if (rule.dropout_p > 0) return "the fused kernel takes no dropout";
  for (std::size_t o = 0; o < kOperands; ++o)
    if (all[o].data && o != kLogSums)
      if (const char* const why = unfit(all[o])) return why;
  return nullptr;
}

FusedShape shape_of(const Operands& all, const AttentionRule& rule) {
  const View &q = all[kQ], &v = all[kV];
  FusedShape s{all[kOutGradient].data != nullptr,
               rule.causal,
               q.dtype,
               q.shape[0],
               q.shape[1],
               q.shape[2],
               v.shape[2],
               q.shape[3],
               v.shape[3],
               static_cast<float>(rule.scale)};
  for (std::size_t o = 0; o < kOperands; ++o) {
    if (!all[o].data || o == kLogSums) continue;
    for (std::size_t d = 0; d < 3; ++d)  // the stride of a dimension of size 1 means nothing
      s.strides[o][d] = all[o].shape[d] == 1 ? all[o].shape[3] : all[o].strides[d];
  }
  return s;
}

/// Runs a part of a pass that begins at `sample` and `head`. Returns why it cannot be fused; empty if it was.
std::string run_part(const FusedShape& whole, const FusedSlice& part, const Operands& all,
                     std::int64_t sample, std::int64_t head) {
  const FusedShape s = part_of(whole, part);
  std::array<std::optional<Aligned>, kOperands> aligned;
  std::array<void*, kOperands> memory{};
  for (std::size_t o = 0; o < kOperands; ++o) {
    if (!all[o].data) continue;
    View v = all[o];
    const std::int64_t offset = o == kLogSums ? (sample * whole.heads + head) * whole.queries
                                              : sample * s.strides[o][0] + head * s.strides[o][1];
    v.data = static_cast<std::byte*>(v.data) + offset * static_cast<std::int64_t>(size_of(v.dtype));
    v.shape[0] = s.batch;
    v.shape[1] = s.heads;
    memory[o] = aligned[o].emplace(v.data, extent_of(v)).get();
  }
  std::string refusal = run_fused_attention(s, memory);
  if (!refusal.empty()) return refusal;
  const std::size_t first_result = s.backward ? kQGradient : kOut;
  for (std::size_t o = first_result; o < kOperands && aligned[o]; ++o) aligned[o]->write_back();
  return "";
}

std::string run_parts(const Operands& all, const AttentionRule& rule) {
  const FusedShape s = shape_of(all, rule);
  const FusedSlice most = s.backward ? backward_slice(s) : FusedSlice{s.batch, s.heads};
  for (std::int64_t sample = 0; sample < s.batch; sample += most.samples)
    for (std::int64_t head = 0; head < s.heads; head += most.heads) {
      const FusedSlice part{std::min(most.samples, s.batch - sample), std::min(most.heads, s.heads - head)};
      if (std::string refusal = run_part(s, part, all, sample, head); !refusal.empty()) return refusal;
    }
  return "";
}

/// Computes a pass by the library's fused kernels. Returns false, and tells the user why once for each
/// reason, if they cannot.
bool fused(const Operands& all, const View* mask, const AttentionRule& rule) {
  for (const View& v : all)
    if (v.data && v.numel() == 0) return false;  // there is nothing to compute
  const char* const why = unfit(all, mask, rule);
  const std::string refusal = why ? why : run_parts(all, rule);
  if (refusal.empty()) return true;
  add_notice("attention does not use the fused kernel and is slower: " + refusal);
  return false;
}

}  // namespace

void attention_forward(const View& out, const View& log_sums, const View& q, const View& k, const View& v,
                       const View* mask, const AttentionRule& rule) {
  if (fused({q, k, v, out, log_sums}, mask, rule)) return;
  const Matrices queries(q), keys(k), values(v), result(out);
  for (const Matrices* m : {&queries, &keys, &values}) m->loaded();
  const std::int64_t rows = queries.rows(), columns = keys.rows();
  visit_any_floating(q.dtype, "attention", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    for_parts(queries.count(), rows, columns, q.dtype, [&](std::int64_t begin, std::int64_t count) {
      const Weights w(q.dtype, count, rows, columns);
      matmul(w.products, queries.part(begin, count), transposed(keys.part(begin, count)));
      parallel_warps(count * rows,
                     Forward<In>{scores_of<T>(queries, keys, mask, rule, begin), w.products.as<T>(),
                                 w.weights.as<In>(), log_sums.as<T>() + begin * rows});
      matmul(result.part(begin, count), w.weights, values.part(begin, count));
    });
  });
  result.store();
}

void attention_backward(const View& dq, const View& dk, const View& dv, const View& dout, const View& out,
                        const View& log_sums, const View& q, const View& k, const View& v, const View* mask,
                        const AttentionRule& rule) {
  if (fused({q, k, v, out, log_sums, dout, dq, dk, dv}, mask, rule)) return;
  const Matrices queries(q), keys(k), values(v), result(out), above(dout), to_q(dq), to_k(dk), to_v(dv);
  for (const Matrices* m : {&queries, &keys, &values, &result, &above}) m->loaded();
  const std::int64_t rows = queries.rows(), columns = keys.rows();
  visit_any_floating(q.dtype, "attention", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    for_parts(queries.count(), rows, columns, q.dtype, [&](std::int64_t begin, std::int64_t count) {
      const Weights w(q.dtype, count, rows, columns), slopes(q.dtype, count, rows, columns);
      const View dresult = above.part(begin, count);
      matmul(w.products, queries.part(begin, count), transposed(keys.part(begin, count)));
      matmul(slopes.products, dresult, transposed(values.part(begin, count)));
      parallel_warps(count * rows,
                     Backward<In>{scores_of<T>(queries, keys, mask, rule, begin), w.products.as<T>(),
                                  slopes.products.as<T>(), w.weights.as<In>(), slopes.weights.as<In>(),
                                  log_sums.as<T>() + begin * rows, result.part(begin, count), dresult});
      matmul(to_v.part(begin, count), transposed(w.weights), dresult);
      matmul(to_q.part(begin, count), slopes.weights, keys.part(begin, count));
      matmul(to_k.part(begin, count), transposed(slopes.weights), queries.part(begin, count));
    });
  });
  for (const Matrices* m : {&to_q, &to_k, &to_v}) m->store();
}

}  // namespace trireme::cuda
