// Norms of vectors. They are computed in float64, so that the squares of float32 numbers neither overflow nor
// become 0.
#include <cmath>

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/operands.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// The norm along `dims`, kept as dimensions of size 1; not recorded.
Tensor norm_value(const Tensor& x, double p, const std::vector<int>& dims) {
  const NoGrad unrecorded;
  if (p == 0) return sum(to(ne(x, 0), x.dtype()), dims, true);
  if (std::isinf(p)) return p > 0 ? amax(abs(x), dims, true) : amin(abs(x), dims, true);
  if (p == 1) return sum(abs(x), dims, true);
  if (p == 2) return sqrt(sum(square(x), dims, true));
  return pow(sum(pow(abs(x), p), dims, true), 1 / p);
}

/// The gradient of the norm y of x, PyTorch's: where the slope is not finite, at zeros, it is 0.
Tensor norm_slope(const Tensor& g, const Tensor& x, const Tensor& y, double p, const std::vector<int>& dims) {
  const Tensor none = Tensor::zeros({}, x.dtype(), x.device());
  if (p == 1) return mul(sign(x), g);
  if (p == 2) return mul(g, where(eq(y, 0), none, div(x, y)));
  if (std::isinf(p)) {
    const Tensor size = abs(x.detach());
    const Tensor hits = to(logical_or(eq(size, y.detach()), isnan(size)), x.dtype());
    return mul(sign(x), mul(div(g, sum(hits, dims, true)), hits));
  }
  if (p < 1) {
    const Tensor scaled = where(eq(x, 0), none, mul(sign(x), pow(abs(x), p - 1)));
    return mul(mul(scaled, g), pow(y, 1 - p));
  }
  const Tensor scaled = p < 2 ? mul(sign(x), pow(abs(x), p - 1)) : mul(x, pow(abs(x), p - 2));
  return mul(scaled, where(eq(y, 0), none, div(g, pow(y, p - 1))));
}

Tensor kept_norm(const Tensor& x, double p, const std::vector<int>& dims) {
  const Tensor y = norm_value(x, p, dims);
  return record("norm", y, {&x}, [x = Saved(x), y = Saved::output(y), p, dims](Backward& g) {
    const Tensor in = g.get(x);
    g.set(0, p == 0 ? zeros_like(in) : norm_slope(g.grad, in, g.get(y), p, dims));
  });
}

}  // namespace

Tensor norm(const Tensor& x, double p, const std::vector<int>& dims, bool keepdim) {
  if (const amp::Cast c("norm", {&x}); c) return norm(c[0], p, dims, keepdim);
  check_floating("norm", x);
  TRIREME_CHECK(!std::isnan(p), "norm: p is NaN; it must be a number or an infinity");
  const Shape shape = sum(x.detach(), dims, keepdim).shape();
  return reshape(to(kept_norm(to(x, DType::kFloat64), p, dims), x.dtype()), shape);
}

}  // namespace trireme
