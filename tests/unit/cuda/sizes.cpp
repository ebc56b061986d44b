// Compares CUDA kernels with the CPU for tensors that are large enough for second chunks of sums, tails of
// packs, several pieces of an optimizer's slice, and sorting networks.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "core/optim/optimizer.h"
#include "kernels/cuda/runtime.h"
#include "kernels/low_precision.h"

namespace trireme {
namespace {

constexpr Device kCuda{DeviceType::kCuda, 0};

class CudaSizes : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU in this machine";
  }
};

Tensor numbers(const Shape& shape, std::uint64_t stream, DType dtype = DType::kFloat32) {
  return uniform(shape, {stream}, -1, 1, dtype);
}

void expect_near(const Tensor& got, const Tensor& wanted, double tolerance, const char* what) {
  ASSERT_EQ(got.shape(), wanted.shape()) << what;
  ASSERT_EQ(got.dtype(), wanted.dtype()) << what;
  const auto a = got.to_vector<double>(), b = wanted.to_vector<double>();
  double largest = 0;
  for (const double v : b) largest = std::max(largest, std::fabs(v));
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_LE(std::fabs(a[i] - b[i]), tolerance * largest) << what << ", element " << i;
}

/// Compares fn(inputs) and the gradients of all inputs on both devices.
void compare(const char* what, const std::vector<Tensor>& inputs,
             const std::function<Tensor(const std::vector<Tensor>&)>& fn, double tolerance = 2e-6) {
  SCOPED_TRACE(what);
  std::vector<Tensor> here, there;
  for (const Tensor& t : inputs) {
    here.push_back(t.clone());
    there.push_back(to_device(t, kCuda));
    if (!is_floating(t.dtype())) continue;
    here.back().set_requires_grad(true);
    there.back().set_requires_grad(true);
  }
  const Tensor wanted = fn(here), got = fn(there);
  EXPECT_EQ(got.device(), kCuda);
  expect_near(got, wanted, tolerance, "value");
  if (!wanted.requires_grad()) return;
  sum(square(wanted)).backward();
  sum(square(got)).backward();
  for (std::size_t i = 0; i < here.size(); ++i)
    if (here[i].grad().defined()) expect_near(there[i].grad(), here[i].grad(), tolerance, "gradient");
}

using Tensors = std::vector<Tensor>;

TEST_F(CudaSizes, Reductions) {
  const auto over = [](std::vector<int> dims) {
    return [dims](const Tensors& t) { return sum(t[0], dims); };
  };
  compare("long rows", {numbers({3, 10007}, 1)}, over({1}));
  compare("long columns", {numbers({1030, 70}, 2)}, over({0}));
  compare("all", {numbers({7, 41, 43}, 3)}, over({}));
  compare("outer and inner", {numbers({6, 300, 70}, 4)}, over({0, 2}));
  compare("transposed", {numbers({9000, 5}, 5)},
          [](const Tensors& t) { return sum(transpose(t[0], 0, 1), {1}); });
  compare("largest", {numbers({4, 9001}, 6)}, [](const Tensors& t) { return amax(t[0], {1}); });
  compare(
      "place", {numbers({4, 9001}, 7)}, [](const Tensors& t) { return argmax(t[0], 1); }, 0);
}

TEST_F(CudaSizes, Elementwise) {
  // 1021 is not a multiple of a pack, and a slice of it begins between two packs.
  compare(
      "pack", {numbers({1021}, 1), numbers({1021}, 2)}, [](const Tensors& t) { return mul(t[0], t[1]); }, 0);
  compare(
      "offset", {numbers({1021}, 3)}, [](const Tensors& t) { return exp(narrow(t[0], 0, 3, 1001)); }, 1e-6);
  compare(
      "strides", {numbers({33, 65}, 4), numbers({65, 1}, 5)},
      [](const Tensors& t) { return add(transpose(t[0], 0, 1), t[1]); }, 0);
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16})
    compare(
        "16 bits", {numbers({259}, 6, DType::kFloat32)},
        [dtype](const Tensors& t) { return to(mul(to(t[0], dtype), to(t[0], dtype)), DType::kFloat32); },
        1e-3);
}

