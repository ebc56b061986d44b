// Ops that cut, repeat, turn and pad.
#include <algorithm>

#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

Tensor select(const Tensor& x, int dim, std::int64_t index) {
  check_defined("select", x);
  TRIREME_CHECK(x.dim() > 0, "select: needs at least one dimension, got shape ()");
  dim = wrap_dim(dim, x.dim(), "select");
  const std::int64_t size = x.shape()[dim], at = index < 0 ? index + size : index;
  TRIREME_CHECK(at >= 0 && at < size, "select: index {} is outside dimension {} of shape {}", index, dim,
                x.shape().to_string());
  return strided_view("select", x, [&](const Shape& strides) {
    Part part{x.shape(), strides, at * strides[dim]};
    part.shape.erase(dim);
    part.strides.erase(dim);
    return part;
  });
}

Tensor stack(const std::vector<Tensor>& parts, int dim) {
  TRIREME_CHECK(!parts.empty(), "stack: no tensors");
  std::vector<Tensor> wide;
  for (const Tensor& part : parts) {
    check_defined("stack", part);
    TRIREME_CHECK(part.shape() == parts[0].shape(), "stack: shapes {} and {} differ",
                  parts[0].shape().to_string(), part.shape().to_string());
    wide.push_back(unsqueeze(part, wrap_dim(dim, part.dim() + 1, "stack")));
  }
  return cat(wide, dim < 0 ? dim + parts[0].dim() + 1 : dim);
}

std::vector<Tensor> split(const Tensor& x, const std::vector<std::int64_t>& sizes, int dim) {
  check_defined("split", x);
  TRIREME_CHECK(x.dim() > 0, "split: needs at least one dimension, got shape ()");
  dim = wrap_dim(dim, x.dim(), "split");
  std::int64_t total = 0;
  std::vector<Tensor> parts;
  for (const std::int64_t size : sizes) {
    TRIREME_CHECK(size >= 0 && size <= x.shape()[dim] - total,
                  "split: sizes do not add up to {}, the size of dimension {} of shape {}", x.shape()[dim],
                  dim, x.shape().to_string());
    parts.push_back(narrow(x, dim, total, size));
    total += size;
  }
  TRIREME_CHECK(total == x.shape()[dim],
                "split: sizes add up to {}, not to {}, the size of dimension {} of shape {}", total,
                x.shape()[dim], dim, x.shape().to_string());
  return parts;
}

std::vector<Tensor> split(const Tensor& x, std::int64_t size, int dim) {
  check_defined("split", x);
  TRIREME_CHECK(x.dim() > 0 && size > 0,
                "split: parts of size {} of shape {}; needs a size of at least 1 and a dimension", size,
                x.shape().to_string());
  std::vector<std::int64_t> sizes;
  const std::int64_t whole = x.size(dim);
  for (std::int64_t at = 0; at < whole; at += size) sizes.push_back(std::min(size, whole - at));
  if (whole == 0) sizes.push_back(0);
  return split(x, sizes, dim);
}

std::vector<Tensor> chunk(const Tensor& x, std::int64_t count, int dim) {
  check_defined("chunk", x);
  TRIREME_CHECK(x.dim() > 0 && count > 0,
                "chunk: {} parts of shape {}; needs at least 1 part and a dimension", count,
                x.shape().to_string());
  return split(x, std::max<std::int64_t>(1, x.size(dim) / count + (x.size(dim) % count != 0)), dim);
}

namespace {

/// Returns x, seen as `shape`, with dimension `dim` repeated: (before, times, size, after).
Tensor repeated_along(const Tensor& x, const Shape& shape, int dim, std::int64_t times) {
  std::int64_t before = 1, after = 1;
  for (int d = 0; d < dim; ++d) before *= shape[d];
  for (int d = dim + 1; d < shape.size(); ++d) after *= shape[d];
  const Shape wide{before, times, shape[dim], after};
  check_size("repeat", wide);
  return expand(reshape(x, {before, 1, shape[dim], after}), wide);
}

}  // namespace

