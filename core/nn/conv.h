// Convolution and pooling layers.
#pragma once

#include <cstdint>

#include "core/nn/module.h"
#include "core/ops/ops.h"

namespace trireme::nn {

/// 1-D convolution: x (N,C,L) -> (N,O,L').
class Conv1d : public Module {
 public:
  Conv1d(std::int64_t in, std::int64_t out, std::int64_t kernel, Conv2dOptions options = {},
         bool with_bias = true);
  Tensor forward(const Tensor& x) override { return conv1d(x, weight, bias, options); }
  void visit(Visitor& v) override;
  Tensor weight;  ///< (O, C/groups, k)
  Tensor bias;    ///< (O), undefined without bias
  Conv2dOptions options;
};

/// 2-D convolution: x (N,C,H,W) -> (N,O,H',W').
class Conv2d : public Module {
 public:
  Conv2d(std::int64_t in, std::int64_t out, std::int64_t kernel, Conv2dOptions options = {},
         bool with_bias = true);
  Tensor forward(const Tensor& x) override { return conv2d(x, weight, bias, options); }
  void visit(Visitor& v) override;
  Tensor weight;  ///< (O, C/groups, k, k)
  Tensor bias;    ///< (O), undefined without bias
  Conv2dOptions options;
};

/// 2-D transposed convolution: x (N,C,H,W) -> (N,O,H',W'). The result is larger than x if stride > 1.
class ConvTranspose2d : public Module {
 public:
  ConvTranspose2d(std::int64_t in, std::int64_t out, std::int64_t kernel, ConvTransposeOptions options = {},
                  bool with_bias = true);
  Tensor forward(const Tensor& x) override { return conv_transpose2d(x, weight, bias, options); }
  void visit(Visitor& v) override;
  Tensor weight;  ///< (C, O/groups, k, k)
  Tensor bias;    ///< (O), undefined without bias
  ConvTransposeOptions options;
};

class MaxPool2d : public Module {
 public:
  explicit MaxPool2d(PoolOptions o) : options(o) {}
  Tensor forward(const Tensor& x) override { return max_pool2d(x, options); }
  PoolOptions options;
};

class AvgPool2d : public Module {
 public:
  explicit AvgPool2d(PoolOptions o) : options(o) {}
  Tensor forward(const Tensor& x) override { return avg_pool2d(x, options); }
  PoolOptions options;
};

/// Average pooling to a given size: (N,C,H,W) -> (N,C,height,width).
class AdaptiveAvgPool2d : public Module {
 public:
  AdaptiveAvgPool2d(std::int64_t h, std::int64_t w) : height(h), width(w) {}
  Tensor forward(const Tensor& x) override { return adaptive_avg_pool2d(x, height, width); }
  std::int64_t height, width;
};

/// Average of each channel: (N,C,H,W) -> (N,C).
class GlobalAvgPool2d : public Module {
 public:
  Tensor forward(const Tensor& x) override { return global_avg_pool2d(x); }
};

}  // namespace trireme::nn
