// Reductions in a fixed order: chunks of a fixed size, then the chunks. The grid decides who computes a
// chunk, never how.
#include "kernels/reduction.h"

#include "kernels/cuda/columns.h"
#include "kernels/cuda/kernels.h"
#include "kernels/visit.h"

namespace trireme::cuda {

namespace {

constexpr std::int64_t kChunk = 4096;  // reduced elements of one warp
constexpr std::int64_t kRun = 256;     // of one thread, where neighbouring outputs lie next to each other

template <class T>
struct Plain {
  TRIREME_HOST_DEVICE static Accumulator<T> load(T x) { return to_accumulator(x); }
};
template <class T>
struct Squared {
  TRIREME_HOST_DEVICE static double load(T x) { return static_cast<double>(x) * static_cast<double>(x); }
};

/// Chunk c of output o goes to out[kept.offset(o, kept.out)] where there is one chunk, else to
/// partial[c * outputs + o].
template <class R, class T, class Load, class A, class Out>
struct Chunks {
  const T* in;
  Dims kept, reduced;
  std::int64_t outputs, size, count;
  A* partial;
  Out* out;

  TRIREME_HOST_DEVICE A element(std::int64_t o_offset, std::int64_t r) const {
    return Load::load(in[o_offset + reduced.offset(r, reduced.in)]);
  }
  TRIREME_HOST_DEVICE void put(std::int64_t i, A a) const {
    if (partial)
      partial[i] = a;
    else
      out[kept.offset(i, kept.out)] = result_of<R, Out>(a, count);
  }
  TRIREME_HOST_DEVICE std::int64_t end_of(std::int64_t c) const {
    return (c + 1) * size < count ? (c + 1) * size : count;
  }
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    const std::int64_t c = i / outputs, from = kept.offset(i % outputs, kept.in), end = end_of(c);
    A a = R::template start<A>();
    for (std::int64_t r = c * size + warp.lane(); r < end; r += kWarp) a = R::join(a, element(from, r));
    a = warp.all(a, [](A x, A y) { return R::join(x, y); });
    if (warp.lane() == 0) put(i, a);
  }
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t c = i / outputs, from = kept.offset(i % outputs, kept.in), end = end_of(c);
    A a = R::template start<A>();
    for (std::int64_t r = c * size; r < end; ++r) a = R::join(a, element(from, r));
    put(i, a);
  }
};

/// Joins the chunks of each output.
template <class R, class A, class Out>
struct Join {
  const A* partial;
  Dims kept;
  std::int64_t outputs, chunks, count;  ///< count: elements of each output
  Out* out;
  TRIREME_HOST_DEVICE void operator()(std::int64_t o, const Warp& warp) const {
    A a = R::template start<A>();
    for (std::int64_t c = warp.lane(); c < chunks; c += kWarp) a = R::join(a, partial[c * outputs + o]);
    a = warp.all(a, [](A x, A y) { return R::join(x, y); });
    if (warp.lane() == 0) out[kept.offset(o, kept.out)] = result_of<R, Out>(a, count);
  }
};

template <class R, class T, class Load, class Out>
void reduce_to(Out* out, const T* in, const SplitDims& dims) {
  using A = decltype(Load::load(T{}));
  const auto& [kept, reduced] = dims;
  const bool side_by_side = kept.count && kept.in[kept.count - 1] == 1 && reduced.count;
  const std::int64_t outputs = kept.numel(), count = reduced.numel(), size = side_by_side ? kRun : kChunk,
                     chunks = std::max<std::int64_t>(1, (count + size - 1) / size);
  if (outputs == 0) return;
  const Scratch partial(static_cast<std::size_t>(chunks > 1 ? outputs * chunks : 0) * sizeof(A));
  const Chunks<R, T, Load, A, Out> work{
      in, kept, reduced, outputs, size, count, chunks > 1 ? partial.as<A>() : nullptr, out};
  if (side_by_side)
    parallel_for(outputs * chunks, work);
  else
    parallel_warps(outputs * chunks, work);
  if (chunks > 1)
    parallel_warps(outputs, Join<R, A, Out>{partial.as<A>(), kept, outputs, chunks, count, out});
}

template <class T, int P>
struct RowTerms {
  static constexpr int kPack = P;
  const T* in;
  std::int64_t width;
  TRIREME_HOST_DEVICE Pack<T, P> load(std::int64_t r, std::int64_t k) const {
    return load_pack<P>(in + r * width + k);
  }
  TRIREME_HOST_DEVICE void add(Sums<1> (&sums)[P], std::int64_t, const Pack<T, P>& loaded) const {
    TRIREME_UNROLL
    for (int p = 0; p < P; ++p) sums[p].values[0] += to_accumulator(loaded.values[p]);
  }
};

