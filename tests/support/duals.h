// Arrays of dual numbers, with which slow reference implementations in plain loops also compute derivatives.
//
// A dual number v + d*e with e*e = 0 carries the derivative along one direction through any formula, exactly
// and without a graph. (W. Clifford, 1871; as forward-mode differentiation: R. Wengert, 1964.)
#pragma once

#include <cmath>
#include <functional>
#include <vector>

#include "core/tensor/shape.h"

namespace trireme::test {

struct Dual {
  double v = 0;  ///< value
  double d = 0;  ///< derivative along the chosen direction
};

inline Dual operator+(Dual a, Dual b) { return {a.v + b.v, a.d + b.d}; }
inline Dual operator-(Dual a, Dual b) { return {a.v - b.v, a.d - b.d}; }
inline Dual operator*(Dual a, Dual b) { return {a.v * b.v, a.d * b.v + a.v * b.d}; }
inline Dual operator/(Dual a, Dual b) { return {a.v / b.v, (a.d - a.v / b.v * b.d) / b.v}; }
/// Returns f(x), given f(x.v) and its derivative f'(x.v).
inline Dual chain(Dual x, double f, double derivative) { return {f, derivative * x.d}; }
inline Dual exp(Dual x) { return chain(x, std::exp(x.v), std::exp(x.v)); }
inline Dual log(Dual x) { return chain(x, std::log(x.v), 1 / x.v); }
inline Dual sqrt(Dual x) { return chain(x, std::sqrt(x.v), 0.5 / std::sqrt(x.v)); }

using Index = std::vector<std::int64_t>;
using Lane = std::vector<Dual>;

/// A row-major array of dual numbers.
struct Duals {
  Shape shape;
  std::vector<Dual> values;

  /// Returns the element at an index for each dimension, with broadcasting. If there are more indices than
  /// dimensions, the first ones are ignored, and so are indices of dimensions of size 1.
  Dual at(const Index& index) const {
    std::int64_t flat = 0;
    const auto extra = static_cast<int>(index.size()) - shape.size();
    for (int d = 0; d < shape.size(); ++d)
      flat = flat * shape[d] + (shape[d] == 1 ? 0 : index[static_cast<std::size_t>(d + extra)]);
    return values[static_cast<std::size_t>(flat)];
  }
};

/// Returns the array whose element at each index is fn(index).
inline Duals build(const Shape& shape, const std::function<Dual(const Index&)>& fn) {
  Duals out{shape, {}};
  Index index(static_cast<std::size_t>(shape.size()));
  for (std::int64_t i = 0; i < shape.numel(); ++i) {
    std::int64_t rest = i;
    for (int d = shape.size() - 1; d >= 0; rest /= shape[d--])
      index[static_cast<std::size_t>(d)] = rest % shape[d];
    out.values.push_back(fn(index));
  }
  return out;
}

/// Returns x with each lane along `dim` replaced by fn(lane). fn must return lanes of equal length.
inline Duals map_lanes(const Duals& x, int dim, const std::function<Lane(const Lane&)>& fn) {
  const auto lane_at = [&](Index index) {
    Lane lane;
    for (std::int64_t i = 0; i < x.shape[dim]; ++i) {
      index[static_cast<std::size_t>(dim)] = i;
      lane.push_back(x.at(index));
    }
    return fn(lane);
  };
  Shape shape = x.shape;
  shape[dim] = static_cast<std::int64_t>(lane_at(Index(static_cast<std::size_t>(shape.size()))).size());
  return build(shape, [&](const Index& index) {
    return lane_at(index)[static_cast<std::size_t>(index[static_cast<std::size_t>(dim)])];
  });
}

/// Returns x reduced over `dims`, or over all dimensions if `dims` is empty. Each element of the result is fn
/// of the elements along `dims`.
inline Duals reduce(const Duals& x, const std::vector<int>& dims, bool keepdim,
                    const std::function<Dual(const Lane&)>& fn) {
  std::vector<bool> gone(static_cast<std::size_t>(x.shape.size()), dims.empty());
  for (const int d : dims) gone[static_cast<std::size_t>(d)] = true;
  Shape kept, inner, result;
  for (int d = 0; d < x.shape.size(); ++d) {
    const bool g = gone[static_cast<std::size_t>(d)];
    kept.push_back(g ? 1 : x.shape[d]);
    inner.push_back(g ? x.shape[d] : 1);
    if (!g || keepdim) result.push_back(kept[d]);
  }
  Duals out = build(kept, [&](const Index& outer) {
    Lane lane;
    build(inner, [&](const Index& at) {
      Index index = outer;
      for (std::size_t d = 0; d < index.size(); ++d) index[d] += at[d];
      lane.push_back(x.at(index));
      return Dual();
    });
    return fn(lane);
  });
  out.shape = result;
  return out;
}

inline Dual sum(const Lane& lane) {
  Dual total;
  for (const Dual x : lane) total = total + x;
  return total;
}

}  // namespace trireme::test
