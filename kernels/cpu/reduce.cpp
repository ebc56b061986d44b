// Reductions in a fixed order: the number of threads decides who computes an output, never how.
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/loops.h"
#include "kernels/reduction.h"

namespace trireme::cpu {

namespace {

/// The type in which the reduction R gathers elements of type T. Max and Min do not round, so they need no
/// type that is wider than Compute<T>.
template <class R, class T>
using Gathered =
    std::conditional_t<std::is_base_of_v<Max, R> && !std::is_integral_v<T>, Compute<T>, Accumulator<T>>;

/// Converts an element to the type in which R gathers it.
template <class R, class T>
Gathered<R, T> gathered(T x) {
  return static_cast<Gathered<R, T>>(static_cast<Compute<T>>(x));
}

/// Joins each of `count` elements, `stride` apart, to one of eight lanes: element k to lane k mod 8. `Stride`
/// may be an integral_constant; with one of 1 the loop vectorizes.
template <class R, class T, class Stride>
void join_run(Gathered<R, T> (&lanes)[8], const T* x, std::int64_t count, Stride stride) {
  std::int64_t k = 0;
  for (; k + 8 <= count; k += 8)
    for (int l = 0; l < 8; ++l) lanes[l] = R::join(lanes[l], gathered<R>(x[(k + l) * stride]));
  for (int l = 0; k < count; ++k, ++l) lanes[l] = R::join(lanes[l], gathered<R>(x[k * stride]));
}

/// One output: all reduced elements, the inner run in eight fixed lanes.
template <class R, class T>
Gathered<R, T> reduce_one(const T* in, const Dims& reduced) {
  using A = Gathered<R, T>;
  const std::int64_t inner = reduced.count ? reduced.shape[reduced.count - 1] : 1;
  const std::int64_t stride = reduced.count ? reduced.in[reduced.count - 1] : 1;
  Dims rest = reduced;
  if (rest.count) --rest.count;
  A lanes[8];
  for (A& lane : lanes) lane = R::template start<A>();
  const std::int64_t runs = rest.numel();
  for (std::int64_t r = 0; r < runs; ++r) {
    const T* x = in + rest.offset(r, rest.in);
    if (stride == 1)
      join_run<R>(lanes, x, inner, std::integral_constant<std::int64_t, 1>());
    else
      join_run<R>(lanes, x, inner, stride);
  }
  for (int width = 4; width; width /= 2)
    for (int l = 0; l < width; ++l) lanes[l] = R::join(lanes[l], lanes[l + width]);
  return lanes[0];
}

/// The innermost dimension is kept: rows are gathered side by side.
template <class R, class T, class Out>
void reduce_rows(Out* out, const T* in, Dims kept, const Dims& reduced) {
  using A = Gathered<R, T>;
  const std::int64_t width = kept.shape[kept.count - 1], out_stride = kept.out[kept.count - 1];
  --kept.count;
  constexpr std::int64_t kBlock = 256;
  const std::int64_t blocks = (width + kBlock - 1) / kBlock, runs = reduced.numel();
  for_pieces(kept.numel() * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % blocks * kBlock, count = std::min(kBlock, width - first);
      const T* x = in + kept.offset(i / blocks, kept.in) + first;
      A lanes[kBlock];
      std::fill(lanes, lanes + count, R::template start<A>());
      for (std::int64_t r = 0; r < runs; ++r) {
        const T* row = x + reduced.offset(r, reduced.in);
        for (std::int64_t k = 0; k < count; ++k) lanes[k] = R::join(lanes[k], gathered<R>(row[k]));
      }
      Out* o = out + kept.offset(i / blocks, kept.out) + first * out_stride;
      for (std::int64_t k = 0; k < count; ++k) o[k * out_stride] = result_of<R, Out>(lanes[k], runs);
    }
  });
}

