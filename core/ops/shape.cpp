#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/operands.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// Strides of x seen as `shape` without moving elements; false if there are none.
bool view_strides(const Tensor& x, const Shape& shape, Shape& strides) {
  if (x.is_contiguous()) {
    strides = contiguous_strides(shape);
    return true;
  }
  Shape sizes, steps;  // of x without dimensions of size 1, whose strides mean nothing
  for (int i = 0; i < x.dim(); ++i) {
    if (x.shape()[i] == 1) continue;
    sizes.push_back(x.shape()[i]);
    steps.push_back(x.strides()[i]);
  }
  strides = shape;
  int d = shape.size() - 1;
  // Walk runs of dimensions of x that lie dense behind each other, and lay dimensions of `shape` into each
  // run.
  for (int last = sizes.size() - 1; last >= 0;) {
    int first = last;
    std::int64_t run = sizes[last];
    while (first > 0 && steps[first - 1] == steps[first] * sizes[first]) run *= sizes[--first];
    std::int64_t step = steps[last], filled = 1;
    for (; d >= 0 && (filled < run || shape[d] == 1); --d) {
      strides[d] = step;
      step *= shape[d];
      filled *= shape[d];
    }
    if (filled != run) return false;
    last = first - 1;
  }
  for (; d >= 0; --d) {
    if (shape[d] != 1) return false;
    strides[d] = 1;
  }
  return true;
}

}  // namespace

Tensor reshape(const Tensor& x, Shape shape) {
  check_defined("reshape", x);
  int unknown = -1;
  Shape known = shape;
  for (int d = 0; d < shape.size(); ++d) {
    if (shape[d] != -1) continue;
    TRIREME_CHECK(unknown < 0, "reshape: shape {} leaves more than one size open", shape.to_string());
    known[unknown = d] = 1;
  }
  check_size("reshape", known);
  if (unknown >= 0) {
    TRIREME_CHECK(known.numel() > 0 && x.numel() % known.numel() == 0,
                  "reshape: {} elements of shape {} do not fill shape {}", x.numel(), x.shape().to_string(),
                  shape.to_string());
    shape[unknown] = x.numel() / known.numel();
  }
  TRIREME_CHECK(shape.numel() == x.numel(), "reshape: shape {} has {} elements, shape {} has {}",
                x.shape().to_string(), x.numel(), shape.to_string(), shape.numel());
  if (shape == x.shape()) return x;
  const auto back = [before = x.shape()](Backward& g) { g.set(0, reshape(g.grad, before)); };
  Shape strides;
  if (view_strides(x, shape, strides)) return make_view("reshape", x, shape, strides, x.offset(), back);
  return record("reshape", x.row_major().alias(shape, contiguous_strides(shape), 0), {&x}, back);
}

Tensor flatten(const Tensor& x, int first, int last) {
  check_defined("flatten", x);
  first = wrap_dim(first, x.dim(), "flatten");
  last = wrap_dim(last, x.dim(), "flatten");
  TRIREME_CHECK(first <= last, "flatten: dimension {} comes after {}", first, last);
  Shape shape;
  for (int d = 0; d < first; ++d) shape.push_back(x.shape()[d]);
  std::int64_t merged = 1;
  for (int d = first; d <= last && d < x.dim(); ++d) merged *= x.shape()[d];
  shape.push_back(merged);
  for (int d = last + 1; d < x.dim(); ++d) shape.push_back(x.shape()[d]);
  return reshape(x, shape);
}

Tensor permute(const Tensor& x, const std::vector<int>& order) {
  check_defined("permute", x);
  TRIREME_CHECK(static_cast<int>(order.size()) == x.dim(), "permute: {} numbers for shape {}", order.size(),
                x.shape().to_string());
  Shape shape, strides;
  std::vector<int> back(order.size(), -1);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const int d = wrap_dim(order[i], x.dim(), "permute");
    TRIREME_CHECK(back[static_cast<std::size_t>(d)] < 0, "permute: dimension {} is named twice", d);
    back[static_cast<std::size_t>(d)] = static_cast<int>(i);
    shape.push_back(x.shape()[d]);
    strides.push_back(x.strides()[d]);
  }
  return make_view("permute", x, shape, strides, x.offset(),
                   [back](Backward& g) { g.set(0, permute(g.grad, back)); });
}

Tensor transpose(const Tensor& x, int a, int b) {
  check_defined("transpose", x);
  a = wrap_dim(a, x.dim(), "transpose");
  b = wrap_dim(b, x.dim(), "transpose");
  std::vector<int> order;
  for (int d = 0; d < x.dim(); ++d) order.push_back(d == a ? b : d == b ? a : d);
  return permute(x, order);
}

