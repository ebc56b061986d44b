// Ops that pick or place elements by index. All are gather or scatter along one dimension.
#include <algorithm>

#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/operands.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// An index into x.
void check_index(const char* op, const Tensor& x, const Tensor& index, std::int64_t first,
                 std::int64_t size) {
  check_defined(op, {&x, &index});
  TRIREME_CHECK(x.device() == index.device(), "{}: devices {} and {} differ", op, name_of(x.device()),
                name_of(index.device()));
  TRIREME_CHECK(index.dtype() == DType::kInt64, "{}: an index must be int64, got {}", op,
                name_of(index.dtype()));
  if (index.numel() == 0) return;
  const Tensor known = index.impl()->storage->host_copy ? host_values(index) : index;
  const std::int64_t low = amin(known).value<std::int64_t>(), high = amax(known).value<std::int64_t>();
  TRIREME_CHECK(low >= first && high < size, "{}: index {} is outside {}..{}", op, low < first ? low : high,
                first, size - 1);
}

/// Returns x, or a view of shape (1) if x has no dimensions.
Tensor as_row(const Tensor& x) { return x.dim() == 0 ? reshape(x, {1}) : x; }

/// Returns true if x and index have at most one dimension each, and at least one of them has none.
bool is_without_dims(const Tensor& x, const Tensor& index) {
  return x.dim() <= 1 && index.dim() <= 1 && x.dim() + index.dim() < 2;
}

/// A tensor as (before, along, after) dimension `dim`, dense.
struct Around {
  Around(const Tensor& t, int dim) : dense(t.detach().row_major()) {
    for (int d = 0; d < t.dim(); ++d) (d < dim ? before : d > dim ? after : along) *= t.shape()[d];
  }
  View view() const {
    return dense.alias({before, along, after}, {along * after, after, 1}, dense.offset()).view();
  }
  Tensor dense;
  std::int64_t before = 1, along = 1, after = 1;
};

/// A one-dimensional index as it lies along the middle of (before, along, after).
View spread(const Tensor& index, const Around& like) {
  return index.alias({like.before, index.numel(), like.after}, {0, 1, 0}, index.offset()).view();
}

/// Shapes of x and index must agree outside `dim`; index may be smaller.
int check_alike(const char* op, const Tensor& x, int dim, const Tensor& index) {
  check_defined(op, {&x, &index});
  TRIREME_CHECK(x.dim() > 0 && index.dim() == x.dim(),
                "{}: index {} must have as many dimensions as x {}, at least 1", op,
                index.shape().to_string(), x.shape().to_string());
  dim = wrap_dim(dim, x.dim(), op);
  for (int d = 0; d < x.dim(); ++d)
    TRIREME_CHECK(d == dim || index.shape()[d] <= x.shape()[d],
                  "{}: index {} is larger than x {} in dimension {}", op, index.shape().to_string(),
                  x.shape().to_string(), d);
  check_index(op, x, index, 0, x.shape()[dim]);
  return dim;
}

/// x cut to `shape` outside `dim`, or everywhere where that is -1: a view.
Tensor cut(const Tensor& x, int dim, const Shape& shape) {
  Tensor part = x;
  for (int d = 0; d < x.dim(); ++d)
    if (d != dim && x.shape()[d] != shape[d]) part = narrow(part, d, 0, shape[d]);
  return part;
}

Tensor scattered(const char* name, ScatterOp op, const Tensor& x, int dim, const Tensor& index,
                 const Tensor& whole_src) {
  check_defined(name, {&x, &index, &whole_src});
  if (is_without_dims(x, index) && whole_src.dim() <= 1)
    return reshape(scattered(name, op, as_row(x), dim, as_row(index), as_row(whole_src)), x.shape());
  dim = check_alike(name, x, dim, index);
  check_same_kind(name, {&x, &whole_src});
  bool fits = whole_src.dim() == index.dim();
  for (int d = 0; d < index.dim() && fits; ++d) fits = whole_src.shape()[d] >= index.shape()[d];
  TRIREME_CHECK(fits, "{}: src {} is smaller than index {}", name, whole_src.shape().to_string(),
                index.shape().to_string());
  const Tensor src = cut(whole_src, -1, index.shape());
  const Tensor out = x.row_major().is_same(x) ? x.detach().clone() : x.row_major().detach();
  const Tensor target = cut(out, dim, index.shape()).detach();
  const Around values(src, dim), where(index, dim);
  if (target.is_contiguous()) {
    const Around whole(target, dim);
    kernels(x).scatter(op, whole.view(), where.view(), values.view());
  } else {
    const Tensor part = target.clone().row_major();
    kernels(x).scatter(op, Around(part, dim).view(), where.view(), values.view());
    copy_into(target, part);
  }
  return record(name, out, {&x, &src}, [op, dim, index = Saved(index)](Backward& g) {
    const Tensor at = g.get(index);
    if (g.needs(0))
      g.set(0, op == ScatterOp::kAdd
                   ? g.grad
                   : scatter(g.grad, dim, at, Tensor::zeros(at.shape(), g.grad.dtype(), g.grad.device())));
    if (g.needs(1)) g.set(1, gather(cut(g.grad, dim, at.shape()), dim, at));
  });
}

}  // namespace

