#include <algorithm>
#include <cmath>

#include "core/amp/autocast.h"
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
  const bool sums = op == ReduceOp::kSum || op == ReduceOp::kProd, is_whole = !is_floating(x.dtype());
  const DType dtype = op == ReduceOp::kAny || op == ReduceOp::kAll ? DType::kBool
                      : sums && is_whole                           ? DType::kInt64
                                                                   : x.dtype();
  Tensor out = Tensor::empty(shape, dtype, x.device());
  kernels(x).reduce(op, out.alias(kept, contiguous_strides(kept), 0).view(), x.view());
  return out;
}

void check_not_empty(const char* op, const Tensor& x, const Shape& kept) {
  for (int d = 0; d < x.dim(); ++d)
    TRIREME_CHECK(x.shape()[d] > 0 || kept[d] == 0,
                  "{}: dimension {} of shape {} is empty and has no such element", op, d,
                  x.shape().to_string());
}

Tensor extreme(const char* name, ReduceOp op, const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  check_number(name, x);
  const Shape kept = kept_shape(name, x, dims);
  check_not_empty(name, x, kept);
  const Tensor y = reduce_kernel(op, x, kept, keepdim ? kept : dropped_shape(x, dims));
  return record(name, y, {&x}, [x = Saved(x), y = Saved::output(y), kept](Backward& g) {
    const Tensor in = g.get(x), best = reshape(g.get(y).detach(), kept);
    const Tensor hits = to(eq(in.detach(), best), in.dtype());
    const Tensor share = div(reshape(g.grad, kept), reduce_kernel(ReduceOp::kSum, hits, kept, kept));
    g.set(0, mul(expand(share, in.shape()), hits));  // equal ones share, as in PyTorch
  });
}

Tensor truth(const char* name, ReduceOp op, const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  check_defined(name, x);
  const Shape kept = kept_shape(name, x, dims);
  return reduce_kernel(op, x, kept, keepdim ? kept : dropped_shape(x, dims));
}

/// x with `dim` last and dense, as rows; 0-d counts as one row of one element.
struct Rows {
  Rows(const char* op, const Tensor& x, int dim) {
    check_defined(op, x);
    d = wrap_dim(dim, x.dim(), op);
    moved = x.dim() > 0 ? transpose(x.detach(), d, -1).row_major() : x.detach();
    width = x.dim() > 0 ? moved.size(-1) : 1;
    count = width ? moved.numel() / width : 0;
  }
  View view() const { return moved.alias({count, width}, {width, 1}, moved.offset()).view(); }
  int d;
  Tensor moved;
  std::int64_t width, count;
};

Tensor arg_extreme(const char* name, ReduceOp op, const Tensor& x, int dim, bool keepdim) {
  const Rows rows(name, x, dim);
  TRIREME_CHECK(rows.width > 0, "{}: dimension {} of shape {} is empty", name, dim, x.shape().to_string());
  Shape shape = rows.moved.shape();
  if (x.dim() > 0) shape[x.dim() - 1] = 1;
  const Tensor found = Tensor::empty(shape, DType::kInt64, x.device());
  kernels(x).arg_extreme(op, found.alias({rows.count}, {1}, 0).view(), rows.view());
  if (x.dim() == 0) return found;
  const Tensor back = transpose(found, rows.d, -1);
  return keepdim ? back.row_major() : squeeze(back, rows.d).row_major();
}

double count_of(const char* op, const Tensor& x, const std::vector<int>& dims) {
  const std::int64_t results = kept_shape(op, x, dims).numel();
  return results ? static_cast<double>(x.numel()) / static_cast<double>(results) : 0;
}

/// For each element the product of all others along `dims`. Can be differentiated again also where there are
/// zeros, for which it takes time and memory that grow with the square of what is multiplied.
Tensor products_of_others(const Tensor& x, const std::vector<int>& dims) {
  const Shape kept = kept_shape("prod", x, dims);
  std::vector<int> order, back(static_cast<std::size_t>(x.dim()));
  for (const bool reduced : {false, true})
    for (int d = 0; d < x.dim(); ++d)
      if ((kept[d] != x.size(d)) == reduced) order.push_back(d);
  for (std::size_t i = 0; i < order.size(); ++i)
    back[static_cast<std::size_t>(order[i])] = static_cast<int>(i);
  const Tensor turned = permute(x, order);
  const std::int64_t rows = kept.numel(), count = x.numel() / rows;
  const Tensor itself = eq(eye(count, count, x.dtype(), x.device()), 1);
  const Tensor others = where(itself, Tensor::ones({}, x.dtype(), x.device()),
                              expand(reshape(turned, {rows, 1, count}), {rows, count, count}));
  return permute(reshape(prod(others, {-1}), turned.shape()), back);
}

}  // namespace

Tensor sum(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  if (const amp::Cast c("sum", {&x}); c) return sum(c[0], dims, keepdim);
  check_defined("sum", x);
  const Shape kept = kept_shape("sum", x, dims);
  return record("sum", reduce_kernel(ReduceOp::kSum, x, kept, keepdim ? kept : dropped_shape(x, dims)), {&x},
                [kept, shape = x.shape()](Backward& g) { g.set(0, expand(reshape(g.grad, kept), shape)); });
}

