// Gradients of shards whose sum depends on the order of additions, and a slow and simple sum over the tree.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

namespace trireme::test {

using Floats = std::vector<float>;

inline std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Returns element i of a shard's gradient. Among every 16 elements there are huge values that cancel,
/// subnormals, signed zeros and infinities of both signs. The others are random over some orders of
/// magnitude.
inline float shard_value(int shard, std::size_t i) {
  const std::uint64_t bits =
      mixed(0x9e3779b97f4a7c15u * (i + 1) + 0xd1342543de82ef95u * static_cast<unsigned>(shard + 1));
  const float unit = static_cast<float>(bits >> 40) * 0x1p-24f - 0.5f;
  switch (i % 16) {
    case 0:
      return shard % 3 == 0 ? 1e30f : shard % 3 == 1 ? -1e30f : unit;
    case 1:
      return unit * 0x1p-130f;
    case 2:
      return bits & 1 ? 0.0f : -0.0f;
    case 3:
      return -0.0f;
    case 4:
      return bits % 5 == 0 ? std::numeric_limits<float>::infinity() : unit;
    case 5:
      return bits % 7 == 0 ? -std::numeric_limits<float>::infinity() : unit;
    case 6:
      return bits % 4 == 0 ? std::copysign(std::numeric_limits<float>::infinity(), unit) : unit;
    default:
      return std::ldexp(unit, static_cast<int>(bits % 13));
  }
}

inline Floats shard_values(int shard, std::size_t count) {
  Floats values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = shard_value(shard, i);
  return values;
}

inline Floats sum_of(const Floats& left, const Floats& right) {
  Floats sum(left.size());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = left[i] + right[i];
  return sum;
}

/// The sums of all nodes of the tree. levels[l][k] is the sum over shards [k << l, (k + 1) << l). Every
/// addition is made, including those of the padding with -0.0.
struct PaddedTree {
  std::vector<std::vector<Floats>> levels;

  PaddedTree(int shards, std::size_t count) {
    int leaves = 1;
    while (leaves < shards) leaves *= 2;
    levels.emplace_back();
    for (int k = 0; k < leaves; ++k)
      levels[0].push_back(k < shards ? shard_values(k, count) : Floats(count, -0.0f));
    while (levels.back().size() > 1) {
      std::vector<Floats> next;
      for (std::size_t k = 0; k < levels.back().size(); k += 2) {
        next.push_back(sum_of(levels.back()[k], levels.back()[k + 1]));
      }
      levels.push_back(std::move(next));
    }
  }

  Floats root(float scale = 1) const {
    Floats result = levels.back()[0];
    for (float& x : result) x *= scale;
    return result;
  }
};

/// Returns true if all elements have the same bits. So -0.0 differs from 0.0, and a NaN equals itself.
inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

}  // namespace trireme::test
