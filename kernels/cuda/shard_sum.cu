// The canonical sum over shards, and the search for what spoils one.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pack.h"
#include "kernels/visit.h"

namespace trireme::cuda {

namespace {

constexpr int kMostParts = 256;  // of one launch, whose arguments they are
constexpr int kDeepest = 32;     // sums that wait for their right siblings
constexpr std::int64_t kChunk = 4096;

/// The binary counter of one element, every sum rounded to T. Sums that wait between launches stand in
/// `waiting`, one row each.
template <class T>
struct TreeSum {
  const T* parts[kMostParts];
  std::uint8_t merges[kMostParts];
  int count, depth;  ///< parts; sums that wait before them
  std::int64_t width;
  float* waiting;
  T* out;  ///< after the last launch
  float scale;

  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    float pending[kDeepest];
    int top = depth;
    for (int d = 0; d < depth; ++d) pending[d] = waiting[d * width + i];
    for (int k = 0; k < count; ++k) {
      float sum = parts[k][i];
      for (int m = 0; m < merges[k]; ++m) sum = T(pending[--top] + sum);
      pending[top++] = sum;
    }
    if (out)
      out[i] = T(pending[0] * scale);
    else
      for (int d = 0; d < top; ++d) waiting[d * width + i] = pending[d];
  }
};

struct Earlier {
  TRIREME_HOST_DEVICE std::int64_t operator()(std::int64_t a, std::int64_t b) const { return a < b ? a : b; }
};

/// The first of a chunk, or `count`.
template <class T>
struct FirstNotFinite {
  static constexpr int kPack = static_cast<int>(kPackBytes / sizeof(T)), kAhead = 4, kStep = kPack * kWarp;
  const T* in;
  std::int64_t count;
  std::int64_t* firsts;
  bool packed;
  TRIREME_HOST_DEVICE static bool is_bad(T value) { return !(value - value == T(0)); }
  TRIREME_HOST_DEVICE void operator()(std::int64_t c, const Warp& warp) const {
    std::int64_t first = count;
    const std::int64_t begin = c * kChunk, end = Earlier()(begin + kChunk, count);
    std::int64_t i = begin + warp.lane() * kPack;
    if (packed)
      for (; i + (kAhead - 1) * kStep + kPack <= end; i += kAhead * kStep) {
        Pack<T, kPack> loaded[kAhead];
        TRIREME_UNROLL
        for (int a = 0; a < kAhead; ++a) loaded[a] = load_pack<kPack>(in + i + a * kStep);
        TRIREME_UNROLL
        for (int a = 0; a < kAhead; ++a) {
          TRIREME_UNROLL
          for (int p = 0; p < kPack; ++p)
            if (is_bad(loaded[a].values[p])) first = Earlier()(first, i + a * kStep + p);
        }
      }
    for (; i < end; i += kStep)
      for (std::int64_t k = i; k < i + kPack && k < end; ++k)
        if (is_bad(in[k])) first = Earlier()(first, k);
    first = warp.all(first, Earlier());
    if (warp.lane() == 0) firsts[c] = first;
  }
};

template <class T>
struct Earliest {
  const T* in;
  const std::int64_t* firsts;
  std::int64_t chunks, count;
  double* out;
  std::int64_t* halted;
  TRIREME_HOST_DEVICE void operator()(std::int64_t, const Warp& warp) const {
    std::int64_t first = count;
    for (std::int64_t c = warp.lane(); c < chunks; c += kWarp) first = Earlier()(first, firsts[c]);
    first = warp.all(first, Earlier());
    if (warp.lane() != 0) return;
    out[0] = static_cast<double>(first);
    out[1] = first < count ? static_cast<double>(in[first]) : 0;
    if (first < count && halted) *halted = 1;
  }
};

template <class T>
void sum_parts(const View& out, const std::vector<int>& merges, std::span<const void* const> parts,
               float scale) {
  const std::int64_t width = out.numel();
  const auto launches = (parts.size() + kMostParts - 1) / kMostParts;
  const Scratch waiting(launches > 1 ? static_cast<std::size_t>(width) * kDeepest * sizeof(float) : 0);
  TreeSum<T> sum{};
  sum.width = width;
  sum.waiting = waiting.as<float>();
  sum.scale = scale;
  int depth = 0;
  for (std::size_t first = 0; first < parts.size(); first += kMostParts) {
    sum.depth = depth;
    sum.count = static_cast<int>(std::min<std::size_t>(kMostParts, parts.size() - first));
    for (int k = 0; k < sum.count; ++k) {
      const std::size_t part = first + static_cast<std::size_t>(k);
      sum.parts[k] = static_cast<const T*>(parts[part]);
      sum.merges[k] = static_cast<std::uint8_t>(merges[part]);
      depth += 1 - merges[part];
    }
    sum.out = first + kMostParts < parts.size() ? nullptr : out.as<T>();
    parallel_for(width, sum);
  }
}

}  // namespace

void tree_sum(const View& out, std::span<const TreeNode> nodes, std::span<const void* const> parts,
              int shards, float scale) {
  TRIREME_CHECK(parts.size() == nodes.size(), "tree_sum: {} nodes but {} parts", nodes.size(), parts.size());
  if (parts.size() == 1) {
    View in = out;
    in.data = const_cast<void*>(parts[0]);
    return unary(UnaryOp::mul_scalar, out, in, {static_cast<double>(scale)});
  }
  const std::vector<int> merges = tree_merges(shards, nodes);
  visit_gradient(out.dtype, "tree_sum",
                 [&](auto type) { sum_parts<decltype(type)>(out, merges, parts, scale); });
}

void first_not_finite(const View& out, const View& in, std::int64_t* halted) {
  const std::int64_t count = in.numel(), chunks = (count + kChunk - 1) / kChunk;
  const Scratch firsts(static_cast<std::size_t>(chunks) * sizeof(std::int64_t));
  visit_floating(in.dtype, "first_not_finite", [&](auto type) {
    using T = decltype(type);
    parallel_warps(chunks,
                   FirstNotFinite<T>{in.as<T>(), count, firsts.as<std::int64_t>(), is_pack_aligned(in.data)});
    parallel_warps(
        1, Earliest<T>{in.as<T>(), firsts.as<std::int64_t>(), chunks, count, out.as<double>(), halted});
  });
}

}  // namespace trireme::cuda