TEST_F(CudaSizes, Rows) {
  compare("layer norm", {numbers({700, 131}, 1), numbers({131}, 2), numbers({131}, 3)},
          [](const Tensors& t) { return layer_norm(t[0], t[1], t[2]); });
  compare("softmax", {numbers({33, 517}, 4)}, [](const Tensors& t) { return log_softmax(t[0], -1); });
  const Tensor labels = to(mul(uniform({300}, {5}, 0, 1), 517), DType::kInt64);
  compare("cross entropy", {numbers({300, 517}, 6), labels},
          [](const Tensors& t) { return cross_entropy(t[0], t[1], {.label_smoothing = 0.1}); });
  compare(
      "batch norm", {numbers({5, 12, 17, 19}, 7), numbers({12}, 8), numbers({12}, 9)},
      [](const Tensors& t) { return batch_norm(t[0], t[1], t[2], {}, {.relu = true}); }, 1e-5);
}

TEST_F(CudaSizes, Columns) {
  // There are fewer columns than in a pack, as many, no multiple of it, and more than a warp has lanes. There
  // are few rows, and several runs of rows.
  for (const std::int64_t channels : {1, 3, 8, 12, 100, 136, 1032})
    for (const std::int64_t side : {1, 5, 24}) {
      if (channels * side > 6000) continue;
      SCOPED_TRACE(fmt::format("{} channels, {} a side", channels, side));
      const Tensor x = numbers({3, channels, side, side}, 1), by = numbers({channels}, 2);
      compare(
          "batch norm", {x, by, numbers({channels}, 3), numbers({3, channels, side, side}, 4)},
          [](const Tensors& t) { return batch_norm(t[0], t[1], t[2], t[3], {.relu = true}); }, 2e-5);
      compare(
          "layer norm", {numbers({side * side, channels}, 5), by, numbers({channels}, 6)},
          [](const Tensors& t) { return layer_norm(t[0], t[1], t[2]); }, 2e-5);
      compare("sum", {numbers({side * side, channels}, 7)}, [](const Tensors& t) { return sum(t[0], {0}); });
    }
  compare("no rows", {numbers({0, 40}, 1)}, [](const Tensors& t) { return sum(t[0], {0}); });
}

TEST_F(CudaSizes, ColumnsLieWhereTheyLike) {
  // A tensor that begins between two packs must give the same bits.
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16}) {
    const std::int64_t rows = 900, width = 24;
    const Tensor all = to_device(numbers({rows * width + 1}, 1, DType::kFloat64), kCuda);
    const auto sums = [&](std::int64_t first) {
      // Copies the numbers to memory that begins one element later.
      const Tensor memory = Tensor::empty({rows * width + 1}, dtype, kCuda);
      const Tensor part = narrow(memory, 0, first, rows * width);
      kernels_of(kCuda).copy(part.view(), narrow(all, 0, 0, rows * width).view());
      return sum(reshape(part, {rows, width}), {0}).to_vector<double>();
    };
    EXPECT_EQ(sums(0), sums(1)) << name_of(dtype);
  }
}

TEST_F(CudaSizes, Orders) {
  for (const bool descending : {false, true})
    compare(
        "sort", {numbers({5, 1000}, 1)}, [=](const Tensors& t) { return argsort(t[0], 1, descending); }, 0);
  // Among many equal elements, the sort must keep the order.
  compare(
      "ties", {floor(mul(numbers({3, 300}, 2), 4))}, [](const Tensors& t) { return argsort(t[0], 1); }, 0);
  compare(
      "first of the largest", {floor(mul(numbers({9, 400}, 2), 3))},
      [](const Tensors& t) { return argmax(t[0], 1); }, 0);
  compare(
      "nonzero", {numbers({5003}, 3)}, [](const Tensors& t) { return nonzero(gt(t[0], 0.3)); }, 0);
  const Tensor index = to(mul(uniform({5000}, {4}, 0, 1), 37), DType::kInt64);
  compare("embedding", {numbers({37, 65}, 5), index}, [](const Tensors& t) { return embedding(t[0], t[1]); });
}

