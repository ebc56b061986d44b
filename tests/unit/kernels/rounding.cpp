// Tests that a product and a sum after it are rounded separately. If the compiler fused them, bits would
// depend on where it does.
#include <gtest/gtest.h>

#include <vector>

#include "core/ops/ops.h"
#include "kernels/table.h"

namespace trireme {
namespace {

/// Returns the rounded product. `volatile` keeps the compiler from fusing it with a later sum.
template <class T>
T product(T a, T b) {
  const volatile T rounded = a * b;
  return rounded;
}

std::vector<double> numbers(std::uint64_t seed, std::int64_t count) {
  return uniform({count}, random_key(seed, 0, 0), -1, 1, DType::kFloat64).to_vector<double>();
}

TEST(Rounding, SumOfSquaresRoundsEachSquare) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {  // one sum may have the same bits by chance
    const std::vector<double> x = numbers(seed, 24);
    double lanes[16] = {};
    for (std::size_t i = 0; i < x.size(); ++i) lanes[i % 16] += product(x[i], x[i]);
    for (std::size_t half = 8; half > 0; half /= 2)
      for (std::size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    double sum = 0;
    kernels_of(kCpu).chunk_squares(std::vector{Tensor::from(x, {24}).view()}, {&sum, 1});
    EXPECT_EQ(sum, lanes[0]) << "seed " << seed;
  }
}

TEST(Rounding, SgdRoundsEachProduct) {
  const std::vector<double> before = numbers(2, 64), gradient = numbers(3, 64);
  const Tensor p = Tensor::from(before, {64}), g = Tensor::from(gradient, {64});
  const SgdOptions options{.lr = 0.3, .weight_decay = 0.7};
  kernels_of(kCpu).sgd({{{p.view(), g.view()}}}, options);
  for (std::size_t i = 0; i < before.size(); ++i) {
    const double d = gradient[i] + product(options.weight_decay, before[i]);
    EXPECT_EQ(p.data<double>()[i], before[i] - product(options.lr, d)) << "element " << i;
  }
}

}  // namespace
}  // namespace trireme
