// Tests layers on 16-bit numbers. Results are those of float32, rounded once, and gradients have their
// inputs' dtypes.
#include <gtest/gtest.h>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"

namespace trireme {
namespace {

struct Layer {
  const char* name;
  std::vector<Shape> shapes;
  std::function<Tensor(const std::vector<Tensor>&)> call;
};

std::vector<Layer> layers() {
  using In = const std::vector<Tensor>&;
  const Shape image{2, 4, 6, 6}, line{2, 4, 9}, channels{4};
  return {
      {"dropout", {{7, 9}}, [](In in) { return dropout(in[0], 0.3, RandomKey{5}, 3); }},
      {"max_pool2d", {image}, [](In in) { return max_pool2d(in[0]); }},
      {"avg_pool2d",
       {image},
       [](In in) {
         return avg_pool2d(in[0], {3, 1, 1});
       }},
      {"adaptive_avg_pool2d", {image}, [](In in) { return adaptive_avg_pool2d(in[0], 4, 4); }},
      {"adaptive_max_pool2d", {image}, [](In in) { return adaptive_max_pool2d(in[0], 4, 4); }},
      {"global_avg_pool2d", {image}, [](In in) { return global_avg_pool2d(in[0]); }},
      {"interpolate",
       {image},
       [](In in) {
         return interpolate(in[0], {.size = {9, 4}});
       }},
      {"conv1d", {line, {3, 4, 3}, {3}}, [](In in) { return conv1d(in[0], in[1], in[2]); }},
      {"conv2d", {image, {3, 4, 3, 3}, {3}}, [](In in) { return conv2d(in[0], in[1], in[2]); }},
      {"conv2d, no bias", {image, {3, 4, 3, 3}}, [](In in) { return conv2d(in[0], in[1]); }},
      {"conv_transpose2d",
       {image, {4, 3, 3, 3}, {3}},
       [](In in) { return conv_transpose2d(in[0], in[1], in[2]); }},
      {"batch_norm",
       {image, channels, channels, image},
       [](In in) { return batch_norm(in[0], in[1], in[2], in[3], {.relu = true}); }},
      {"scaled_dot_product_attention",
       {{2, 3, 5, 4}, {2, 3, 7, 4}, {2, 3, 7, 4}},
       [](In in) { return scaled_dot_product_attention(in[0], in[1], in[2], {.dropout_p = 0.2}); }},
      {"lstm_cell", {{3, 8}, {3, 2}}, [](In in) { return lstm_cell(in[0], in[1]).h; }},
      {"gru_cell", {{3, 6}, {3, 6}, {3, 2}}, [](In in) { return gru_cell(in[0], in[1], in[2]); }},
  };
}

std::vector<float> rounded(const Tensor& t, DType dtype) {
  return to(to(t, dtype), DType::kFloat32).to_vector<float>();
}

TEST(LowPrecision, LayersComputeInFloat32AndRoundOnce) {
  for (const Layer& layer : layers())
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      SCOPED_TRACE(std::string(layer.name) + " of " + std::string(name_of(dtype)));
      std::vector<Tensor> small, wide;
      for (std::size_t i = 0; i < layer.shapes.size(); ++i) {
        small.push_back(to(uniform(layer.shapes[i], {i}, -1, 2), dtype).set_requires_grad(true));
        wide.push_back(to(small[i].detach(), DType::kFloat32).set_requires_grad(true));
      }
      const Tensor y = layer.call(small), wanted = layer.call(wide);
      EXPECT_EQ(y.dtype(), dtype);
      EXPECT_EQ(rounded(y, dtype), rounded(wanted, dtype));
      const Tensor above = to(uniform(y.shape(), {77}), dtype);
      backward(y, above);
      backward(wanted, to(above, DType::kFloat32));
      for (std::size_t i = 0; i < small.size(); ++i) {
        EXPECT_EQ(small[i].grad().dtype(), dtype);
        EXPECT_EQ(rounded(small[i].grad(), dtype), rounded(wide[i].grad(), dtype)) << "gradient " << i;
      }
    }
}

TEST(LowPrecision, BatchNormKeepsParametersAndStatisticsInFloat32) {
  const Tensor x = to(uniform({3, 2, 4, 4}, {1}, -1, 2), DType::kBFloat16), wide = to(x, DType::kFloat32);
  const Tensor gamma = uniform({2}, {2}), beta = uniform({2}, {3});
  BatchStatistics measured, wanted;
  const Tensor y = batch_norm(x, gamma, beta, {}, {.measured = &measured});
  batch_norm(wide, gamma, beta, {}, {.measured = &wanted});
  EXPECT_EQ(y.dtype(), DType::kBFloat16);
  EXPECT_EQ(measured.mean.to_vector<float>(), wanted.mean.to_vector<float>());
  EXPECT_EQ(measured.variance.dtype(), DType::kFloat32);
  EXPECT_EQ(rounded(batch_norm(x, gamma, beta, {}, {.fixed = &measured}), DType::kBFloat16),
            rounded(batch_norm(wide, gamma, beta, {}, {.fixed = &wanted}), DType::kBFloat16));
}

}  // namespace
}  // namespace trireme