Tensor prod(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  if (const amp::Cast c("prod", {&x}); c) return prod(c[0], dims, keepdim);
  check_defined("prod", x);
  const Shape kept = kept_shape("prod", x, dims);
  const Tensor y = reduce_kernel(ReduceOp::kProd, x, kept, keepdim ? kept : dropped_shape(x, dims));
  return record("prod", y, {&x}, [x = Saved(x), kept, dims](Backward& g) {
    // The product of all others: with the only zero left out, or zero.
    const Tensor in = g.get(x), zero = eq(in, 0);
    if (grad_enabled() && any(zero).item())
      return g.set(0, mul(expand(reshape(g.grad, kept), in.shape()), products_of_others(in, dims)));
    const Tensor ones = Tensor::ones({}, in.dtype(), in.device());
    const Tensor zeros = sum(to(zero, DType::kInt64), dims, true), rest = where(zero, ones, in);
    const Tensor product = reshape(prod(rest, dims, true), kept),
                 others = div(expand(product, in.shape()), rest);
    const Tensor counts = expand(reshape(zeros, kept), in.shape());
    const Tensor seen = logical_or(eq(counts, 0), logical_and(eq(counts, 1), zero));
    g.set(0, mul(expand(reshape(g.grad, kept), in.shape()), mul(others, to(seen, in.dtype()))));
  });
}

Tensor mean(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  if (const amp::Cast c("mean", {&x}); c) return mean(c[0], dims, keepdim);
  check_floating("mean", x);
  return mul(sum(x, dims, keepdim), 1 / count_of("mean", x, dims));
}

Tensor amax(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  return extreme("amax", ReduceOp::kMax, x, dims, keepdim);
}
Tensor amin(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  return extreme("amin", ReduceOp::kMin, x, dims, keepdim);
}

Tensor var(const Tensor& x, const std::vector<int>& dims, double correction, bool keepdim) {
  if (const amp::Cast c("var", {&x}); c) return var(c[0], dims, correction, keepdim);
  check_floating("var", x);
  const double count = count_of("var", x, dims);
  const Tensor centered = sub(x, mean(x, dims, true));
  return mul(sum(square(centered), dims, keepdim), 1 / std::max(0.0, count - correction));
}

Tensor std(const Tensor& x, const std::vector<int>& dims, double correction, bool keepdim) {
  if (const amp::Cast c("std", {&x}); c) return std(c[0], dims, correction, keepdim);
  check_floating("std", x);
  count_of("std", x, dims);  // it names the op of a wrong dimension
  return sqrt(var(x, dims, correction, keepdim));
}

Tensor norm(const Tensor& x, double p, const std::vector<int>& dims, bool keepdim) {
  if (const amp::Cast c("norm", {&x}); c) return norm(c[0], p, dims, keepdim);
  check_floating("norm", x);
  TRIREME_CHECK(p > 0, "norm: p {} must be positive", p);
  if (std::isinf(p)) return amax(abs(x), dims, keepdim);
  if (p == 1) return sum(abs(x), dims, keepdim);
  if (p == 2) return sqrt(sum(square(x), dims, keepdim));
  return pow(sum(pow(abs(x), p), dims, keepdim), 1 / p);
}

Tensor logsumexp(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  if (const amp::Cast c("logsumexp", {&x}); c) return logsumexp(c[0], dims, keepdim);
  check_floating("logsumexp", x);
  kept_shape("logsumexp", x, dims);  // for its errors
  const Tensor largest = amax(x.detach(), dims, true);
  const Tensor shift = where(isfinite(largest), largest, Tensor::zeros({}, x.dtype(), x.device()));
  const Tensor y = add(log(sum(exp(sub(x, shift)), dims, true)), shift);
  return keepdim ? y : reshape(y, dropped_shape(x, dims));
}

Tensor any(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  return truth("any", ReduceOp::kAny, x, dims, keepdim);
}
Tensor all(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  return truth("all", ReduceOp::kAll, x, dims, keepdim);
}

Tensor argmax(const Tensor& x, int dim, bool keepdim) {
  return arg_extreme("argmax", ReduceOp::kMax, x, dim, keepdim);
}
Tensor argmin(const Tensor& x, int dim, bool keepdim) {
  return arg_extreme("argmin", ReduceOp::kMin, x, dim, keepdim);
}

Tensor cumsum(const Tensor& x, int dim) {
  if (const amp::Cast c("cumsum", {&x}); c) return cumsum(c[0], dim);
  const Rows rows("cumsum", x, dim);
  const Tensor sums =
      Tensor::empty(rows.moved.shape(), is_floating(x.dtype()) ? x.dtype() : DType::kInt64, x.device());
  kernels(x).cumsum(sums.alias({rows.count, rows.width}, {rows.width, 1}, 0).view(), rows.view());
  const Tensor out = x.dim() > 0 ? transpose(sums, rows.d, -1).row_major().detach() : sums;
  return record("cumsum", out, {&x}, [dim](Backward& g) {
    // Everything from here on: the total less what came before.
    const Tensor total = sum(g.grad, {dim}, true);
    g.set(0, add(sub(total, cumsum(g.grad, dim)), g.grad));
  });
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  check_defined("sum_to", x);
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
