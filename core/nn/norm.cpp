#include "core/nn/norm.h"

#include <limits>

#include "core/autograd/autograd.h"
#include "core/autograd/function.h"
#include "core/nn/batch_sync.h"
#include "core/nn/init.h"

namespace trireme::nn {

namespace {

void update_running(const Tensor& running, const Tensor& value, double momentum) {
  if (StatisticsSink* sink = statistics_sink(); sink && sink->observe(running, value, momentum)) return;
  const NoGrad off;
  copy_(running, running * (1 - momentum) + value * momentum);
}

/// `norm` over the last dimensions of x, which must have this shape. Without a weight ops take one
/// dimension for granted.
template <class Norm>
Tensor over_last(const char* name, const Tensor& x, const Shape& shape, bool has_weight, const Norm& norm) {
  const int lead = x.dim() - shape.size();
  bool fits = lead >= 0;
  for (int d = 0; fits && d < shape.size(); ++d) fits = x.size(lead + d) == shape[d];
  TRIREME_CHECK(fits, "{}: x {} does not end in the shape {} that it normalizes", name, x.shape().to_string(),
                shape.to_string());
  if (has_weight || shape.size() == 1) return norm(x);
  return reshape(norm(flatten(x, lead)), x.shape());
}

struct SumOverShards : Function<SumOverShards> {
  static Tensor forward(Context&, const Tensor& x) { return sum_of(x); }
  static Tensors backward(Context&, const Tensors& g) { return {apply(g[0])}; }
  static Tensor sum_of(const Tensor& x) {
    TRIREME_CHECK(batch_sync(), "BatchNorm2d: synchronized statistics outside of a step's shard");
    return batch_sync()->sum(x);
  }
};

}  // namespace

BatchSync*& batch_sync() {
  thread_local BatchSync* sync = nullptr;
  return sync;
}

BatchNorm2d::BatchNorm2d(std::int64_t channels, BatchNorm2dOptions o)
    : weight(constant_parameter({channels}, 1)),
      bias(constant_parameter({channels}, 0)),
      running_mean(Tensor::zeros({channels})),
      running_var(Tensor::ones({channels})),
      options(o) {}

Tensor BatchNorm2d::operator()(const Tensor& x, const Tensor& residual) {
  if (!has_hooks()) return forward(x, residual);
  return with_hooks({x, residual},
                    [this](const std::vector<Tensor>& in) { return std::vector{forward(in[0], in[1])}; })[0];
}

Tensor BatchNorm2d::forward(const Tensor& x, const Tensor& residual) {
  BatchNormOptions how{.eps = options.eps, .relu = options.relu};
  BatchStatistics statistics{running_mean, running_var};
  if (!training()) {
    how.fixed = &statistics;
    return batch_norm(x, weight, bias, residual, how);
  }
  if (batch_sync()) return synchronized(x, residual);
  how.measured = &statistics;
  const Tensor y = batch_norm(x, weight, bias, residual, how);
  const double count = static_cast<double>(x.size(0) * x.size(2) * x.size(3));
  update_running(running_mean, statistics.mean, options.momentum);
  update_running(running_var, mul(statistics.variance, count > 1 ? count / (count - 1) : 1),
                 options.momentum);
  return y;
}

/// Mean first, then squares of what is left: two sums over shards, which cancel nothing. The gradient of a
/// sum over shards is one again.
Tensor BatchNorm2d::synchronized(const Tensor& x, const Tensor& residual) {
  const Tensor in = to(x, DType::kFloat32);
  const std::int64_t channels = in.size(1);
  const auto of_channels = [&](const Tensor& t) { return reshape(t, {1, channels, 1, 1}); };
  const Tensor here =
      Tensor::full({1}, static_cast<double>(in.numel() / channels), DType::kFloat32, in.device());
  const Tensor sums = SumOverShards::apply(cat({sum(in, {0, 2, 3}), here}, 0));
  const double count = narrow(sums.detach(), 0, channels, 1).item();
  const Tensor mean = narrow(sums, 0, 0, channels) / count, centered = in - of_channels(mean);
  const Tensor variance = SumOverShards::apply(sum(square(centered), {0, 2, 3})) / count;
  Tensor y = centered * of_channels(rsqrt(variance + options.eps) * weight) + of_channels(bias);
  if (residual.defined()) y = y + residual;
  if (options.relu) y = relu(y);
  update_running(running_mean, mean.detach(), options.momentum);
  update_running(running_var, mul(variance.detach(), count > 1 ? count / (count - 1) : 1), options.momentum);
  return to(y, x.dtype());
}

void BatchNorm2d::visit(Visitor& v) {
  v.parameter("weight", weight);
  v.parameter("bias", bias);
  v.statistics("running_mean", running_mean);
  v.statistics("running_var", running_var);
}

LayerNorm::LayerNorm(const Shape& over, LayerNormOptions o) : shape(over), options(o) {
  if (o.affine) weight = constant_parameter(shape, 1);
  if (o.affine && o.bias) bias = constant_parameter(shape, 0);
}

Tensor LayerNorm::forward(const Tensor& x) {
  return over_last("LayerNorm", x, shape, weight.defined(),
                   [&](const Tensor& t) { return layer_norm(t, weight, bias, options.eps); });
}

void LayerNorm::visit(Visitor& v) {
  v.parameter("weight", weight);
  v.parameter("bias", bias);
}

RMSNorm::RMSNorm(const Shape& over, RMSNormOptions o) : shape(over), options(o) {
  if (o.affine) weight = constant_parameter(shape, 1);
}

Tensor RMSNorm::forward(const Tensor& x) {
  const double least = x.dtype() == DType::kFloat64 ? std::numeric_limits<double>::epsilon()
                                                    : std::numeric_limits<float>::epsilon();
  return over_last("RMSNorm", x, shape, weight.defined(),
                   [&](const Tensor& t) { return rms_norm(t, weight, options.eps.value_or(least)); });
}

void RMSNorm::visit(Visitor& v) { v.parameter("weight", weight); }

GroupNorm::GroupNorm(std::int64_t g, std::int64_t channels, GroupNormOptions o) : groups(g), options(o) {
  TRIREME_CHECK(g > 0 && channels % g == 0, "GroupNorm: {} channels do not divide into {} groups", channels,
                g);
  if (!o.affine) return;
  weight = constant_parameter({channels}, 1);
  bias = constant_parameter({channels}, 0);
}

void GroupNorm::visit(Visitor& v) {
  v.parameter("weight", weight);
  v.parameter("bias", bias);
}

}  // namespace trireme::nn
