// Normalization layers.
#pragma once

#include <cstdint>
#include <optional>

#include "core/nn/module.h"
#include "core/ops/ops.h"

namespace trireme::nn {

struct BatchNorm2dOptions {
  double eps = 1e-5;
  double momentum = 0.1;  ///< weight of the newest statistics in the running ones
  bool relu = false;      ///< if true, applies ReLU to the result, in the same pass
};

/// Batch normalization of x (N,C,H,W), optionally with a residual added and ReLU in the same pass. In
/// training each call uses the statistics of its own batch (one shard), or with --sync-batchnorm those of all
/// shards of the step. Running statistics are updated with the mean over all shards of the step.
class BatchNorm2d : public Module {
 public:
  explicit BatchNorm2d(std::int64_t channels, BatchNorm2dOptions options = {});
  using Module::operator();
  Tensor operator()(const Tensor& x, const Tensor& residual);
  Tensor forward(const Tensor& x) override { return forward(x, {}); }
  Tensor forward(const Tensor& x, const Tensor& residual);
  void visit(Visitor& v) override;
  Tensor weight, bias;               ///< (C)
  Tensor running_mean, running_var;  ///< (C); unbiased variance
  BatchNorm2dOptions options;

 private:
  Tensor synchronized(const Tensor& x, const Tensor& residual);
};

struct LayerNormOptions {
  double eps = 1e-5;
  bool affine = true;  ///< if true, the layer has a weight
  bool bias = true;    ///< if true, a layer with a weight has a bias, too
};

/// Over the last dimensions of x, which have this shape.
class LayerNorm : public Module {
 public:
  explicit LayerNorm(const Shape& shape, LayerNormOptions options = {});
  explicit LayerNorm(std::int64_t width, LayerNormOptions o = {}) : LayerNorm(Shape{width}, o) {}
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  Shape shape;
  Tensor weight, bias;  ///< undefined, or tensors of `shape`
  LayerNormOptions options;
};

struct RMSNormOptions {
  std::optional<double> eps = {};  ///< default: the machine epsilon of float64 or float32
  bool affine = true;
};

/// Over the last dimensions of x, which have this shape.
class RMSNorm : public Module {
 public:
  explicit RMSNorm(const Shape& shape, RMSNormOptions options = {});
  explicit RMSNorm(std::int64_t width, RMSNormOptions o = {}) : RMSNorm(Shape{width}, o) {}
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  Shape shape;
  Tensor weight;  ///< undefined, or a tensor of `shape`
  RMSNormOptions options;
};

struct GroupNormOptions {
  double eps = 1e-5;
  bool affine = true;
};

/// Group normalization: normalizes over each group of channels of x (N,C,...).
class GroupNorm : public Module {
 public:
  GroupNorm(std::int64_t groups, std::int64_t channels, GroupNormOptions options = {});
  Tensor forward(const Tensor& x) override { return group_norm(x, groups, weight, bias, options.eps); }
  void visit(Visitor& v) override;
  std::int64_t groups;
  Tensor weight, bias;  ///< (C), or undefined
  GroupNormOptions options;
};

}  // namespace trireme::nn