Tensor gather(const Tensor& x, int dim, const Tensor& index) {
  check_defined("gather", {&x, &index});
  if (is_without_dims(x, index)) return reshape(gather(as_row(x), dim, as_row(index)), index.shape());
  dim = check_alike("gather", x, dim, index);
  const Tensor out = Tensor::empty(index.shape(), x.dtype(), x.device());
  const Around from(cut(x.detach(), dim, index.shape()), dim), where(index, dim), to(out, dim);
  kernels(x).gather(to.view(), from.view(), where.view());
  return record("gather", out, {&x}, [dim, index = Saved(index), shape = x.shape()](Backward& g) {
    g.set(0, scatter_add(Tensor::zeros(shape, g.grad.dtype(), g.grad.device()), dim, g.get(index), g.grad));
  });
}

Tensor scatter(const Tensor& x, int dim, const Tensor& index, const Tensor& src) {
  return scattered("scatter", ScatterOp::kSet, x, dim, index, src);
}

Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src) {
  if (x.defined() && src.defined() && is_low_precision(x.dtype()) && x.dtype() == src.dtype())
    return in_full([&](const Tensor& t, const Tensor& s) { return scatter_add(t, dim, index, s); }, x, src);
  return scattered("scatter_add", ScatterOp::kAdd, x, dim, index, src);
}

Tensor index_select(const Tensor& x, int dim, const Tensor& index) {
  check_defined("index_select", {&x, &index});
  if (index.dim() == 0) return index_select(x, dim, as_row(index));
  if (x.dim() == 0 && index.numel() == 1) return reshape(index_select(as_row(x), dim, index), {});
  TRIREME_CHECK(x.dim() > 0 && index.dim() == 1, "index_select: x {} needs dimensions, index {} exactly one",
                x.shape().to_string(), index.shape().to_string());
  dim = wrap_dim(dim, x.dim(), "index_select");
  check_index("index_select", x, index, 0, x.shape()[dim]);
  Shape shape = x.shape();
  shape[dim] = index.numel();
  const Tensor out = Tensor::empty(shape, x.dtype(), x.device()), picks = index.row_major();
  const Around from(x, dim), to(out, dim);
  kernels(x).gather(to.view(), from.view(), spread(picks, to));
  return record("index_select", out, {&x}, [dim, index = Saved(picks), whole = x.shape()](Backward& g) {
    g.set(0, index_add(Tensor::zeros(whole, g.grad.dtype(), g.grad.device()), dim, g.get(index), g.grad));
  });
}

Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src) {
  check_same_kind("index_add", {&x, &src});
  if (is_low_precision(x.dtype()))
    return in_full([&](const Tensor& t, const Tensor& s) { return index_add(t, dim, index, s); }, x, src);
  check_number("index_add", x);
  check_defined("index_add", index);
  if (index.dim() == 0) return index_add(x, dim, as_row(index), src);
  TRIREME_CHECK(x.dim() > 0 && index.dim() == 1, "index_add: x {} needs dimensions, index {} exactly one",
                x.shape().to_string(), index.shape().to_string());
  dim = wrap_dim(dim, x.dim(), "index_add");
  check_index("index_add", x, index, 0, x.shape()[dim]);
  Shape shape = x.shape();
  shape[dim] = index.numel();
  TRIREME_CHECK(src.shape() == shape, "index_add: src {} must be {}", src.shape().to_string(),
                shape.to_string());
  const Tensor out = Tensor::empty(x.shape(), x.dtype(), x.device()), picks = index.row_major();
  copy_into(out, x);
  const Around to(out, dim), from(src, dim);
  kernels(x).scatter(ScatterOp::kAdd, to.view(), spread(picks, from), from.view());
  return record("index_add", out, {&x, &src}, [dim, index = Saved(picks)](Backward& g) {
    g.set(0, g.grad);
    if (g.needs(1)) g.set(1, index_select(g.grad, dim, g.get(index)));
  });
}

