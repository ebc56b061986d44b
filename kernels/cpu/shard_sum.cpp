// The canonical sum over shards, and the search for what spoils one.
#include <algorithm>
#include <array>
#include <memory>
#include <type_traits>

#include "kernels/cpu/kernels.h"
#include "kernels/finite.h"
#include "kernels/visit.h"

namespace trireme::cpu {

namespace {

// Floats per block: 8 KiB, so that the blocks of a deep tree stay in the first two caches.
constexpr std::size_t kBlock = 2048;

void add_in_order(float* out, const float* left, const float* right, std::size_t count) {
  // An operand may be `out` itself: that is no dependence from one element to another.
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) out[i] = left[i] + right[i];
}

/// The sums that wait for their right siblings, of one block after another, each rounded to T.
template <class T>
class TreeSum {
 public:
  explicit TreeSum(int shards)
      : scratch_(std::make_unique_for_overwrite<float[]>(
            kBlock * static_cast<std::size_t>(root_level(shards) + (kIsFloat ? 0 : 1)))) {}

  void add(const T* data, int merges, std::size_t count) {
    const float* sum = wide(data, count);
    for (; merges > 0; --merges) {
      --depth_;
      float* const to = block(depth_);
      add_in_order(to, pending_[depth_], sum, count);
      if constexpr (!kIsFloat)
        for (std::size_t i = 0; i < count; ++i) to[i] = T(to[i]);
      sum = to;
    }
    pending_[depth_++] = sum;
  }

  // After the last node: the root's block. Ready for the next block then.
  const float* take_root() { return pending_[--depth_]; }

 private:
  static constexpr bool kIsFloat = std::is_same_v<T, float>;

  float* block(std::size_t depth) { return scratch_.get() + depth * kBlock; }

  const float* wide(const T* data, std::size_t count) {
    if constexpr (kIsFloat) {
      return data;
    } else {
      float* const to = block(depth_);
      for (std::size_t i = 0; i < count; ++i) to[i] = data[i];
      return to;
    }
  }

  std::size_t depth_ = 0;
  std::array<const float*, 33> pending_{};
  std::unique_ptr<float[]> scratch_;
};

}  // namespace

void tree_sum(const View& out, std::span<const TreeNode> nodes, std::span<const void* const> parts,
              int shards, float scale) {
  TRIREME_CHECK(parts.size() == nodes.size(), "tree_sum: {} nodes but {} parts", nodes.size(), parts.size());
  const std::vector<int> merges = tree_merges(shards, nodes);
  const auto count = static_cast<std::size_t>(out.numel());
  visit_gradient(out.dtype, "tree_sum", [&]<class T>(T) {
    TreeSum<T> sum(shards);
    for (std::size_t begin = 0; begin < count; begin += kBlock) {
      const std::size_t size = std::min(kBlock, count - begin);
      for (std::size_t k = 0; k < nodes.size(); ++k)
        sum.add(static_cast<const T*>(parts[k]) + begin, merges[k], size);
      const float* root = sum.take_root();
      T* const to = out.as<T>() + begin;
#pragma GCC ivdep
      for (std::size_t i = 0; i < size; ++i) to[i] = T(root[i] * scale);
    }
  });
}

void first_not_finite(const View& out, const View& in, std::int64_t* halted) {
  const std::size_t count = static_cast<std::size_t>(in.numel()),
                    first = trireme::first_not_finite(in.data, count, in.dtype);
  out.as<double>()[0] = static_cast<double>(first);
  out.as<double>()[1] = 0;
  if (first == count) return;
  if (halted) *halted = 1;
  visit_floating(in.dtype, "first_not_finite", [&](auto type) {
    out.as<double>()[1] = static_cast<double>(in.as<decltype(type)>()[first]);
  });
}

}  // namespace trireme::cpu
