#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

Tensor dropout(const Tensor& x, double p, RandomKey key, std::int64_t first_sample) {
  check_floating("dropout", x);
  TRIREME_CHECK(p >= 0 && p <= 1, "dropout: probability {} is outside 0..1", p);
  if (is_widened(x)) return to(dropout(to(x, DType::kFloat32), p, key, first_sample), x.dtype());
  const Tensor in = x.row_major(), out = Tensor::empty(x.shape(), x.dtype(), x.device());
  kernels(x).dropout(out.view(), in.view(), p, key, first_sample);
  // The same numbers again, not a stored mask: it costs no memory.
  return record("dropout", out, {&x},
                [p, key, first_sample](Backward& g) { g.set(0, dropout(g.grad, p, key, first_sample)); });
}

Tensor uniform(const Shape& shape, RandomKey key, double low, double high, DType dtype) {
  Tensor out = Tensor::empty(shape, dtype);
  kernels(out).uniform(out.view(), key, low, high);
  return out;
}

Tensor normal(const Shape& shape, RandomKey key, double mean, double std, DType dtype) {
  Tensor out = Tensor::empty(shape, dtype);
  kernels(out).normal(out.view(), key, mean, std);
  return out;
}

}  // namespace trireme
