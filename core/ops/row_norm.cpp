// Normalization of rows: layer, RMS and group norm.
#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/operands.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// x (R,C) to rows of mean 0 (if centered) and mean square 1, times gamma, plus beta (either may be
/// undefined).
Tensor unfused(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps, bool centered) {
  const Tensor from = centered ? sub(x, mean(x, {1}, true)) : x;
  Tensor y = mul(from, rsqrt(add(mean(square(from), {1}, true), eps)));
  if (gamma.defined()) y = mul(y, gamma);
  return beta.defined() ? add(y, beta) : y;
}

void run_backward(Backward& g, const Tensor& x, const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                  bool centered) {
  const Tensor dy = g.grad.row_major();
  if (g.needs(0)) {
    const Tensor dx = Tensor::empty(x.shape(), x.dtype(), x.device());
    const View scale = gamma.defined() ? gamma.view() : View{};
    kernels(dx).row_norm_backward(dx.view(), dy.view(), x.view(), mean.view(), rstd.view(),
                                  gamma.defined() ? &scale : nullptr, centered);
    g.set(0, dx);
  }
  if (!g.needs(1) && !g.needs(2)) return;
  const Tensor dgamma = Tensor::empty({x.size(1)}, x.dtype(), x.device()), dbeta = Tensor::empty_like(dgamma);
  kernels(dy).row_norm_parameters(dgamma.view(), dbeta.view(), dy.view(), x.view(), mean.view(), rstd.view());
  g.set(1, dgamma);
  g.set(2, dbeta);
}

Tensor normalized(const char* name, const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps,
                  bool centered) {
  if (is_low_precision(x.dtype())) {
    const auto wide = [](const Tensor& t) { return t.defined() ? to(t, DType::kFloat32) : t; };
    return to(normalized(name, wide(x), wide(gamma), wide(beta), eps, centered), x.dtype());
  }
  const Tensor in = x.row_major(), y = Tensor::empty(x.shape(), x.dtype(), x.device());
  const Tensor mean = Tensor::empty({x.size(0)}, x.dtype(), x.device()), rstd = Tensor::empty_like(mean);
  const Tensor scale = gamma.defined() ? gamma.row_major() : gamma,
               shift = beta.defined() ? beta.row_major() : beta;
  const View scale_view = scale.defined() ? scale.view() : View{},
             shift_view = shift.defined() ? shift.view() : View{};
  kernels(x).row_norm_forward(y.view(), mean.view(), rstd.view(), in.view(),
                              scale.defined() ? &scale_view : nullptr,
                              shift.defined() ? &shift_view : nullptr, eps, centered);
  return record(name, y, {&x, &gamma, &beta},
                [x = Saved(x), gamma = Saved(gamma), mean, rstd, eps, centered,
                 has_beta = beta.defined()](Backward& g) {
                  const Tensor data = g.get(x), weight = g.get(gamma);
                  if (grad_enabled()) {
                    const Tensor zero =
                        has_beta ? Tensor::zeros({data.size(1)}, data.dtype(), data.device()) : Tensor();
                    return differentiate_unfused(g, {data, weight, zero},
                                                 [eps, centered](const std::vector<Tensor>& t) {
                                                   return unfused(t[0], t[1], t[2], eps, centered);
                                                 });
                  }
                  run_backward(g, data.row_major(), weight.defined() ? weight.row_major() : weight, mean,
                               rstd, centered);
                });
}

/// The last `dims` dimensions as rows of one.
Tensor by_rows(const char* name, const Tensor& x, int dims, const Tensor& gamma, const Tensor& beta,
               double eps, bool centered) {
  check_floating(name, x);
  TRIREME_CHECK(dims >= 1 && dims <= x.dim(), "{}: {} dimensions of x {}", name, dims, x.shape().to_string());
  Shape inner;
  for (int d = x.dim() - dims; d < x.dim(); ++d) inner.push_back(x.shape()[d]);
  const std::int64_t width = inner.numel();
  TRIREME_CHECK(width > 0, "{}: rows of x {} are empty", name, x.shape().to_string());
  for (const Tensor* t : {&gamma, &beta})
    TRIREME_CHECK(!t->defined() || (t->shape() == inner && t->dtype() == x.dtype()),
                  "{}: weight or bias {} does not fit x {}; needs {} {}", name,
                  t->defined() ? t->shape().to_string() : "", x.shape().to_string(), name_of(x.dtype()),
                  inner.to_string());
  const auto flat = [&](const Tensor& t) { return t.defined() ? reshape(t, {width}) : t; };
  return reshape(
      normalized(name, reshape(x, {x.numel() / width, width}), flat(gamma), flat(beta), eps, centered),
      x.shape());
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps) {
  if (const amp::Cast c("layer_norm", {&x, &gamma, &beta}); c) return layer_norm(c[0], c[1], c[2], eps);
  return by_rows("layer_norm", x, gamma.defined() ? gamma.dim() : 1, gamma, beta, eps, true);
}

Tensor rms_norm(const Tensor& x, const Tensor& gamma, double eps) {
  if (const amp::Cast c("rms_norm", {&x, &gamma}); c) return rms_norm(c[0], c[1], eps);
  return by_rows("rms_norm", x, gamma.defined() ? gamma.dim() : 1, gamma, {}, eps, false);
}

Tensor group_norm(const Tensor& x, std::int64_t groups, const Tensor& gamma, const Tensor& beta, double eps) {
  if (const amp::Cast c("group_norm", {&x, &gamma, &beta}); c)
    return group_norm(c[0], groups, c[1], c[2], eps);
  check_floating("group_norm", x);
  TRIREME_CHECK(x.dim() >= 2 && groups > 0 && x.size(1) % groups == 0,
                "group_norm: {} groups of x {}; needs (N,C,...) whose channels divide into the groups",
                groups, x.shape().to_string());
  TRIREME_CHECK(x.numel() > 0, "group_norm: x {} has no elements", x.shape().to_string());
  Shape channel = Shape::filled(x.dim(), 1);
  channel[1] = x.size(1);
  for (const Tensor* t : {&gamma, &beta})
    TRIREME_CHECK(!t->defined() || t->numel() == x.size(1), "group_norm: weight or bias {} does not fit x {}",
                  t->defined() ? t->shape().to_string() : "", x.shape().to_string());
  const auto value = [&](const Tensor& t, const Tensor& scale, const Tensor& shift) {
    const std::int64_t rows = t.size(0) * groups;
    Tensor y =
        reshape(normalized("group_norm", reshape(t, {rows, t.numel() / rows}), {}, {}, eps, true), t.shape());
    if (scale.defined()) y = mul(y, reshape(scale, channel));
    return shift.defined() ? add(y, reshape(shift, channel)) : y;
  };
  return in_full(value, x, gamma, beta);
}

}  // namespace trireme