Tensor expand(const Tensor& x, const Shape& shape) {
  check_defined("expand", x);
  if (x.shape() == shape) return x;
  TRIREME_CHECK(broadcast_shapes(x.shape(), shape, "expand") == shape,
                "expand: shape {} does not expand to {}", x.shape().to_string(), shape.to_string());
  const View wide = broadcast_view(x, shape);
  return make_view("expand", x, shape, Shape(std::span(wide.strides, static_cast<std::size_t>(wide.dims))),
                   x.offset(), [before = x.shape()](Backward& g) { g.set(0, sum_to(g.grad, before)); });
}

Tensor narrow(const Tensor& x, int dim, std::int64_t first, std::int64_t count) {
  check_defined("narrow", x);
  TRIREME_CHECK(x.dim() > 0, "narrow: needs at least one dimension, got shape {}", x.shape().to_string());
  dim = wrap_dim(dim, x.dim(), "narrow");
  const std::int64_t size = x.size(dim), begin = first < 0 ? first + size : first;
  TRIREME_CHECK(begin >= 0 && count >= 0 && count <= size && begin <= size - count,
                "narrow: {} elements from {} on of dimension {} of shape {}; they must lie inside of it",
                count, first, dim, x.shape().to_string());
  return strided_view("narrow", x, [&](const Shape& strides) {
    Part part{x.shape(), strides, begin * strides[dim]};
    part.shape[dim] = count;
    return part;
  });
}

Tensor squeeze(const Tensor& x, int dim) {
  check_defined("squeeze", x);
  dim = wrap_dim(dim, x.dim(), "squeeze");
  if (x.dim() == 0 || x.shape()[dim] != 1) return x;
  Shape shape = x.shape();
  shape.erase(dim);
  return reshape(x, shape);
}

Tensor unsqueeze(const Tensor& x, int dim) {
  check_defined("unsqueeze", x);
  dim = wrap_dim(dim, x.dim() + 1, "unsqueeze");
  Shape shape = x.shape();
  shape.insert(dim, 1);
  return reshape(x, shape);
}

namespace {

/// By PyTorch's rule of promotion.
std::vector<Tensor> of_one_dtype(const char* op, const std::vector<Tensor>& tensors) {
  TRIREME_CHECK(!tensors.empty(), "{}: no tensors", op);
  check_defined(op, tensors[0]);
  DType common = tensors[0].dtype();
  for (const Tensor& t : tensors) {
    check_defined(op, t);
    common = promoted(common, t.dtype());
  }
  std::vector<Tensor> converted;
  for (const Tensor& t : tensors) converted.push_back(to(t, common));
  return converted;
}

}  // namespace

Tensor cat(const std::vector<Tensor>& tensors, int dim) {
  const std::vector<Tensor> all = of_one_dtype("cat", tensors);
  std::vector<Tensor> parts;
  for (const Tensor& part : all)
    if (part.shape() != Shape{0}) parts.push_back(part);
  if (parts.empty()) parts = all;
  dim = wrap_dim(dim, parts[0].dim(), "cat");
  Shape shape = parts[0].shape();
  TRIREME_CHECK(shape.size() > 0, "cat: tensors need at least one dimension");
  shape[dim] = 0;
  for (const Tensor& part : parts) {
    check_same_kind("cat", {&parts[0], &part});
    Shape rest = part.shape();
    const bool same_dims = rest.size() == shape.size();
    if (same_dims) {
      rest[dim] = shape[dim];
      shape[dim] += part.size(dim);
      rest[dim] = shape[dim];
    }
    TRIREME_CHECK(same_dims && rest == shape, "cat: shapes {} and {} differ outside dimension {}",
                  parts[0].shape().to_string(), part.shape().to_string(), dim);
  }
  const Tensor out = Tensor::empty(shape, parts[0].dtype(), parts[0].device());
  std::int64_t at = 0;
  for (const Tensor& part : parts) {
    copy_into(out.alias(part.shape(), out.strides(), at * out.strides()[dim]), part);
    at += part.size(dim);
  }
  std::vector<const Tensor*> inputs;
  for (const Tensor& part : parts) inputs.push_back(&part);
  std::vector<std::int64_t> sizes;
  for (const Tensor& part : parts) sizes.push_back(part.size(dim));
  return record("cat", out, std::span<const Tensor* const>(inputs), [dim, sizes](Backward& g) {
    std::int64_t first = 0;
    for (std::size_t i = 0; i < sizes.size(); first += sizes[i++])
      if (g.needs(static_cast<int>(i))) g.set(static_cast<int>(i), narrow(g.grad, dim, first, sizes[i]));
  });
}

Tensor contiguous(const Tensor& x) {
  check_defined("contiguous", x);
  if (x.is_contiguous()) return x;
  return record("contiguous", x.row_major(), {&x}, [](Backward& g) { g.set(0, g.grad); });
}

Tensor channels_last(const Tensor& x) {
  check_dims("channels_last", "x (N,C,H,W)", x, 4);
  if (x.is_channels_last()) return x;
  const Tensor out = Tensor::empty_channels_last(x.shape(), x.dtype(), x.device());
  copy_into(out, x);
  return record("channels_last", out, {&x}, [](Backward& g) { g.set(0, g.grad); });
}

}  // namespace trireme