template <class R, class T>
struct Rounded {
  T* out;
  std::int64_t count;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k, const Sums<1>& sums) const {
    out[k] = result_of<R, T>(sums.values[0], count);
  }
};

/// Dense rows of floating point, added up: what biases get.
bool are_rows(const SplitDims& dims) {
  const auto& [kept, reduced] = dims;
  return kept.count == 1 && kept.in[0] == 1 && kept.out[0] == 1 && reduced.count == 1 &&
         reduced.in[0] == kept.shape[0];
}

template <class R, class T>
void reduce_as(const View& out, const View& in) {
  using Out = typename R::template Out<T>;
  const SplitDims dims = split_dims(out, in);
  if constexpr ((std::is_same_v<R, Sum> || std::is_same_v<R, Mean>)&&!std::is_integral_v<T>)
    if (are_rows(dims)) {
      const std::int64_t width = dims.kept.shape[0];
      return with_pack<T>(
          width,
          [&](auto pack) {
            sum_columns<1>(dims.reduced.shape[0], width, sizeof(T), RowTerms<T, pack>{in.as<T>(), width},
                           Rounded<R, T>{out.as<T>(), dims.reduced.shape[0]});
          },
          in.as<T>());
    }
  reduce_to<R, T, Plain<T>>(out.as<Out>(), in.as<T>(), dims);
}

template <class A>
struct Best {
  A value;
  std::int64_t index;
};

/// Index of the first largest or smallest element of each row; NaN beats all.
template <class T>
struct ArgExtreme {
  const T* in;
  std::int64_t* out;
  std::int64_t width;
  bool largest;
  using A = Accumulator<T>;

  TRIREME_HOST_DEVICE Best<A> better(const Best<A>& a, const Best<A>& b) const {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    const bool same = a_nan ? b_nan : a.value == b.value;
    if (same) return a.index < b.index ? a : b;
    if (a_nan || b_nan) return a_nan ? a : b;
    return (largest ? a.value > b.value : a.value < b.value) ? a : b;
  }
  TRIREME_HOST_DEVICE void operator()(std::int64_t r, const Warp& warp) const {
    const T* x = in + r * width;
    // Lanes without an element repeat the first one.
    Best<A> best{to_accumulator(x[0]), 0};
    for (std::int64_t k = warp.lane(); k < width; k += kWarp) best = better(best, {to_accumulator(x[k]), k});
    best = warp.all(best, [this](const Best<A>& a, const Best<A>& b) { return better(a, b); });
    if (warp.lane() == 0) out[r] = best.index;
  }
};

template <class T>
struct CumulativeSum {
  const T* in;
  typename Sum::Out<T>* out;
  std::int64_t width;
  TRIREME_HOST_DEVICE void operator()(std::int64_t r) const {
    Accumulator<T> total = 0;
    for (std::int64_t k = r * width; k < (r + 1) * width; ++k) {
      total += to_accumulator(in[k]);
      out[k] = static_cast<typename Sum::Out<T>>(total);
    }
  }
};

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
  visit_dtype(in.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_warps(in.shape[0],
                   ArgExtreme<T>{in.as<T>(), out.as<std::int64_t>(), in.shape[1], op == ReduceOp::kMax});
  });
}

void cumsum(const View& out, const View& in) {
  visit_dtype(in.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_for(in.shape[0], CumulativeSum<T>{in.as<T>(), out.as<typename Sum::Out<T>>(), in.shape[1]});
  });
}

void chunk_squares(std::span<const View> tensors, std::span<double> out) {
  const Scratch squares(out.size_bytes());
  double* to = squares.as<double>();
  for (const View& in : tensors) {
    const std::int64_t chunks = squares_chunks(in.numel());
    visit_floating(in.dtype, "chunk_squares", [&](auto type) {
      using T = decltype(type);
      SplitDims dims;
      dims.reduced.add(in.numel(), 1, 0);
      parallel_warps(chunks,
                     Chunks<Sum, T, Squared<T>, double, double>{in.as<T>(), dims.kept, dims.reduced, 1,
                                                                kSquaresChunk, in.numel(), to, nullptr});
    });
    to += chunks;
  }
  copy_to_host(out.data(), squares.as<void>(), out.size_bytes());
}

}  // namespace trireme::cuda
