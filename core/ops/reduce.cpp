#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// Shape of the result with reduced dimensions kept at size 1.
Shape kept_shape(const char* op, const Tensor& x, const std::vector<int>& dims) {
  if (dims.empty()) return Shape::filled(x.dim(), 1);
  Shape kept = x.shape();
  bool seen[kMaxDims] = {};
  for (int dim : dims) {
    const int d = wrap_dim(dim, x.dim(), op);
    TRIREME_CHECK(!seen[d], "{}: dimension {} is named twice", op, dim);
    seen[d] = true;
    if (x.dim() > 0) kept[d] = 1;
  }
  return kept;
}

Shape dropped_shape(const Tensor& x, const std::vector<int>& dims) {
  if (dims.empty()) return {};
  Shape shape;
  for (int d = 0; d < x.dim(); ++d) {
    bool reduced = false;
    for (int dim : dims) reduced = reduced || (dim < 0 ? dim + x.dim() : dim) == d;
    if (!reduced) shape.push_back(x.shape()[d]);
  }
  return shape;
}

/// Reduces x to `kept`, handed out as `shape` (the same elements).
Tensor reduce_kernel(ReduceOp op, const Tensor& x, const Shape& kept, const Shape& shape) {
  Tensor out = Tensor::empty(shape, x.dtype(), x.device());
  kernels(x).reduce(op, out.alias(kept, contiguous_strides(kept), 0).view(), x.view());
  return out;
}

}  // namespace

Tensor sum(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  check_number("sum", x);
  const Shape kept = kept_shape("sum", x, dims);
  return record("sum", reduce_kernel(ReduceOp::kSum, x, kept, keepdim ? kept : dropped_shape(x, dims)), {&x},
                [kept, shape = x.shape()](Backward& g) { g.set(0, expand(reshape(g.grad, kept), shape)); });
}

Tensor mean(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  check_floating("mean", x);
  const std::int64_t results = kept_shape("mean", x, dims).numel();
  const double count = results ? static_cast<double>(x.numel()) / static_cast<double>(results) : 0;
  return mul(sum(x, dims, keepdim), 1 / count);
}

Tensor amax(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  check_number("amax", x);
  const Shape kept = kept_shape("amax", x, dims);
  for (int d = 0; d < x.dim(); ++d)
    TRIREME_CHECK(x.shape()[d] > 0 || kept[d] == 0,
                  "amax: dimension {} of shape {} is empty and has no largest element", d,
                  x.shape().to_string());
  const Tensor y = reduce_kernel(ReduceOp::kMax, x, kept, keepdim ? kept : dropped_shape(x, dims));
  return record("amax", y, {&x}, [x = Saved(x), y = Saved::output(y), kept](Backward& g) {
    const Tensor in = g.get(x), largest = reshape(g.get(y).detach(), kept);
    const Tensor hits = to(eq(in.detach(), largest), in.dtype());
    const Tensor share = div(reshape(g.grad, kept), reduce_kernel(ReduceOp::kSum, hits, kept, kept));
    g.set(0, mul(expand(share, in.shape()), hits));  // equal maxima share, as in PyTorch
  });
}

Tensor argmax(const Tensor& x) {
  TRIREME_CHECK(x.defined() && x.dim() >= 1 && x.size(-1) > 0,
                "argmax: needs a last dimension with elements, got shape {}",
                x.defined() ? x.shape().to_string() : "of an undefined tensor");
  Shape shape = x.shape();
  const std::int64_t width = shape[shape.size() - 1];
  shape.erase(shape.size() - 1);
  Tensor out = Tensor::empty(shape, DType::kInt64, x.device());
  const Tensor dense = x.row_major();
  const Tensor rows = dense.alias({shape.numel(), width}, {width, 1}, dense.offset());
  kernels(x).argmax(out.view(), rows.view());
  return out;
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  check_number("sum_to", x);
  if (x.shape() == shape) return x;
  TRIREME_CHECK(broadcast_shapes(x.shape(), shape, "sum_to") == x.shape(),
                "sum_to: shape {} is no broadcast of shape {}", x.shape().to_string(), shape.to_string());
  const int shift = x.dim() - shape.size();
  std::vector<int> dims;
  for (int d = 0; d < x.dim(); ++d)
    if (d < shift || (shape[d - shift] == 1 && x.shape()[d] != 1)) dims.push_back(d);
  return reshape(dims.empty() ? x : sum(x, dims, true), shape);
}

}  // namespace trireme