TEST_F(CudaSizes, ScatteredToFewPlacesOrMany) {
  const auto picks = [](std::int64_t count, double below, std::uint64_t stream) {
    return to(mul(uniform({count}, {stream}, 0, 1), below), DType::kInt64);
  };
  for (const std::int64_t count : {64, 65, 501})
    for (const double below : {3.0, 900.0}) {
      SCOPED_TRACE(fmt::format("{} of {}", count, below));
      const Tensor index = picks(count, below, 1), table = numbers({900, 5}, 2),
                   rows = numbers({count, 5}, 3);
      compare(
          "embedding", {table, index}, [](const Tensors& t) { return embedding(t[0], t[1]); }, 0);
      compare(
          "added", {table, index, rows}, [](const Tensors& t) { return index_add(t[0], 0, t[1], t[2]); }, 0);
      compare(
          "added to columns", {transpose(table, 0, 1), index, transpose(rows, 0, 1)},
          [](const Tensors& t) { return index_add(t[0], 1, t[1], t[2]); }, 0);
      compare(
          "the last one stays", {table, index, rows},
          [](const Tensors& t) { return index_put(t[0].detach(), {t[1]}, t[2].detach()); }, 0);
      compare(
          "rounded after each", {table, index, rows},
          [](const Tensors& t) {
            const auto narrow = [](const Tensor& x) { return to(x, DType::kBFloat16); };
            return to(index_add(narrow(t[0]), 0, t[1], narrow(t[2])), DType::kFloat32);
          },
          0);
      const Tensor own = reshape(picks(3 * count, 900, 4), {count, 3});
      compare(
          "an index for each", {table, own, rows},
          [](const Tensors& t) { return scatter_add(t[0], 0, t[1], narrow(t[2], 1, 0, 3)); }, 0);
    }
  const std::int64_t many = 17 * 1024;  // number of elements that are sorted
  compare(
      "sorted", {numbers({50}, 5), picks(many, 50, 6), numbers({many}, 7)},
      [](const Tensors& t) { return index_add(t[0], 0, t[1], t[2]); }, 0);
}

TEST_F(CudaSizes, MatrixProducts) {
  const auto product = [](const Tensors& t) { return matmul(t[0], t[1]); };
  compare("more matrices than a grid has room for", {numbers({40000, 2, 3}, 1), numbers({40000, 3, 2}, 2)},
          product);
  compare("matrices whose rows are no multiple of 16 bytes", {numbers({5, 7, 3}, 3), numbers({5, 3, 9}, 4)},
          product);
  // Other kernels are chosen if memory does not begin at a multiple of 16 bytes.
  const auto shifted = [](const Tensor& t, const Shape& shape) {
    return reshape(narrow(t, 0, 1, shape.numel()), shape);
  };
  compare("memory between multiples of 16 bytes", {numbers({1 + 33 * 65}, 5), numbers({1 + 65 * 17}, 6)},
          [&](const Tensors& t) {
            return matmul(shifted(t[0], {33, 65}), shifted(t[1], {65, 17}));
          });
}

TEST_F(CudaSizes, SumsOfShardsHaveTheBitsOfTheCpu) {
  // One launch takes 256 parts, and its unfinished sums go to the next launch.
  for (const int shards : {1, 3, 256, 257, 600})
    for (const std::int64_t width : {1, 5001}) {
      std::vector<TreeNode> nodes;
      for (int s = 0; s < shards; ++s) nodes.push_back({0, s});
      for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
        const Tensor all = to(numbers({shards, width}, 1), dtype);
        const auto run = [&](Device device) {
          const Tensor in = to_device(all, device), out = Tensor::zeros({width}, dtype, device);
          std::vector<const void*> parts;
          for (int s = 0; s < shards; ++s) parts.push_back(select(in, 0, s).raw());
          kernels_of(device).tree_sum(out.view(), nodes, parts, shards, 0.37f);
          return out.to_vector<float>();
        };
        EXPECT_EQ(run(kCuda), run(kCpu)) << shards << " shards of " << width << ' ' << name_of(dtype);
      }
    }
}

