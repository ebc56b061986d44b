#include <algorithm>
#include <cmath>

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/operands.h"
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
    const Tensor best = reshape(g.get(y).detach(), kept);
    const auto shared = [&](const Tensor& grad, const Tensor& in) {  // equal ones share, as in PyTorch
      const Tensor hits = to(eq(in.detach(), best), in.dtype());
      const Tensor share = div(reshape(grad, kept), reduce_kernel(ReduceOp::kSum, hits, kept, kept));
      return mul(expand(share, in.shape()), hits);
    };
    g.set(0, in_full(shared, g.grad, g.get(x)));
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

namespace {

/// Returns the gradient of the product of x along `dims`: g times the product of all other elements.
Tensor prod_slope(const Tensor& g, const Tensor& x, const std::vector<int>& dims, const Shape& kept) {
  const Tensor zero = eq(x, 0), above = expand(reshape(g, kept), x.shape());
  if (grad_enabled() && any(zero).item()) return mul(above, products_of_others(x, dims));
  const Tensor one = Tensor::ones({}, x.dtype(), x.device()), none = Tensor::zeros({}, x.dtype(), x.device());
  // With the only zero left out, or zero.
  const Tensor zeros = sum(to(zero, DType::kInt64), dims, true), rest = where(zero, one, x);
  const Tensor others = div(expand(reshape(prod(rest, dims, true), kept), x.shape()), rest);
  const Tensor counts = expand(reshape(zeros, kept), x.shape());
  const Tensor seen = logical_or(eq(counts, 0), logical_and(eq(counts, 1), zero));
  const Tensor slope = mul(above, where(seen, others, none));
  // PyTorch does the same: for a product of all elements, it first looks for a second zero.
  return dims.empty() ? where(gt(counts, 1), none, slope) : slope;
}

}  // namespace

Tensor prod(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  if (const amp::Cast c("prod", {&x}); c) return prod(c[0], dims, keepdim);
  check_defined("prod", x);
  const Shape kept = kept_shape("prod", x, dims);
  const Tensor y = reduce_kernel(ReduceOp::kProd, x, kept, keepdim ? kept : dropped_shape(x, dims));
  return record("prod", y, {&x}, [x = Saved(x), kept, dims](Backward& g) {
    g.set(0, in_full([&](const Tensor& grad, const Tensor& in) { return prod_slope(grad, in, dims, kept); },
                     g.grad, g.get(x)));
  });
}

Tensor mean(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  if (const amp::Cast c("mean", {&x}); c) return mean(c[0], dims, keepdim);
  check_floating("mean", x);
  const Shape kept = kept_shape("mean", x, dims);
  const double count = count_of("mean", x, dims);
  return record("mean", reduce_kernel(ReduceOp::kMean, x, kept, keepdim ? kept : dropped_shape(x, dims)),
                {&x}, [kept, count, shape = x.shape()](Backward& g) {
                  g.set(0, expand(reshape(div(g.grad, count), kept), shape));
                });
}

Tensor amax(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  return extreme("amax", ReduceOp::kMax, x, dims, keepdim);
}
Tensor amin(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  return extreme("amin", ReduceOp::kMin, x, dims, keepdim);
}

namespace {

// var() and std() compute in float64, which holds the square of every finite float32 number: none overflows,
// and none but that of 0 becomes 0.

/// Returns x minus its mean along `dims`. The rounded mean leaves a small mean, which is subtracted, too.
Tensor centered(const Tensor& x, const std::vector<int>& dims) {
  const Tensor from = sub(x, mean(x, dims, true));
  return sub(from, mean(from, dims, true));
}

/// Returns the variance of x along `dims`, kept as dimensions of size 1. Degrees of freedom below 0 count as
/// 0 in the value, but not in the gradient, as in PyTorch.
Tensor kept_var(const Tensor& x, const std::vector<int>& dims, double degrees) {
  Tensor value;
  {
    const NoGrad unrecorded;
    value = div(sum(square(centered(x, dims)), dims, true), std::max(0.0, degrees));
  }
  return record("var", value, {&x}, [x = Saved(x), dims, degrees](Backward& g) {
    g.set(0, mul(div(mul(g.grad, 2), degrees), centered(g.get(x), dims)));
  });
}

/// Returns the number that a sum of squares is divided by.
double degrees_of_freedom(const char* op, const Tensor& x, const std::vector<int>& dims, double correction) {
  return count_of(op, x, dims) - correction;
}

Tensor with_dims(const Tensor& kept, const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  return keepdim ? kept : reshape(kept, dropped_shape(x, dims));
}

/// Returns the square root of a variance. Its gradient at 0 is 0, as PyTorch's std has it, not infinite.
Tensor deviation_of(const char* name, const Tensor& variance) {
  Tensor y;
  {
    const NoGrad unrecorded;
    y = sqrt(variance);
  }
  return record(name, y, {&variance}, [y = Saved::output(y)](Backward& g) {
    const Tensor root = g.get(y), none = Tensor::zeros({}, root.dtype(), root.device());
    g.set(0, where(eq(root, 0), none, div(g.grad, mul(root, 2))));
  });
}

}  // namespace

Tensor var(const Tensor& x, const std::vector<int>& dims, double correction, bool keepdim) {
  if (const amp::Cast c("var", {&x}); c) return var(c[0], dims, correction, keepdim);
  check_floating("var", x);
  const double degrees = degrees_of_freedom("var", x, dims, correction);
  return with_dims(to(kept_var(to(x, DType::kFloat64), dims, degrees), x.dtype()), x, dims, keepdim);
}

Tensor std(const Tensor& x, const std::vector<int>& dims, double correction, bool keepdim) {
  if (const amp::Cast c("std", {&x}); c) return std(c[0], dims, correction, keepdim);
  check_floating("std", x);
  const double degrees = degrees_of_freedom("std", x, dims, correction);
  const Tensor deviation = deviation_of("std", kept_var(to(x, DType::kFloat64), dims, degrees));
  return with_dims(to(deviation, x.dtype()), x, dims, keepdim);
}

Tensor logsumexp(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  if (const amp::Cast c("logsumexp", {&x}); c) return logsumexp(c[0], dims, keepdim);
  check_floating("logsumexp", x);
  kept_shape("logsumexp", x, dims);                       // for its errors
  if (x.numel() == 0) return log(sum(x, dims, keepdim));  // The logarithm of an empty sum is -infinity.
  const auto value = [&](const Tensor& t) {
    const Tensor largest = amax(t.detach(), dims, true);
    const Tensor shift = where(isfinite(largest), largest, Tensor::zeros({}, t.dtype(), t.device()));
    // In float64, where a sum just above 1 has a logarithm that float32 would round away.
    const Tensor total = sum(to(exp(sub(t, shift)), DType::kFloat64), dims, true);
    return to(add(log(total), shift), t.dtype());
  };
  return with_dims(in_full(value, x), x, dims, keepdim);
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
    // The sum of everything from here on. The total less what came before would cancel digits and infinities.
    g.set(0, flip(cumsum(flip(g.grad, {dim}), dim), {dim}));
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
