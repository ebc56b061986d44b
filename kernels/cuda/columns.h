// Rows of equal width, walked along by warps whose lanes keep their columns: what is known of a column is
// loaded once, and sums down the columns have a fixed order. Include only from .cu files.
#pragma once

#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/pack.h"

namespace trireme::cuda {

/// How rows of elements of some bytes are cut up. Each warp takes a run of rows of some columns; `across` of
/// its lanes stand side by side, each with a pack of columns, the others on the rows below. Which rows a lane
/// gets, and so the order of sums, is a function of the shape alone: packs of one column, for memory that
/// lies where no packs may, change the number of warps only.
struct ColumnWalk {
  std::int64_t rows, width, part;  ///< part: rows of one run
  std::int64_t groups;             ///< the number of groups of columns
  int across;

  ColumnWalk(std::int64_t rows_in, std::int64_t width_in, std::size_t bytes, int pack, std::int64_t warps)
      : rows(rows_in), width(width_in), across(1) {
    const auto full = static_cast<std::int64_t>(kPackBytes / bytes);
    while (across < kWarp && across * full < width) across *= 2;
    const auto groups_of = [&](std::int64_t n) { return (width + across * n - 1) / (across * n); };
    const std::int64_t most = std::max<std::int64_t>(1, warps / std::max<std::int64_t>(1, groups_of(full))),
                       least = kAhead * (kWarp / across);
    part = std::max(least, (rows + most - 1) / most);
    groups = groups_of(pack);
  }
  std::int64_t parts() const { return std::max<std::int64_t>(1, (rows + part - 1) / part); }
  std::int64_t warps() const { return parts() * groups; }

  /// First column of this lane; beyond `width` it has nothing to do.
  template <int Pack>
  TRIREME_HOST_DEVICE std::int64_t column(std::int64_t i, const Warp& warp) const {
    return (i % groups * across + warp.lane() % across) * Pack;
  }
  /// use(r, load(r)) for each row of this lane, in order. Loads of several rows are under way at once.
  template <class Load, class Use>
  TRIREME_HOST_DEVICE void each_row(std::int64_t i, const Warp& warp, const Load& load,
                                    const Use& use) const {
    const std::int64_t begin = i / groups * part, end = begin + part < rows ? begin + part : rows;
    const int step = kWarp / across;
    std::int64_t r = begin + warp.lane() / across;
    for (; r + (kAhead - 1) * step < end; r += kAhead * step) {
      decltype(load(r)) loaded[kAhead];
      TRIREME_UNROLL
      for (int k = 0; k < kAhead; ++k) loaded[k] = load(r + k * step);
      TRIREME_UNROLL
      for (int k = 0; k < kAhead; ++k) use(r + k * step, loaded[k]);
    }
    for (; r < end; r += step) use(r, load(r));
  }

  static constexpr int kAhead = 4;
  /// By four loads of 16 bytes a lane 2048 warps keep 4 MB under way: what the fastest memory needs. More
  /// would make more sums to join; where there are none to join, more keep all processors busy to the end.
  static constexpr std::int64_t kWarpsOfSums = 2048, kWarpsOfMaps = 8192;
};

template <int N>
struct Sums {
  double values[N];
};

/// Terms of a run of rows, to partial[run * width + column]. Terms: load(row, column) of kPack columns, and
/// add(sums, column, loaded), to the N sums of each.
template <int N, class Terms>
struct SumPart {
  static constexpr int kPack = Terms::kPack;
  ColumnWalk walk;
  Terms terms;
  Sums<N>* partial;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    const std::int64_t column = walk.column<kPack>(i, warp);
    Sums<N> sums[kPack] = {};
    if (column < walk.width)
      walk.each_row(
          i, warp, [&](std::int64_t r) { return terms.load(r, column); },
          [&](std::int64_t, const auto& loaded) { terms.add(sums, column, loaded); });
    TRIREME_UNROLL
    for (int k = 0; k < kPack; ++k) {
      for (double& value : sums[k].values)
        value = warp.all(
            value, [](double a, double b) { return a + b; }, walk.across);
      if (warp.lane() < walk.across && column < walk.width)
        partial[i / walk.groups * walk.width + column + k] = sums[k];
    }
  }
};

/// A warp for each column adds up its runs, and tells `finish`(column, sums).
template <int N, class Finish>
struct JoinParts {
  static constexpr int kAhead = 8;
  const Sums<N>* partial;
  std::int64_t width, parts;
  Finish finish;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k, const Warp& warp) const {
    Sums<N> sums{};
    std::int64_t p = warp.lane();
    for (; p + (kAhead - 1) * kWarp < parts; p += kAhead * kWarp) {
      Sums<N> loaded[kAhead];
      TRIREME_UNROLL
      for (int a = 0; a < kAhead; ++a) loaded[a] = partial[(p + a * kWarp) * width + k];
      TRIREME_UNROLL
      for (int a = 0; a < kAhead; ++a) add(sums, loaded[a]);
    }
    for (; p < parts; p += kWarp) add(sums, partial[p * width + k]);
    for (double& value : sums.values) value = warp.sum(value);
    if (warp.lane() == 0) finish(k, sums);
  }
  TRIREME_HOST_DEVICE static void add(Sums<N>& sums, const Sums<N>& more) {
    for (int n = 0; n < N; ++n) sums.values[n] += more.values[n];
  }
};

/// N sums for each column of rows whose elements have `bytes`, in float64.
template <int N, class Terms, class Finish>
void sum_columns(std::int64_t rows, std::int64_t width, std::size_t bytes, const Terms& terms,
                 const Finish& finish) {
  if (width == 0) return;
  const ColumnWalk walk(rows, width, bytes, Terms::kPack, ColumnWalk::kWarpsOfSums);
  const Scratch partial(static_cast<std::size_t>(walk.parts() * width) * sizeof(Sums<N>));
  parallel_warps(walk.warps(), SumPart<N, Terms>{walk, terms, partial.as<Sums<N>>()});
  parallel_warps(width, JoinParts<N, Finish>{partial.as<Sums<N>>(), width, walk.parts(), finish});
}

/// fn(pack) with a std::integral_constant: columns that a lane takes at once, given where rows lie.
template <class In, class Fn, class... Pointers>
void with_pack(std::int64_t width, const Fn& fn, const Pointers*... rows) {
  constexpr int kFull = static_cast<int>(kPackBytes / sizeof(In));
  if (width % kFull == 0 && (is_pack_aligned(rows) && ...))
    fn(std::integral_constant<int, kFull>());
  else
    fn(std::integral_constant<int, 1>());
}

}  // namespace trireme::cuda
