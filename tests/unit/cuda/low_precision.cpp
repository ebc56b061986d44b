// Compares products of 16-bit numbers on the device with the CPU's, which are computed in float32 and
// rounded.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "kernels/cuda/runtime.h"

namespace trireme {
namespace {

constexpr Device kCuda{DeviceType::kCuda, 0};
using In = const std::vector<Tensor>&;

struct Op {
  const char* name;
  std::vector<Shape> shapes;
  std::function<Tensor(In)> call;
  double roundings = 1;  ///< tolerance in roundings of the largest element; 0: the same bits
};

std::vector<Op> attention_ops() {
  const auto attend = [](AttentionOptions o) {
    return [o](In in) { return scaled_dot_product_attention(in[0], in[1], in[2], o); };
  };
  const std::vector<Shape> heads{{2, 3, 5, 4}, {2, 3, 5, 4}, {2, 3, 5, 4}};
  return {
      // The attention weights and their gradients are also rounded between products.
      {"attention", heads, attend({}), 4},
      {"causal attention", heads, attend({.is_causal = true}), 4},
      // The library may compute these in one kernel. Rows of different heads alternate in memory, as in
      // layers.
      {"attention of wide heads", {{2, 3, 5, 8}, {2, 3, 7, 8}, {2, 3, 7, 16}}, attend({.scale = 0.3}), 4},
      {"attention that begins between 16 bytes",
       {{2, 3, 5, 24}, {2, 3, 5, 24}, {2, 3, 5, 24}},
       [](In in) {
         const auto part = [&](std::size_t i) { return narrow(in[i], 3, 4, 8); };
         return scaled_dot_product_attention(part(0), part(1), part(2));
       },
       4},
      {"causal attention between heads",
       {{2, 5, 3, 16}, {2, 5, 3, 16}, {2, 5, 3, 16}},
       [](In in) {
         const auto turned = [&](std::size_t i) { return transpose(in[i], 1, 2); };
         return scaled_dot_product_attention(turned(0), turned(1), turned(2), {.is_causal = true});
       },
       4},
      {"attention with dropout", heads, attend({.dropout_p = 0.25, .key = {3}}), 4},
      {"masked attention",
       {heads[0], heads[1], heads[2], {5, 5}},
       [](In in) { return scaled_dot_product_attention(in[0], in[1], in[2], {.attn_mask = in[3].detach()}); },
       4},
      {"attention whose mask learns",
       {heads[0], heads[1], heads[2], {5, 5}},
       [](In in) { return scaled_dot_product_attention(in[0], in[1], in[2], {.attn_mask = in[3]}); },
       4},
  };
}

std::vector<Op> ops() {
  const Shape image{2, 4, 6, 6};
  return {
      {"matmul", {{5, 7}, {7, 3}}, [](In in) { return matmul(in[0], in[1]); }},
      {"matmul of columns",
       {{7, 5}, {3, 7}},
       [](In in) { return matmul(transpose(in[0], 0, 1), transpose(in[1], 0, 1)); }},
      {"bmm", {{2, 5, 7}, {2, 7, 3}}, [](In in) { return bmm(in[0], in[1]); }},
      {"linear", {{2, 5, 16}, {24, 16}, {24}}, [](In in) { return linear(in[0], in[1], in[2]); }},
      {"linear, odd sizes", {{5, 7}, {5, 7}, {5}}, [](In in) { return linear(in[0], in[1], in[2]); }},
      {"linear, a bias in steps",
       {{5, 7}, {5, 7}, {5, 2}},
       [](In in) { return linear(in[0], in[1], select(in[2], 1, 1)); }},
      // The emulated library has no kernel for a bias of this size.
      {"linear of 3", {{5, 7}, {3, 7}, {3}}, [](In in) { return linear(in[0], in[1], in[2]); }, 2},
      {"linear, no bias", {{5, 8}, {3, 8}}, [](In in) { return linear(in[0], in[1]); }},
      {"linear of nothing", {{5, 0}, {3, 0}, {3}}, [](In in) { return linear(in[0], in[1], in[2]); }},
      {"conv2d",
       {image, {3, 4, 3, 3}, {3}},
       [](In in) { return conv2d(in[0], in[1], in[2], {.padding = 1}); },
       2},
      {"conv1d", {{2, 4, 9}, {3, 4, 3}, {3}}, [](In in) { return conv1d(in[0], in[1], in[2]); }, 2},
      {"conv_transpose2d",
       {image, {4, 3, 3, 3}, {3}},
       [](In in) { return conv_transpose2d(in[0], in[1], in[2]); },
       2},
      {"batch_norm",
       {image, {4}, {4}, image},
       [](In in) { return batch_norm(in[0], in[1], in[2], in[3], {.relu = true}); }},
      {"max_pool2d",
       {image},
       [](In in) { return max_pool2d(in[0], {.kernel = 3, .stride = 2, .padding = 1}); },
       0},
      {"adaptive_max_pool2d", {image}, [](In in) { return adaptive_max_pool2d(in[0], 4, 5); }, 0},
      {"avg_pool2d",
       {image},
       [](In in) { return avg_pool2d(in[0], {.kernel = 3, .stride = 1, .padding = 1}); },
       0},
      {"dropout", {{3, 37}}, [](In in) { return dropout(in[0], 0.3, {5}, 2); }, 0},
      {"batch_norm without a residual",
       {image, {4}, {4}},
       [](In in) { return batch_norm(in[0], in[1], in[2], {}, {}); }},
      {"batch_norm of fixed statistics",
       {image, {4}, {4}},
       [](In in) {
         const Tensor one = to_device(Tensor::ones({4}), in[0].device());
         const BatchStatistics fixed{one, one};
         return batch_norm(in[0], in[1], in[2], {}, {.fixed = &fixed});
       }},
  };
}

double unit(DType dtype) { return dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-11; }

/// Expects that elements differ by at most `roundings` roundings of the largest element.
void expect_near(const Tensor& got, const Tensor& wanted, double roundings, const std::string& what) {
  ASSERT_EQ(got.dtype(), wanted.dtype()) << what;
  ASSERT_EQ(got.shape(), wanted.shape()) << what;
  const auto a = got.to_vector<double>(), b = wanted.to_vector<double>();
  double largest = 0;
  for (const double v : b) largest = std::max(largest, std::fabs(v));
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_LE(std::fabs(a[i] - b[i]), roundings * unit(wanted.dtype()) * largest)
        << what << ", element " << i;
}

class CudaLowPrecision : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU in this machine";
  }
};