template <class R, class T>
void reduce_as(const View& out, const View& in) {
  const auto [kept, reduced] = split_dims(out, in);
  using Out = typename R::template Out<T>;
  Out* o = out.as<Out>();
  const T* x = in.as<T>();
  if (kept.count && kept.in[kept.count - 1] == 1 && reduced.count) return reduce_rows<R>(o, x, kept, reduced);
  const std::int64_t work = std::max<std::int64_t>(1, reduced.numel());
  for_pieces(
      kept.numel(), std::max<std::int64_t>(1, kPiece / work), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
          o[kept.offset(i, kept.out)] =
              result_of<R, Out>(reduce_one<R, T>(x + kept.offset(i, kept.in), reduced), reduced.numel());
      });
}

}  // namespace

void reduce(ReduceOp op, const View& out, const View& in) {
  visit_dtype(in.dtype, [&](auto type) {
    using T = decltype(type);
    switch (op) {
      case ReduceOp::kSum:
        return reduce_as<Sum, T>(out, in);
      case ReduceOp::kProd:
        return reduce_as<Prod, T>(out, in);
      case ReduceOp::kMean:
        if constexpr (!std::is_integral_v<T>) return reduce_as<Mean, T>(out, in);
        fail(ExitCode::kInternal, "mean: needs floating point, got {}", name_of(in.dtype));
      case ReduceOp::kMax:
        return reduce_as<Max, T>(out, in);
      case ReduceOp::kMin:
        return reduce_as<Min, T>(out, in);
      case ReduceOp::kAny:
        return reduce_as<Any, T>(out, in);
      case ReduceOp::kAll:
        return reduce_as<All, T>(out, in);
    }
  });
}

void arg_extreme(ReduceOp op, const View& out, const View& in) {
  const std::int64_t rows = in.shape[0], width = in.shape[1];
  visit_dtype(in.dtype, [&](auto type) {
    using T = decltype(type);
    using A = Accumulator<T>;
    for_pieces(rows, std::max<std::int64_t>(1, kPiece / std::max<std::int64_t>(1, width)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r) {
                   const T* x = in.as<T>() + r * width;
                   std::int64_t best = 0;
                   for (std::int64_t k = 1; k < width; ++k) {
                     const A a = to_accumulator(x[k]), b = to_accumulator(x[best]);
                     if (b == b && (a != a || (op == ReduceOp::kMax ? a > b : a < b))) best = k;
                   }
                   out.as<std::int64_t>()[r] = best;
                 }
               });
  });
}

void cumsum(const View& out, const View& in) {
  const std::int64_t rows = in.shape[0], width = in.shape[1];
  visit_dtype(in.dtype, [&](auto type) {
    using T = decltype(type);
    using Out = Sum::Out<T>;
    for_pieces(rows, std::max<std::int64_t>(1, kPiece / std::max<std::int64_t>(1, width)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r) {
                   Accumulator<T> total = 0;
                   for (std::int64_t k = r * width; k < (r + 1) * width; ++k) {
                     total += to_accumulator(in.as<T>()[k]);
                     out.as<Out>()[k] = static_cast<Out>(total);
                   }
                 }
               });
  });
}

namespace {

/// Writes the sum of squares of each chunk of one tensor to `out` and the elements after it.
void squares_of(const View& in, double* out) {
  visit_floating(in.dtype, "chunk_squares", [&](auto type) {
    using T = decltype(type);
    for_pieces(in.numel(), kSquaresChunk, [&](std::int64_t begin, std::int64_t end) {
      const T* x = in.as<T>() + begin;
      out[begin / kSquaresChunk] = sum_over<double>(
          end - begin, [=](std::int64_t k) { return static_cast<double>(x[k]) * static_cast<double>(x[k]); });
    });
  });
}

}  // namespace

void chunk_squares(std::span<const View> tensors, std::span<double> out) {
  double* to = out.data();
  for (const View& in : tensors) {
    squares_of(in, to);
    to += squares_chunks(in.numel());
  }
}

}  // namespace trireme::cpu