Tensor repeat(const Tensor& x, const Shape& times) {
  check_defined("repeat", x);
  TRIREME_CHECK(times.size() >= x.dim(), "repeat: {} numbers for shape {}; needs one for each dimension",
                times.size(), x.shape().to_string());
  const int shift = times.size() - x.dim();
  Shape shape = Shape::filled(times.size(), 1), split_shape, wide;
  for (int d = shift; d < times.size(); ++d) shape[d] = x.shape()[d - shift];
  if (2 * times.size() > kMaxDims) {  // one dimension after the other
    Tensor y = x;
    for (int d = 0; d < times.size(); ++d) {
      TRIREME_CHECK(times[d] >= 0, "repeat: {} times", times[d]);
      if (times[d] == 1) continue;
      y = repeated_along(y, shape, d, times[d]);
      shape[d] *= times[d];
    }
    return reshape(y, shape);
  }
  // Each dimension becomes (times, size): expanded, then merged.
  for (int d = 0; d < times.size(); ++d) {
    TRIREME_CHECK(times[d] >= 0, "repeat: {} times", times[d]);
    split_shape.push_back(1);
    split_shape.push_back(shape[d]);
    wide.push_back(times[d]);
    wide.push_back(shape[d]);
  }
  check_size("repeat", wide);
  for (int d = 0; d < times.size(); ++d) shape[d] *= times[d];
  return reshape(expand(reshape(x, split_shape), wide), shape);
}

Tensor flip(const Tensor& x, const std::vector<int>& dims) {
  check_defined("flip", x);
  const Tensor out = Tensor::empty(x.shape(), x.dtype(), x.device());
  // A tensor has no negative strides, but the view that a kernel gets may have them and begin at the last
  // element.
  View backwards = x.view();
  std::int64_t last = 0;
  for (const int dim : dims) {
    const int d = wrap_dim(dim, x.dim(), "flip");
    if (x.dim() == 0) continue;
    last += (x.shape()[d] - 1) * backwards.strides[d];
    backwards.strides[d] = -backwards.strides[d];
  }
  if (x.numel() > 0) {
    backwards.data = static_cast<std::byte*>(backwards.data) + last * size_of(x.dtype());
    kernels(x).copy(out.view(), backwards);
  }
  return record("flip", out, {&x}, [dims](Backward& g) { g.set(0, flip(g.grad, dims)); });
}

Tensor roll(const Tensor& x, std::int64_t shift, int dim) {
  check_defined("roll", x);
  if (x.dim() == 0 || x.size(dim) == 0) return x;
  const std::int64_t size = x.size(dim), by = (shift % size + size) % size;
  if (by == 0) return x;
  return cat({narrow(x, dim, size - by, by), narrow(x, dim, 0, size - by)}, dim);
}

Tensor pad(const Tensor& x, const std::vector<std::int64_t>& sizes, Scalar value) {
  check_defined("pad", x);
  TRIREME_CHECK(sizes.size() % 2 == 0 && static_cast<int>(sizes.size()) <= 2 * x.dim(),
                "pad: {} numbers for shape {}; needs two for each of the last dimensions", sizes.size(),
                x.shape().to_string());
  Tensor kept = x;  // negative sizes cut off
  Shape shape = x.shape();
  std::vector<std::pair<int, std::int64_t>> before;
  for (std::size_t i = 0; i < sizes.size() / 2; ++i) {
    const int d = x.dim() - 1 - static_cast<int>(i);
    const std::int64_t low = sizes[2 * i], high = sizes[2 * i + 1];
    check_range("pad", {low, high});
    shape[d] += low + high;
    TRIREME_CHECK(shape[d] >= 0, "pad: nothing is left of dimension {} of shape {}", d,
                  x.shape().to_string());
    const std::int64_t first = std::max<std::int64_t>(0, -low),
                       last = x.shape()[d] - std::max<std::int64_t>(0, -high);
    kept = narrow(kept, d, std::min(first, last), std::max<std::int64_t>(0, last - first));
    before.emplace_back(d, std::max<std::int64_t>(0, low));
  }
  const Tensor out = Tensor::full(shape, value, x.dtype(), x.device());
  Tensor hole = out;
  for (const auto& [d, first] : before) hole = narrow(hole, d, first, kept.shape()[d]);
  copy_into(hole, kept);
  return record("pad", out.detach(), {&kept}, [before, inner = kept.shape()](Backward& g) {
    Tensor part = g.grad;
    for (const auto& [d, first] : before) part = narrow(part, d, first, inner[d]);
    g.set(0, part);
  });
}

