// Reductions in a fixed order: the number of threads decides who computes an output, never how.
#include <limits>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/loops.h"

namespace trireme::cpu {

namespace {

/// A list of dimensions with the input's strides (and the output's, for kept ones).
struct Dims {
  int count = 0;
  std::int64_t shape[kMaxDims], in[kMaxDims], out[kMaxDims];
  void add(std::int64_t size, std::int64_t in_stride, std::int64_t out_stride) {
    shape[count] = size;
    in[count] = in_stride;
    out[count++] = out_stride;
  }
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int d = 0; d < count; ++d) n *= shape[d];
    return n;
  }
  std::int64_t offset(std::int64_t index, const std::int64_t* strides) const {
    std::int64_t at = 0;
    for (int d = count - 1; d >= 0; --d) {
      at += index % shape[d] * strides[d];
      index /= shape[d];
    }
    return at;
  }
};

struct Sum {
  static double start() { return 0; }
  template <class A>
  static A join(A x, A y) {
    return x + y;
  }
};

struct Max {
  static double start() { return -std::numeric_limits<double>::infinity(); }
  template <class A>
  static A join(A x, A y) {
    return x > y || x != x ? x : y;
  }
};

// float sums are gathered in double; integers in int64.
template <class T>
using Accumulator = std::conditional_t<std::is_floating_point_v<T>, double, std::int64_t>;

template <class R, class A>
A start_of() {
  if constexpr (std::is_same_v<R, Max> && std::is_integral_v<A>)
    return std::numeric_limits<A>::min();
  else
    return static_cast<A>(R::start());
}

/// One output: all reduced elements, the inner run in eight fixed lanes.
template <class R, class T>
Accumulator<T> reduce_one(const T* in, const Dims& reduced) {
  using A = Accumulator<T>;
  const std::int64_t inner = reduced.count ? reduced.shape[reduced.count - 1] : 1;
  const std::int64_t stride = reduced.count ? reduced.in[reduced.count - 1] : 1;
  Dims rest = reduced;
  if (rest.count) --rest.count;
  A lanes[8];
  for (A& lane : lanes) lane = start_of<R, A>();
  const std::int64_t runs = rest.numel();
  for (std::int64_t r = 0; r < runs; ++r) {
    const T* x = in + rest.offset(r, rest.in);
    std::int64_t k = 0;
    for (; k + 8 <= inner; k += 8)
      for (int l = 0; l < 8; ++l) lanes[l] = R::join(lanes[l], static_cast<A>(x[(k + l) * stride]));
    for (int l = 0; k < inner; ++k, ++l) lanes[l] = R::join(lanes[l], static_cast<A>(x[k * stride]));
  }
  for (int width = 4; width; width /= 2)
    for (int l = 0; l < width; ++l) lanes[l] = R::join(lanes[l], lanes[l + width]);
  return lanes[0];
}

/// The innermost dimension is kept: rows are gathered side by side.
template <class R, class T>
void reduce_rows(T* out, const T* in, Dims kept, const Dims& reduced) {
  using A = Accumulator<T>;
  const std::int64_t width = kept.shape[kept.count - 1], out_stride = kept.out[kept.count - 1];
  --kept.count;
  constexpr std::int64_t kBlock = 256;
  const std::int64_t blocks = (width + kBlock - 1) / kBlock, runs = reduced.numel();
  for_pieces(kept.numel() * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % blocks * kBlock, count = std::min(kBlock, width - first);
      const T* x = in + kept.offset(i / blocks, kept.in) + first;
      A lanes[kBlock];
      std::fill(lanes, lanes + count, start_of<R, A>());
      for (std::int64_t r = 0; r < runs; ++r) {
        const T* row = x + reduced.offset(r, reduced.in);
        for (std::int64_t k = 0; k < count; ++k) lanes[k] = R::join(lanes[k], static_cast<A>(row[k]));
      }
      T* o = out + kept.offset(i / blocks, kept.out) + first * out_stride;
      for (std::int64_t k = 0; k < count; ++k) o[k * out_stride] = static_cast<T>(lanes[k]);
    }
  });
}

template <class R, class T>
void reduce_as(const View& out, const View& in) {
  Dims kept, reduced;
  int by_stride[kMaxDims];
  for (int d = 0; d < in.dims; ++d) by_stride[d] = d;
  std::stable_sort(by_stride, by_stride + in.dims,
                   [&](int a, int b) { return in.strides[a] > in.strides[b]; });
  for (int i = 0; i < in.dims; ++i) {
    const int d = by_stride[i];
    if (in.shape[d] == 1) continue;
    if (out.shape[d] == 1)
      reduced.add(in.shape[d], in.strides[d], 0);
    else
      kept.add(in.shape[d], in.strides[d], out.strides[d]);
  }
  T* o = out.as<T>();
  const T* x = in.as<T>();
  if (kept.count && kept.in[kept.count - 1] == 1 && reduced.count)
    return reduce_rows<R, T>(o, x, kept, reduced);
  const std::int64_t work = std::max<std::int64_t>(1, reduced.numel());
  for_pieces(kept.numel(), std::max<std::int64_t>(1, kPiece / work),
             [&](std::int64_t begin, std::int64_t end) {
               for (std::int64_t i = begin; i < end; ++i)
                 o[kept.offset(i, kept.out)] =
                     static_cast<T>(reduce_one<R, T>(x + kept.offset(i, kept.in), reduced));
             });
}

}  // namespace

void reduce(ReduceOp op, const View& out, const View& in) {
  visit_dtype(in.dtype, [&](auto type) {
    using T = decltype(type);
    if constexpr (std::is_same_v<T, bool>)
      fail(ExitCode::kInternal, "reduce: not defined for bool");
    else
      op == ReduceOp::kSum ? reduce_as<Sum, T>(out, in) : reduce_as<Max, T>(out, in);
  });
}

void argmax(const View& out, const View& in) {
  const std::int64_t rows = in.shape[0], width = in.shape[1];
  visit_dtype(in.dtype, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* x = in.as<T>() + r * width;
      out.as<std::int64_t>()[r] = std::max_element(x, x + width) - x;
    }
  });
}

double sum_of_squares(const View& in) {
  return visit_floating(in.dtype, "sum_of_squares", [&](auto type) {
    using T = decltype(type);
    constexpr std::int64_t kChunk = 8192;
    const std::int64_t count = in.numel();
    std::vector<double> partial(static_cast<std::size_t>((count + kChunk - 1) / kChunk));
    for_pieces(count, kChunk, [&](std::int64_t begin, std::int64_t end) {
      double lanes[8] = {};
      const T* x = in.as<T>();
      std::int64_t k = begin;
      for (; k + 8 <= end; k += 8)
        for (int l = 0; l < 8; ++l) lanes[l] += static_cast<double>(x[k + l]) * static_cast<double>(x[k + l]);
      for (int l = 0; k < end; ++k, ++l) lanes[l] += static_cast<double>(x[k]) * static_cast<double>(x[k]);
      double sum = 0;
      for (double lane : lanes) sum += lane;
      partial[static_cast<std::size_t>(begin / kChunk)] = sum;
    });
    double total = 0;
    for (double p : partial) total += p;
    return total;
  });
}

}  // namespace trireme::cpu
