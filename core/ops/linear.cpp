#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// BLAS wants rows or columns dense; anything else is copied first.
Tensor dense_matrix(const Tensor& t) {
  const int d = t.dim();
  const std::int64_t rows = t.shape()[d - 2], columns = t.shape()[d - 1], sr = t.strides()[d - 2],
                     sc = t.strides()[d - 1];
  const bool row_major = (sc == 1 || columns == 1) && (rows == 1 || sr >= columns);
  const bool column_major = (sr == 1 || rows == 1) && (columns == 1 || sc >= rows);
  return row_major || column_major ? t : t.row_major();
}

View as_batch(const Tensor& t) {
  View v = t.view();
  if (v.dims == 3) return v;
  View wide = v;
  wide.dims = 3;
  wide.shape[0] = 1;
  wide.strides[0] = 0;
  for (int d = 0; d < 2; ++d) {
    wide.shape[d + 1] = v.shape[d];
    wide.strides[d + 1] = v.strides[d];
  }
  return wide;
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) {
  check_same_kind("matmul", {&a, &b});
  check_floating("matmul", a);
  const bool fits = a.dim() == b.dim() && (a.dim() == 2 || (a.dim() == 3 && a.size(0) == b.size(0))) &&
                    a.size(-1) == b.size(-2);
  TRIREME_CHECK(fits, "matmul: shapes {} and {} do not fit; needs (M,K) @ (K,N) or (B,M,K) @ (B,K,N)",
                a.shape().to_string(), b.shape().to_string());
  Shape shape = a.shape();
  shape[a.dim() - 1] = b.size(-1);
  const Tensor out = Tensor::empty(shape, a.dtype(), a.device());
  const Tensor x = dense_matrix(a), y = dense_matrix(b);
  kernels(a).matmul(as_batch(out), as_batch(x), as_batch(y));
  return record("matmul", out, {&a, &b}, [a = Saved(a), b = Saved(b)](Backward& g) {
    if (g.needs(0)) g.set(0, matmul(g.grad, transpose(g.get(b), -1, -2)));
    if (g.needs(1)) g.set(1, matmul(transpose(g.get(a), -1, -2), g.grad));
  });
}

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b) {
  check_same_kind("linear", {&x, &w});
  check_floating("linear", x);
  check_dims("linear", "w (out, in)", w, 2);
  TRIREME_CHECK(x.dim() >= 1 && x.size(-1) == w.size(1),
                "linear: x {} does not fit w {}; x's last size must be {}", x.shape().to_string(),
                w.shape().to_string(), w.size(1));
  Shape shape = x.shape();
  shape[shape.size() - 1] = w.size(0);
  std::int64_t count = 1;
  for (int d = 0; d + 1 < x.dim(); ++d) count *= x.shape()[d];
  const Tensor rows = reshape(x, {count, x.size(-1)});
  Tensor y = matmul(rows, transpose(w, 0, 1));
  if (b.defined()) {
    check_same_kind("linear", {&x, &b});
    TRIREME_CHECK(b.dim() == 1 && b.size(0) == w.size(0), "linear: b {} does not fit w {}; needs ({})",
                  b.shape().to_string(), w.shape().to_string(), w.size(0));
    y = add(y, b);
  }
  return reshape(y, shape);
}

}  // namespace trireme