Tensor take_along_dim(const Tensor& x, const Tensor& index, int dim) {
  check_defined("take_along_dim", {&x, &index});
  TRIREME_CHECK(x.dim() > 0 && index.dim() == x.dim(),
                "take_along_dim: x {} and index {} need the same dimensions", x.shape().to_string(),
                index.shape().to_string());
  dim = wrap_dim(dim, x.dim(), "take_along_dim");
  Shape sx = x.shape(), si = index.shape();
  sx[dim] = si[dim] = 1;
  Shape common = broadcast_shapes(sx, si, "take_along_dim"), wide = common;
  common[dim] = x.shape()[dim];
  wide[dim] = index.shape()[dim];
  return gather(expand(x, common), dim, expand(index, wide));
}

Tensor embedding(const Tensor& weight, const Tensor& index, std::optional<std::int64_t> padding_index) {
  check_dims("embedding", "weight (rows, width)", weight, 2);
  check_defined("embedding", index);
  check_index("embedding", weight, index, 0, weight.size(0));
  Shape shape = index.shape();
  shape.push_back(weight.size(1));
  const Tensor flat = reshape(index, {index.numel()});
  const Tensor rows = index_select(weight, 0, flat);
  if (!padding_index) return reshape(rows, shape);
  const std::int64_t count = weight.size(0);
  TRIREME_CHECK(*padding_index >= -count && *padding_index < count,
                "embedding: padding_index {} is outside {}..{}, the rows of weight", *padding_index, -count,
                count - 1);
  const std::int64_t padding = *padding_index < 0 ? *padding_index + count : *padding_index;
  // The value stays, its gradient does not.
  return reshape(where(unsqueeze(eq(flat, padding), 1), rows.detach(), rows), shape);
}

namespace {

/// The indices with each mask (bool) replaced by the positions of true, one index for each of its dimensions.
std::vector<Tensor> without_masks(const char* op, const Tensor& x, const std::vector<Tensor>& indices) {
  std::vector<Tensor> found;
  for (const Tensor& index : indices) {
    check_defined(op, index);
    if (index.dtype() != DType::kBool) {
      found.push_back(index);
      continue;
    }
    const int first = static_cast<int>(found.size());
    bool fits = index.dim() > 0 && first + index.dim() <= x.dim();
    for (int d = 0; d < index.dim() && fits; ++d) fits = index.shape()[d] == x.shape()[first + d];
    TRIREME_CHECK(fits, "{}: a mask {} does not fit dimensions {}... of x {}", op, index.shape().to_string(),
                  first, x.shape().to_string());
    const Tensor positions = nonzero(index);
    for (int d = 0; d < index.dim(); ++d) found.push_back(select(positions, 1, d));
  }
  return found;
}

/// Positions in x's leading dimensions (one per index) as positions in their product; negative ones count
/// from the end. Broadcast.
Tensor linear_index(const char* op, const Tensor& x, const std::vector<Tensor>& indices) {
  TRIREME_CHECK(!indices.empty() && static_cast<int>(indices.size()) <= x.dim(), "{}: {} indices for x {}",
                op, indices.size(), x.shape().to_string());
  Tensor position;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const std::int64_t size = x.shape()[static_cast<int>(i)];
    check_index(op, x, indices[i], -size, size);
    const Tensor index = where(lt(indices[i], 0), add(indices[i], size), indices[i]);
    position = position.defined() ? add(mul(position, size), index) : index;
  }
  return position;
}

/// x with its first `count` dimensions as one.
Tensor merged(const Tensor& x, std::size_t count) {
  Shape shape{1};
  for (int d = 0; d < x.dim(); ++d)
    if (d < static_cast<int>(count))
      shape[0] *= x.shape()[d];
    else
      shape.push_back(x.shape()[d]);
  return reshape(x, shape);
}

}  // namespace

Tensor index(const Tensor& x, const std::vector<Tensor>& given) {
  check_defined("index", x);
  const std::vector<Tensor> indices = without_masks("index", x, given);
  const Tensor position = linear_index("index", x, indices);
  Shape shape = position.shape();
  for (int d = static_cast<int>(indices.size()); d < x.dim(); ++d) shape.push_back(x.shape()[d]);
  return reshape(index_select(merged(x, indices.size()), 0, reshape(position, {position.numel()})), shape);
}

Tensor index_put(const Tensor& x, const std::vector<Tensor>& given, const Tensor& values, bool accumulate) {
  check_same_kind("index_put", {&x, &values});
  const std::vector<Tensor> indices = without_masks("index_put", x, given);
  const Tensor position = linear_index("index_put", x, indices), rows = merged(x, indices.size());
  Shape shape = position.shape();
  for (int d = static_cast<int>(indices.size()); d < x.dim(); ++d) shape.push_back(x.shape()[d]);
  Shape flat = rows.shape();
  flat[0] = position.numel();
  const Tensor at = reshape(position, {position.numel()}), src = reshape(expand(values, shape), flat);
  if (accumulate) return reshape(index_add(rows, 0, at, src), x.shape());
  Shape column = Shape::filled(flat.size(), 1);
  column[0] = flat[0];
  return reshape(scatter(rows, 0, expand(reshape(at, column), flat), src), x.shape());
}