Tensor unfold(const Tensor& x, int dim, std::int64_t size, std::int64_t step) {
  check_defined("unfold", x);
  TRIREME_CHECK(x.dim() > 0, "unfold: needs at least one dimension, got shape ()");
  dim = wrap_dim(dim, x.dim(), "unfold");
  TRIREME_CHECK(
      size >= 0 && size <= x.shape()[dim] && step > 0,
      "unfold: windows of {}, step {}, in dimension {} of shape {}; a window must fit in, the step be "
      "positive",
      size, step, dim, x.shape().to_string());
  const auto windows = [&](const Shape& strides) {
    Part part{x.shape(), strides};
    part.shape[dim] = (x.shape()[dim] - size) / step + 1;
    if (part.shape[dim] > 1) part.strides[dim] *= step;
    part.shape.push_back(size);
    part.strides.push_back(strides[dim]);
    return part;
  };
  if (step >= size) return strided_view("unfold", x, windows);
  const Part part = windows(x.strides());
  return make_view(
      "unfold", x, part.shape, part.strides, x.offset(), [dim, size, step, whole = x.shape()](Backward& g) {
        // Windows overlap: place the k-th elements of all windows, one k after the other.
        Tensor total = Tensor::zeros(whole, g.grad.dtype(), g.grad.device());
        const std::int64_t count = g.grad.shape()[dim] * step;
        for (std::int64_t k = 0; k < size; ++k)
          total = index_add(total, dim, arange(k, k + count, step, DType::kInt64, g.grad.device()),
                            select(g.grad, -1, k));
        g.set(0, total);
      });
}

namespace {

/// Elements whose column minus row compares with `diagonal`.
Tensor triangle(const char* name, const Tensor& x, std::int64_t diagonal, bool upper) {
  check_defined(name, x);
  TRIREME_CHECK(x.dim() >= 2, "{}: needs at least two dimensions, got shape {}", name, x.shape().to_string());
  const auto line = [&](int d) { return arange(0, x.size(d), 1, DType::kInt64, x.device()); };
  const Tensor offset = sub(line(-1), unsqueeze(line(-2), 1));
  return where(upper ? ge(offset, diagonal) : le(offset, diagonal), x,
               Tensor::zeros({}, x.dtype(), x.device()));
}

}  // namespace

Tensor tril(const Tensor& x, std::int64_t diagonal) { return triangle("tril", x, diagonal, false); }
Tensor triu(const Tensor& x, std::int64_t diagonal) { return triangle("triu", x, diagonal, true); }

Tensor diagonal(const Tensor& x, std::int64_t offset, int a, int b) {
  check_defined("diagonal", x);
  TRIREME_CHECK(x.dim() >= 2, "diagonal: needs at least two dimensions, got shape {}", x.shape().to_string());
  a = wrap_dim(a, x.dim(), "diagonal");
  b = wrap_dim(b, x.dim(), "diagonal");
  check_range("diagonal", {offset});
  TRIREME_CHECK(a != b, "diagonal: dimension {} is named twice", a);
  const std::int64_t down = std::max<std::int64_t>(0, -offset), right = std::max<std::int64_t>(0, offset);
  const std::int64_t length = std::max<std::int64_t>(0, std::min(x.shape()[a] - down, x.shape()[b] - right));
  return strided_view("diagonal", x, [&](const Shape& strides) {
    Part part{{}, {}, length ? down * strides[a] + right * strides[b] : 0};
    for (int d = 0; d < x.dim(); ++d) {
      if (d == a || d == b) continue;
      part.shape.push_back(x.shape()[d]);
      part.strides.push_back(strides[d]);
    }
    part.shape.push_back(length);
    part.strides.push_back(strides[a] + strides[b]);
    return part;
  });
}

Tensor outer(const Tensor& a, const Tensor& b) {
  check_dims("outer", "a", a, 1);
  check_dims("outer", "b", b, 1);
  check_number("outer", a);
  return mul(unsqueeze(a, 1), b);
}

}  // namespace trireme
