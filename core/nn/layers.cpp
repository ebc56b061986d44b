#include "core/nn/layers.h"

#include <cmath>

#include "core/autograd/autograd.h"

namespace trireme::nn {

namespace {

/// Uniform in +-1/sqrt(fan_in): PyTorch's default for linear and convolution layers.
Tensor initial(const Shape& shape, std::int64_t fan_in) {
  const double bound = fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0;
  return uniform(shape, next_initial_key(), -bound, bound).set_requires_grad(true);
}

Tensor constant(std::int64_t size, double value, bool wants_gradient) {
  return Tensor::full({size}, value).set_requires_grad(wants_gradient);
}

void update_running(const Tensor& running, const Tensor& value, double momentum) {
  if (StatisticsSink* sink = statistics_sink(); sink && sink->observe(running, value, momentum)) return;
  const NoGrad off;
  copy_(running, running * (1 - momentum) + value * momentum);
}

}  // namespace

Linear::Linear(std::int64_t in, std::int64_t out, bool with_bias)
    : weight(initial({out, in}, in)), bias(with_bias ? initial({out}, in) : Tensor()) {}

void Linear::visit(Visitor& v) {
  v.parameter("weight", weight);
  v.parameter("bias", bias);
}

Conv2d::Conv2d(std::int64_t in, std::int64_t out, std::int64_t kernel, Conv2dOptions o, bool with_bias)
    : options(o) {
  TRIREME_CHECK(o.groups > 0 && in % o.groups == 0, "Conv2d: {} input channels do not divide into {} groups",
                in, o.groups);
  const std::int64_t fan_in = in / o.groups * kernel * kernel;
  weight = initial({out, in / o.groups, kernel, kernel}, fan_in);
  if (with_bias) bias = initial({out}, fan_in);
}

void Conv2d::visit(Visitor& v) {
  v.parameter("weight", weight);
  v.parameter("bias", bias);
}

BatchNorm2d::BatchNorm2d(std::int64_t channels, BatchNorm2dOptions o)
    : weight(constant(channels, 1, true)),
      bias(constant(channels, 0, true)),
      running_mean(constant(channels, 0, false)),
      running_var(constant(channels, 1, false)),
      options(o) {}

Tensor BatchNorm2d::forward(const Tensor& x, const Tensor& residual) {
  BatchNormOptions how{.eps = options.eps, .relu = options.relu};
  BatchStatistics statistics{running_mean, running_var};
  if (!training()) {
    how.fixed = &statistics;
    return batch_norm(x, weight, bias, residual, how);
  }
  how.measured = &statistics;
  const Tensor y = batch_norm(x, weight, bias, residual, how);
  const double count = static_cast<double>(x.size(0) * x.size(2) * x.size(3));
  update_running(running_mean, statistics.mean, options.momentum);
  update_running(running_var, mul(statistics.variance, count > 1 ? count / (count - 1) : 1),
                 options.momentum);
  return y;
}

void BatchNorm2d::visit(Visitor& v) {
  v.parameter("weight", weight);
  v.parameter("bias", bias);
  v.statistics("running_mean", running_mean);
  v.statistics("running_var", running_var);
}

Tensor Dropout::forward(const Tensor& x) {
  if (!training() || p == 0) return x;
  const RandomContext& context = random_context();
  const std::uint64_t calls = calls_.next();
  // The first call of a step's first round has the plain key of (seed, step, layer).
  const std::uint64_t layer =
      layer_ ^ (context.round ? mix64(context.round) : 0) ^ (calls ? mix64(~calls) : 0);
  return dropout(x, p, random_key(context.seed, context.step, layer), context.first_sample);
}

void Dropout::set_path(const std::string& path) {
  layer_ = 0xd509;  // apart from other users of (seed, step, layer) keys
  for (const char c : path) layer_ = mix64(layer_ ^ static_cast<unsigned char>(c));
}

BasicBlock::BasicBlock(std::int64_t in, std::int64_t out, std::int64_t stride)
    : conv1(in, out, 3, {.stride = stride, .padding = 1}, false),
      conv2(out, out, 3, {.padding = 1}, false),
      bn1(out, {.relu = true}),
      bn2(out, {.relu = true}) {
  if (stride != 1 || in != out)
    downsample = Sequential(Conv2d(in, out, 1, {.stride = stride}, false), BatchNorm2d(out));
}

Tensor BasicBlock::forward(const Tensor& x) {
  const Tensor shortcut = downsample.size() ? downsample.forward(x) : x;
  return bn2.forward(conv2(bn1(conv1(x))), shortcut);
}

void BasicBlock::visit(Visitor& v) {
  v.module("conv1", conv1);
  v.module("bn1", bn1);
  v.module("conv2", conv2);
  v.module("bn2", bn2);
  v.module("downsample", downsample);
}

}  // namespace trireme::nn