TEST_F(CudaLowPrecision, ProductsAreRoundedAsOnTheCpu) {
  std::vector<Op> all = ops();
  for (Op& op : attention_ops()) all.push_back(std::move(op));
  for (const Op& op : all)
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      SCOPED_TRACE(std::string(op.name) + " of " + std::string(name_of(dtype)));
      std::vector<Tensor> here, there;
      for (std::size_t i = 0; i < op.shapes.size(); ++i) {
        here.push_back(to(uniform(op.shapes[i], {i + 1}, -1, 1), dtype));
        there.push_back(to_device(here[i], kCuda).set_requires_grad(true));
        here[i].set_requires_grad(true);
      }
      const Tensor wanted = op.call(here), got = op.call(there);
      EXPECT_EQ(got.device(), kCuda);
      expect_near(got, wanted, op.roundings, "value");
      const Tensor above = to(uniform(wanted.shape(), {77}, -1, 1), dtype);
      backward(wanted, above);
      backward(got, to_device(above, kCuda));
      for (std::size_t i = 0; i < here.size(); ++i)
        if (here[i].grad().defined())
          expect_near(there[i].grad(), here[i].grad(), 2 * op.roundings, "gradient " + std::to_string(i));
    }
}

TEST_F(CudaLowPrecision, GradientsOfGradientsOfAttention) {
  const auto second = [](Device device) {
    std::vector<Tensor> in;
    for (std::uint64_t i = 0; i < 3; ++i)
      in.push_back(
          to_device(to(uniform({2, 4, 3}, {i}, -1, 1), DType::kBFloat16), device).set_requires_grad(true));
    const auto first = grad({sum(square(scaled_dot_product_attention(in[0], in[1], in[2])))}, {in[0]}, {},
                            {.create_graph = true});
    sum(square(first[0])).backward();
    return in[1].grad();
  };
  expect_near(second(kCuda), second(kCpu), 8, "second gradient");
}

TEST_F(CudaLowPrecision, BatchNormHasFloat32BesideItsImages) {
  const auto run = [](Device device) {
    const auto there = [&](const Tensor& t) { return to_device(t, device).set_requires_grad(true); };
    const Tensor x = there(to(uniform({3, 2, 4, 4}, {1}, -1, 2), DType::kBFloat16)),
                 gamma = there(uniform({2}, {2})), beta = there(uniform({2}, {3}));
    BatchStatistics measured;
    const Tensor y = batch_norm(x, gamma, beta, {}, {.measured = &measured});
    EXPECT_EQ(y.dtype(), DType::kBFloat16);
    sum(square(y)).backward();
    EXPECT_EQ(gamma.grad().dtype(), DType::kFloat32);
    return std::vector<Tensor>{measured.mean, measured.variance, y, x.grad(), gamma.grad(), beta.grad()};
  };
  const auto here = run(kCpu), there = run(kCuda);
  for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(there[i].to_vector<float>(), here[i].to_vector<float>()) << i;
  for (std::size_t i = 2; i < here.size(); ++i)
    expect_near(to(there[i], DType::kBFloat16), to(here[i], DType::kBFloat16), 2, std::to_string(i));
}

TEST_F(CudaLowPrecision, AutocastTakesThemEverywhere) {
  const auto run = [](Device device) {
    nn::manual_seed(1);
    nn::Sequential model{nn::Conv2d(2, 4, 3, {.padding = 1}, false), nn::BatchNorm2d(4), nn::ReLU(),
                         nn::Flatten(), nn::Linear(64, 5)};
    nn::move_to(model, device);
    Tensor loss;
    {
      const amp::Autocast guard;
      const Tensor convolved =
          conv2d(to_device(uniform({3, 2, 4, 4}, {1}), device), model.parameters()[0].tensor);
      EXPECT_EQ(convolved.dtype(), device.is_cpu() ? DType::kFloat32 : DType::kBFloat16);
      const Tensor labels = to_device(Tensor::from(std::vector<std::int64_t>{0, 2, 4}, {3}), device);
      loss = cross_entropy(model(to_device(uniform({3, 2, 4, 4}, {1}, -1, 1), device)), labels);
    }
    loss.backward();
    std::vector<Tensor> all{loss};
    for (const NamedTensor& p : model.parameters()) {
      EXPECT_EQ(p.tensor.grad().dtype(), DType::kFloat32) << p.name;
      all.push_back(to(p.tensor.grad(), DType::kBFloat16));
    }
    return all;
  };
  const auto here = run(kCpu), there = run(kCuda);
  expect_near(to(there[0], DType::kBFloat16), to(here[0], DType::kBFloat16), 4, "loss");
  for (std::size_t i = 1; i < here.size(); ++i) expect_near(there[i], here[i], 24, std::to_string(i));
}

}  // namespace
}  // namespace trireme