TEST_F(CudaSizes, WhatIsNotFiniteIsFound) {
  for (const std::int64_t at : {0, 77, 4095, 4096, 99'999, 100'000}) {
    std::vector<float> values(100'000, 1.0f);
    if (at < 100'000) values[static_cast<std::size_t>(at)] = at % 2 ? NAN : -INFINITY;
    if (at == 77) values[4096] = NAN;
    const Tensor in = to_device(Tensor::from(values, {100'000}), kCuda),
                 out = Tensor::zeros({2}, DType::kFloat64, kCuda),
                 halted = Tensor::zeros({1}, DType::kInt64, kCuda);
    kernels_of(kCuda).first_not_finite(out.view(), in.view(), halted.view().as<std::int64_t>());
    const auto found = out.to_vector<double>();
    EXPECT_EQ(found[0], static_cast<double>(at));
    EXPECT_EQ(std::isnan(found[1]), at < 100'000 && at % 2);
    EXPECT_EQ(std::isinf(found[1]), at < 100'000 && at % 2 == 0);
    EXPECT_EQ(halted.to_vector<std::int64_t>()[0], at < 100'000 ? 1 : 0);
  }
}

TEST_F(CudaSizes, RandomNumbersAreThoseOfTheCpu) {
  const Tensor x = numbers({7, 1001}, 1), there = to_device(x, kCuda);
  const auto kept = dropout(there, 0.3, {9}, 5).to_vector<float>();
  EXPECT_EQ(kept, dropout(x, 0.3, {9}, 5).to_vector<float>());
}

TEST_F(CudaSizes, Optimizers) {
  const auto run = [](Device device, bool adamw) {
    ParameterList list;
    for (const std::int64_t size : {3, 1024, 5000})
      list.items.push_back(
          {std::to_string(size),
           to_device(numbers({size}, 1 + static_cast<std::uint64_t>(size)), device).set_requires_grad(true)});
    std::unique_ptr<optim::Optimizer> optimizer;
    if (adamw)
      optimizer = std::make_unique<optim::AdamW>(list, AdamWOptions{.lr = 0.1});
    else
      optimizer =
          std::make_unique<optim::SGD>(list, SgdOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 1e-2});
    for (int step = 0; step < 5; ++step) {
      optimizer->zero_grad();
      for (const NamedTensor& p : list.items) sum(square(sub(p.tensor, 0.3))).backward();
      optim::clip_grad_norm(list, 5);
      optimizer->step();
    }
    std::vector<Tensor> all;
    for (const NamedTensor& p : list.items) all.push_back(p.tensor.detach());
    return cat(all, 0);
  };
  for (const bool adamw : {false, true}) expect_near(run(kCuda, adamw), run(kCpu, adamw), 1e-5, "parameters");
}

TEST(Float16, ConversionsInPortableCodeAreTheCompilersOwn) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    Float16 half;
    half.bits = static_cast<std::uint16_t>(bits);
    const float mine = float16::to_float(half.bits), native = half;
    ASSERT_TRUE(mine == native || (mine != mine && native != native)) << bits;
  }
  for (std::uint32_t i = 0; i < 2000000; ++i) {
    const float value = std::bit_cast<float>(i * 2147u + 1);
    const std::uint16_t mine = float16::from_float(value), native = Float16(value).bits;
    if (value != value)
      ASSERT_EQ(mine & 0x7c00, 0x7c00);
    else
      ASSERT_EQ(mine, native) << value;
  }
  EXPECT_EQ(float16::from_float(65519.0f), Float16(65519.0f).bits);
  EXPECT_EQ(float16::from_float(65520.0f), 0x7c00);
  EXPECT_EQ(float16::from_float(0x1.8p-25f), Float16(0x1.8p-25f).bits);
}

}  // namespace
}  // namespace trireme
