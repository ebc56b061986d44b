// A random program of ops, together with a reference of its results in dual numbers.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "tests/support/duals.h"

namespace trireme::test {

struct Node {
  Tensor tensor;
  Duals reference;
};

class Graph {
 public:
  explicit Graph(std::uint64_t seed)
      : random_(seed), dtype_(seed % 2 == 0 ? DType::kFloat64 : DType::kFloat32) {}

  bool is_double() const { return dtype_ == DType::kFloat64; }
  /// Returns the least distance of values from points where a derivative jumps.
  double kink() const { return is_double() ? 1e-7 : 1e-3; }
  std::int64_t pick(std::int64_t count) {
    return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(count));
  }
  bool coin() { return pick(2) == 0; }
  double number(double low, double high) {
    const double x = low + (high - low) * static_cast<double>(random_() >> 11) * 0x1p-53;
    return is_double() ? x : static_cast<float>(x);
  }
  int dim_of(const Node& x) { return static_cast<int>(pick(x.tensor.dim())); }
  Shape random_shape(int dims) {
    Shape shape;
    for (int d = 0; d < dims; ++d) shape.push_back(1 + pick(4));
    return shape;
  }
  /// Returns a random divisor of `number` that is at most `most`.
  std::int64_t divisor(std::int64_t number, std::int64_t most) {
    std::vector<std::int64_t> all;
    for (std::int64_t d = 1; d <= std::min(number, most); ++d)
      if (number % d == 0) all.push_back(d);
    return all[static_cast<std::size_t>(pick(static_cast<std::int64_t>(all.size())))];
  }
  const Node& any() { return pool_[static_cast<std::size_t>(pick(static_cast<std::int64_t>(pool_.size())))]; }

  Node leaf(const Shape& shape) {
    Node leaf{Tensor(), build(shape, [&](const Index&) { return Dual{number(-1.5, 1.5), number(-1, 1)}; })};
    std::vector<double> values, direction;
    for (const Dual x : leaf.reference.values) {
      values.push_back(x.v);
      direction.push_back(x.d);
    }
    leaf.tensor = to_dtype(Tensor::from(values, shape), dtype_).clone();
    leaf.tensor.set_requires_grad(true);
    leaves_.push_back({leaf.tensor, direction});
    pool_.push_back(leaf);
    return leaf;
  }

  /// Returns a new leaf that broadcasts to `shape`.
  Node broadcastable(const Shape& shape) {
    Shape own;
    for (int d = static_cast<int>(pick(shape.size() + 1)); d < shape.size(); ++d)
      own.push_back(coin() ? 1 : shape[d]);
    return leaf(own);
  }

  /// Returns a new leaf with sizes from 1 to `most`, or an existing node reshaped to as many dimensions.
  Node shaped(const Shape& most) {
    Shape shape;
    if (coin()) {
      for (const std::int64_t m : most) shape.push_back(1 + pick(m));
      return leaf(shape);
    }
    const Node x = any();
    std::int64_t rest = x.tensor.numel();
    for (int d = 1; d < most.size(); rest /= shape[d++ - 1]) shape.push_back(divisor(rest, most[d - 1]));
    shape.push_back(rest);
    return {reshape(x.tensor, shape), {shape, x.reference.values}};
  }

  void result(const char* op, const Tensor& tensor, Duals reference) {
    said_ += std::string(" ") + op + tensor.shape().to_string();
    ASSERT_EQ(tensor.shape(), reference.shape) << said_;
    ASSERT_EQ(tensor.dtype(), dtype_) << said_;
    for (const Dual x : reference.values)
      if (!(std::abs(x.v) < 50) || !(std::abs(x.d) < 500)) return;  // too large to be compared precisely
    if (reference.shape.numel() <= 200) pool_.push_back({tensor, std::move(reference)});
  }

  /// Compares a weighted sum of all nodes, and its derivative, with the reference.
  void check() {
    Tensor total = Tensor::scalar(0, dtype_);
    double value = 0, derivative = 0, size = 1, slope = 1;
    for (const Node& node : pool_) {
      const double weight = number(-1, 1);
      total = add(total, mul(trireme::sum(node.tensor), weight));
      const Dual all = sum(node.reference.values);
      value += weight * all.v;
      derivative += weight * all.d;
      for (const Dual x : node.reference.values) size += std::abs(x.v), slope += std::abs(x.d);
    }
    const double tolerance = is_double() ? 1e-10 : 1e-3;
    ASSERT_NEAR(total.item(), value, tolerance * size) << said_;
    total.backward();
    double found = 0;
    for (const auto& [leaf, direction] : leaves_) {
      const std::vector<double> gradient = leaf.grad().to_vector<double>();
      for (std::size_t i = 0; i < gradient.size(); ++i) found += gradient[i] * direction[i];
    }
    ASSERT_NEAR(found, derivative, tolerance * (slope + size)) << said_;
  }

 private:
  struct Leaf {
    Tensor tensor;
    std::vector<double> direction;
  };
  std::mt19937_64 random_;
  const DType dtype_;
  std::vector<Node> pool_;
  std::vector<Leaf> leaves_;
  std::string said_;
};

/// Returns true if all values are between low and high and away from the kinks.
inline bool suits(const Graph& g, const Duals& x, double low, double high, const std::vector<double>& kinks) {
  return std::all_of(x.values.begin(), x.values.end(), [&](Dual e) {
    return e.v >= low && e.v <= high &&
           std::all_of(kinks.begin(), kinks.end(), [&](double k) { return std::abs(e.v - k) > g.kink(); });
  });
}

}  // namespace trireme::test
