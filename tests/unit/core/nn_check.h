// Comparisons for tests of modules.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "core/autograd/autograd.h"
#include "core/nn/module.h"
#include "core/ops/ops.h"

namespace trireme::test {

using Names = std::vector<std::string>;

inline Names names_of(const std::vector<NamedTensor>& tensors) {
  Names names;
  for (const NamedTensor& t : tensors) names.push_back(t.name);
  return names;
}

/// Returns a float64 leaf of normal numbers that requires a gradient.
inline Tensor numbers(const Shape& shape, std::uint64_t key) {
  return normal(shape, RandomKey{key}, 0, 1, DType::kFloat64).set_requires_grad(true);
}

/// Expects that the elements of t, in row-major order, are near `expected`.
inline void expect_near(const Tensor& t, const std::vector<double>& expected, double tolerance) {
  const std::vector<double> values = t.to_vector<double>();
  ASSERT_EQ(values.size(), expected.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_NEAR(values[i], expected[i], tolerance) << "element " << i;
}

/// Compares gradients of loss() from backward with central differences, for some elements of each float64
/// leaf.
inline void check_gradients(const std::function<Tensor()>& loss, const std::vector<NamedTensor>& leaves) {
  for (const NamedTensor& leaf : leaves) leaf.tensor.set_grad({});
  loss().backward();
  for (const NamedTensor& leaf : leaves) {
    ASSERT_TRUE(leaf.tensor.grad().defined()) << leaf.name;
    const std::vector<double> gradient = leaf.tensor.grad().to_vector<double>();
    double* data = leaf.tensor.data<double>();
    for (std::int64_t i = 0; i < leaf.tensor.numel(); i += 1 + leaf.tensor.numel() / 9) {
      const double at = data[i];
      data[i] = at + 1e-5;
      const double up = loss().item();
      data[i] = at - 1e-5;
      const double slope = (up - loss().item()) / 2e-5;
      data[i] = at;
      EXPECT_NEAR(gradient[static_cast<std::size_t>(i)], slope, 1e-6 * (1 + std::fabs(slope)))
          << leaf.name << " " << i;
    }
  }
}

}  // namespace trireme::test
