#include "core/tensor/shape.h"

#include <algorithm>

namespace trireme {

Shape::Shape(std::span<const std::int64_t> sizes) : dims_(static_cast<std::int32_t>(sizes.size())) {
  TRIREME_CHECK(sizes.size() <= kMaxDims, "shape: {} dimensions, at most {} are supported", sizes.size(),
                kMaxDims);
  std::copy(sizes.begin(), sizes.end(), values_);
}

Shape Shape::filled(int dims, std::int64_t value) {
  Shape shape;
  for (int d = 0; d < dims; ++d) shape.push_back(value);
  return shape;
}

void Shape::push_back(std::int64_t value) { insert(dims_, value); }

void Shape::erase(int i) {
  std::copy(values_ + i + 1, values_ + dims_, values_ + i);
  --dims_;
}

void Shape::insert(int i, std::int64_t value) {
  TRIREME_CHECK(dims_ < kMaxDims, "shape: more than {} dimensions", kMaxDims);
  std::copy_backward(values_ + i, values_ + dims_, values_ + dims_ + 1);
  values_[i] = value;
  ++dims_;
}

std::int64_t Shape::numel() const {
  std::int64_t n = 1;
  for (std::int64_t size : *this) n *= size;
  return n;
}

std::string Shape::to_string() const {
  std::string text = "(";
  for (int d = 0; d < dims_; ++d) text += (d ? ", " : "") + std::to_string(values_[d]);
  return text + ")";
}

void check_size(const char* op, const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    TRIREME_CHECK(size >= 0, "{}: negative size in shape {}", op, shape.to_string());
    TRIREME_CHECK(
        !__builtin_mul_overflow(count, std::max<std::int64_t>(size, 1), &count) && count <= kMaxNumel,
        "{}: shape {} has too many elements", op, shape.to_string());
  }
}

Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  std::int64_t step = 1;
  for (int d = shape.size() - 1; d >= 0; --d) {
    strides[d] = step;
    step *= std::max<std::int64_t>(shape[d], 1);
  }
  return strides;
}

Shape channels_last_strides(const Shape& shape) {
  TRIREME_CHECK(shape.size() == 4, "channels_last: needs (N,C,H,W), got {}", shape.to_string());
  const std::int64_t c = shape[1], h = shape[2], w = shape[3];
  return {h * w * c, 1, w * c, c};
}

bool can_broadcast(const Shape& a, const Shape& b) {
  for (int back = 1; back <= std::min(a.size(), b.size()); ++back) {
    const std::int64_t sa = a[a.size() - back], sb = b[b.size() - back];
    if (sa != sb && sa != 1 && sb != 1) return false;
  }
  return true;
}

Shape broadcast_shapes(const Shape& a, const Shape& b, const char* op) {
  if (a == b) return a;
  const int dims = std::max(a.size(), b.size());
  Shape out = Shape::filled(dims, 1);
  for (int d = 0; d < dims; ++d) {
    const int ia = d - (dims - a.size()), ib = d - (dims - b.size());
    const std::int64_t sa = ia < 0 ? 1 : a[ia], sb = ib < 0 ? 1 : b[ib];
    TRIREME_CHECK(sa == sb || sa == 1 || sb == 1,
                  "{}: shapes {} and {} do not broadcast: sizes {} and {} meet in dimension {}; sizes must "
                  "be equal or 1",
                  op, a.to_string(), b.to_string(), sa, sb, d);
    out[d] = sa == 1 ? sb : sa;
  }
  check_size(op, out);
  return out;
}

int wrap_dim(int dim, int dims, const char* op) {
  const int reach = std::max(dims, 1);
  TRIREME_CHECK(dim >= -reach && dim < reach,
                "{}: dimension {} is out of range for {} dimensions, allowed {} to {}", op, dim, dims, -reach,
                reach - 1);
  return dim < 0 ? dim + reach : dim;
}

}  // namespace trireme
