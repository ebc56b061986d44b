// The layers that models are built from. Arguments, defaults and initial values are PyTorch's.
#pragma once

#include "core/nn/module.h"
#include "core/ops/ops.h"

namespace trireme::nn {

/// y = x @ weight^T + bias. x (..., in) -> (..., out).
class Linear : public Module {
 public:
  Linear(std::int64_t in, std::int64_t out, bool with_bias = true);
  Tensor forward(const Tensor& x) override { return linear(x, weight, bias); }
  void visit(Visitor& v) override;
  Tensor weight;  ///< (out, in)
  Tensor bias;    ///< (out), undefined without bias
};

/// x (N,C,H,W) -> (N,O,H',W').
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

struct BatchNorm2dOptions {
  double eps = 1e-5;
  double momentum = 0.1;  ///< of the newest statistics in the running ones
  bool relu = false;      ///< of the result, in the same pass
};

/// Batch normalization of x (N,C,H,W), optionally + residual and ReLU in the same pass. In training each call
/// uses the statistics of its own batch (one shard); running statistics take the mean over all shards of the
/// step.
class BatchNorm2d : public Module {
 public:
  explicit BatchNorm2d(std::int64_t channels, BatchNorm2dOptions options = {});
  using Module::operator();
  Tensor forward(const Tensor& x) override { return forward(x, {}); }
  Tensor forward(const Tensor& x, const Tensor& residual);
  void visit(Visitor& v) override;
  Tensor weight, bias;               ///< (C)
  Tensor running_mean, running_var;  ///< (C); unbiased variance
  BatchNorm2dOptions options;
};

/// Zeroes elements with probability p in training. Its numbers depend on seed, step, its path, how often it
/// was called in this shard, and the sample. Without a path, on the order in which such layers were made.
class Dropout : public Module {
 public:
  explicit Dropout(double probability = 0.5) : p(probability), layer_(mix64(next_random_layer())) {}
  Tensor forward(const Tensor& x) override;
  void set_path(const std::string& path) override;
  double p;

 private:
  std::uint64_t layer_;
  CallCounter calls_;
};

class ReLU : public Module {
 public:
  Tensor forward(const Tensor& x) override { return trireme::relu(x); }
};

/// (N, ...) -> (N, rest).
class Flatten : public Module {
 public:
  Tensor forward(const Tensor& x) override { return flatten(x, 1); }
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

/// (N,C,H,W) -> (N,C).
class GlobalAvgPool2d : public Module {
 public:
  Tensor forward(const Tensor& x) override { return global_avg_pool2d(x); }
};

/// Two 3x3 convolutions around a shortcut: K. He et al., "Deep residual learning for image recognition",
/// 2016.
class BasicBlock : public Module {
 public:
  BasicBlock(std::int64_t in, std::int64_t out, std::int64_t stride = 1);
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  Conv2d conv1, conv2;
  BatchNorm2d bn1, bn2;
  Sequential downsample;  ///< 1x1 convolution and norm where the shape changes, else empty
};

}  // namespace trireme::nn
