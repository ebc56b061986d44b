#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// Computed in float64.
Tensor reciprocal_std(const Tensor& variance, double eps) {
  const Tensor wide = Tensor::empty(variance.shape(), DType::kFloat64, variance.device());
  copy_into(wide, variance);
  kernels(wide).unary(UnaryOp::add_scalar, wide.view(), wide.view(), {eps});
  kernels(wide).unary(UnaryOp::rsqrt, wide.view(), wide.view(), {});
  return to_dtype(wide, variance.dtype());
}

/// Parameters and statistics of 16-bit images may themselves be float32.
bool fits_beside(const Tensor& t, const Tensor& x) {
  return t.dtype() == x.dtype() || (is_low_precision(x.dtype()) && t.dtype() == DType::kFloat32);
}

void check_channel_vector(const char* what, const Tensor& t, const Tensor& x) {
  TRIREME_CHECK(
      t.defined() && t.dim() == 1 && t.size(0) == x.size(1) && fits_beside(t, x) && t.is_contiguous(),
      "batch_norm: {} must be {} ({}) for x {}, got {}", what, name_of(x.dtype()), x.size(1),
      x.shape().to_string(), t.defined() ? t.shape().to_string() : "an undefined tensor");
}

void check_arguments(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& residual,
                     const BatchNormOptions& o) {
  check_floating("batch_norm", x);
  check_dims("batch_norm", "x (N,C,H,W)", x, 4);
  check_channel_vector("gamma", gamma, x);
  check_channel_vector("beta", beta, x);
  TRIREME_CHECK(!residual.defined() || (residual.shape() == x.shape() && residual.dtype() == x.dtype()),
                "batch_norm: residual {} must have x's shape {}",
                residual.defined() ? residual.shape().to_string() : "", x.shape().to_string());
  if (o.fixed) {
    check_channel_vector("mean", o.fixed->mean, x);
    check_channel_vector("variance", o.fixed->variance, x);
  }
}

/// Evaluation: statistics are constants, so this is an elementwise function.
Tensor with_fixed(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& residual,
                  const BatchNormOptions& o) {
  const Shape wide{1, x.size(1), 1, 1};
  const Tensor xhat =
      mul(sub(x, reshape(o.fixed->mean, wide)), reshape(reciprocal_std(o.fixed->variance, o.eps), wide));
  Tensor y = add(mul(xhat, reshape(gamma, wide)), reshape(beta, wide));
  if (residual.defined()) y = add(y, residual);
  return o.relu ? relu(y) : y;
}

Tensor wide(const Tensor& t) { return t.defined() ? to(t, DType::kFloat32) : t; }

/// Training, made of differentiable ops.
Tensor unfused(const std::vector<Tensor>& in, double eps, bool with_relu) {
  const Tensor& x = in[0];
  if (is_low_precision(x.dtype()))
    return to(unfused({wide(x), in[1], in[2], wide(in[3])}, eps, with_relu), x.dtype());
  const Shape wide{1, x.size(1), 1, 1};
  const Tensor from = sub(x, mean(x, {0, 2, 3}, true));
  const Tensor xhat = mul(from, rsqrt(add(mean(square(from), {0, 2, 3}, true), eps)));
  Tensor y = add(mul(xhat, reshape(in[1], wide)), reshape(in[2], wide));
  if (in[3].defined()) y = add(y, in[3]);
  return with_relu ? relu(y) : y;
}

/// 16-bit images: computed in float32, rounded once. What is measured stays float32.
Tensor in_full(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& residual,
               BatchNormOptions o) {
  BatchStatistics fixed;
  if (o.fixed) fixed = {wide(o.fixed->mean), wide(o.fixed->variance)};
  if (o.fixed) o.fixed = &fixed;
  return to(batch_norm(wide(x), wide(gamma), wide(beta), wide(residual), o), x.dtype());
}

}  // namespace

Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& residual,
                  const BatchNormOptions& o) {
  if (const amp::Cast c("batch_norm", {&x, &gamma, &beta, &residual}); c)
    return batch_norm(c[0], c[1], c[2], c[3], o);
  check_arguments(x, gamma, beta, residual, o);
  if (is_widened(x) || (o.fixed && is_low_precision(x.dtype()))) return in_full(x, gamma, beta, residual, o);
  if (is_low_precision(gamma.dtype()) || is_low_precision(beta.dtype()))
    return batch_norm(x, wide(gamma), wide(beta), residual, o);
  const bool recorded = recording({&x, &gamma, &beta, &residual});
  if (o.fixed && recorded) return with_fixed(x, gamma, beta, residual, o);

  const auto dense = [](const Tensor& t) {
    return !t.defined() || t.is_channels_last() ? t : channels_last(t.detach());
  };
  const Tensor in = dense(x), skip = dense(residual),
               y = Tensor::empty_channels_last(x.shape(), x.dtype(), x.device());
  Tensor mean, rstd;
  if (o.fixed) {
    mean = o.fixed->mean;
    rstd = reciprocal_std(o.fixed->variance, o.eps);
  } else {
    TRIREME_CHECK(x.numel() > 0, "batch_norm: no elements in x {}; statistics need at least one sample",
                  x.shape().to_string());
    mean = Tensor::empty({x.size(1)}, gamma.dtype(), x.device());
    const Tensor variance = Tensor::empty_like(mean);
    kernels(x).batch_norm_statistics(mean.view(), variance.view(), in.view());
    rstd = reciprocal_std(variance, o.eps);
    if (o.measured) *o.measured = {mean, variance};
  }
  const View skip_view = skip.defined() ? skip.view() : View{};
  kernels(x).batch_norm_apply(y.view(), in.view(), mean.view(), rstd.view(), gamma.view(), beta.view(),
                              skip.defined() ? &skip_view : nullptr, o.relu);
  return record(
      "batch_norm", y, {&x, &gamma, &beta, &residual},
      [x = Saved(x), gamma = Saved(gamma), beta = Saved(beta), residual = Saved(residual),
       y = o.relu ? Saved::output(y) : Saved(), mean = Saved(mean), rstd, relu = o.relu,
       eps = o.eps](Backward& g) {
        if (grad_enabled())
          return differentiate_unfused(
              g, {g.get(x), g.get(gamma), g.get(beta), g.get(residual)},
              [eps, relu](const std::vector<Tensor>& inputs) { return unfused(inputs, eps, relu); });
        const Tensor data = channels_last(g.get(x).detach()), scale = g.get(gamma),
                     out = relu ? g.get(y) : Tensor();
        const Tensor dy = channels_last(g.grad), dx = Tensor::empty_like(data);
        const Tensor dgamma = Tensor::empty_like(scale), dbeta = Tensor::empty_like(scale);
        // Without ReLU the residual's gradient is dy itself.
        const Tensor dskip = g.needs(3) && relu ? Tensor::empty_like(data) : Tensor();
        const View out_view = relu ? out.view() : View{}, skip_grad = dskip.defined() ? dskip.view() : View{};
        kernels(dx).batch_norm_backward(
            dx.view(), dgamma.view(), dbeta.view(), dskip.defined() ? &skip_grad : nullptr, dy.view(),
            data.view(), relu ? &out_view : nullptr, g.get(mean).view(), rstd.view(), scale.view());
        g.set(0, dx);
        g.set(1, dgamma);
        g.set(2, dbeta);
        g.set(3, dskip.defined() ? dskip : dy);
      });
}

}  // namespace trireme