Tensor nonzero(const Tensor& x) {
  check_defined("nonzero", x);
  const Tensor mask = (x.dtype() == DType::kBool ? x.detach() : ne(x.detach(), 0)).row_major();
  const auto count = sum(mask).value<std::int64_t>();
  const Tensor flat = Tensor::empty({count}, DType::kInt64, x.device());
  kernels(x).nonzero(flat.view(), mask.alias({mask.numel()}, {1}, mask.offset()).view());
  std::vector<Tensor> columns;
  std::int64_t step = x.numel();
  for (int d = 0; d < x.dim(); ++d) {
    const auto size = static_cast<double>(x.shape()[d]);
    step = x.shape()[d] ? step / x.shape()[d] : 0;
    // floor(flat / step) mod size, exact in float64 for all that fits into memory
    const Tensor wide = to(flat, DType::kFloat64),
                 above = floor(div(wide, static_cast<double>(std::max<std::int64_t>(1, step))));
    columns.push_back(to(sub(above, mul(floor(div(above, size)), size)), DType::kInt64));
  }
  return columns.empty() ? Tensor::empty({count, 0}, DType::kInt64) : stack(columns, 1);
}

Tensor masked_select(const Tensor& x, const Tensor& mask) {
  check_defined("masked_select", {&x, &mask});
  TRIREME_CHECK(mask.dtype() == DType::kBool, "masked_select: the mask must be bool, got {}",
                name_of(mask.dtype()));
  const Shape shape = broadcast_shapes(x.shape(), mask.shape(), "masked_select");
  const Tensor flat = reshape(expand(mask, shape), {shape.numel()});
  return index_select(reshape(expand(x, shape), {shape.numel()}), 0, reshape(nonzero(flat), {-1}));
}

Tensor argsort(const Tensor& x, int dim, bool descending) {
  check_defined("argsort", x);
  if (x.dim() == 0) return Tensor::zeros({}, DType::kInt64, x.device());
  dim = wrap_dim(dim, x.dim(), "argsort");
  const Tensor rows = transpose(x.detach(), dim, -1).row_major(),
               out = Tensor::empty(rows.shape(), DType::kInt64, x.device());
  const std::int64_t width = rows.size(-1), count = width ? rows.numel() / width : 0;
  const auto view = [&](const Tensor& t) { return t.alias({count, width}, {width, 1}, t.offset()).view(); };
  kernels(x).argsort(view(out), view(rows), descending);
  return transpose(out, dim, -1).row_major();
}

Found sort(const Tensor& x, int dim, bool descending) {
  check_defined("sort", x);
  const Tensor order = argsort(x, dim, descending);
  return {x.dim() == 0 ? x : gather(x, dim, order), order};
}

Found topk(const Tensor& x, std::int64_t k, int dim, bool largest) {
  check_defined("topk", x);
  if (x.dim() == 0 && k == 1) {
    const Tensor only = argsort(x, dim);
    return {gather(x, dim, only), only};
  }
  TRIREME_CHECK(x.dim() > 0 && k >= 0 && k <= x.size(dim),
                "topk: {} of dimension {} of x {}; needs 0 to the dimension's size", k, dim,
                x.shape().to_string());
  const Tensor order = narrow(argsort(x, dim, largest), dim, 0, k).row_major();
  return {gather(x, dim, order), order};
}

namespace {

Found found(const char* name, const Tensor& x, int dim, bool keepdim,
            Tensor (*arg)(const Tensor&, int, bool)) {
  check_defined(name, x);
  if (x.dim() == 0) return found(name, as_row(x), dim, false, arg);
  const Tensor at = arg(x, dim, true), values = gather(x, dim, at);
  return keepdim ? Found{values, at} : Found{squeeze(values, dim), squeeze(at, dim)};
}

}  // namespace

Found max(const Tensor& x, int dim, bool keepdim) { return found("max", x, dim, keepdim, argmax); }
Found min(const Tensor& x, int dim, bool keepdim) { return found("min", x, dim, keepdim, argmin); }

Tensor one_hot(const Tensor& index, std::int64_t classes) {
  check_defined("one_hot", index);
  TRIREME_CHECK(index.dtype() == DType::kInt64, "one_hot: the index must be int64, got {}",
                name_of(index.dtype()));
  if (classes < 0) {
    const std::int64_t last = index.numel() ? amax(index).value<std::int64_t>() : -1;
    check_range("one_hot", {last});
    classes = last + 1;
  }
  check_index("one_hot", index, index, 0, classes);
  return to(eq(unsqueeze(index, -1), arange(0, classes, 1, DType::kInt64, index.device())), DType::kInt64);
}

}  // namespace trireme
