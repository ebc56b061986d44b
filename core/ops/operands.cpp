#include "core/ops/operands.h"

#include <cmath>

#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

int kind_of(DType dtype) { return dtype == DType::kBool ? 0 : is_floating(dtype) ? 2 : 1; }

}  // namespace

DType promoted(DType x, DType y) {
  if (x == y) return x;
  if (kind_of(x) != kind_of(y)) return kind_of(x) > kind_of(y) ? x : y;
  if (is_low_precision(x) && is_low_precision(y)) return DType::kFloat32;
  return size_of(x) > size_of(y) ? x : y;
}

DType promoted(const Tensor& a, const Tensor& b) {
  const DType x = a.dtype(), y = b.dtype();
  const bool one_is_scalar = (a.dim() == 0) != (b.dim() == 0);
  if (one_is_scalar && kind_of(x) == kind_of(y)) return a.dim() == 0 ? y : x;
  return promoted(x, y);
}

namespace {

DType common_dtype(const char* op, const Tensor& x, const Tensor& y, Operands::Meet meet) {
  check_defined(op, x);
  check_defined(op, y);
  TRIREME_CHECK(x.device() == y.device(), "{}: devices {} and {} differ", op, name_of(x.device()),
                name_of(y.device()));
  const DType common = promoted(x, y);
  return meet == Operands::Meet::kFloating && !is_floating(common) ? DType::kFloat32 : common;
}

}  // namespace

Operands::Operands(const char* op, const Tensor& x, const Tensor& y, Meet meet)
    : Operands(x, y, common_dtype(op, x, y, meet)) {}

Operands::Operands(const Tensor& x, const Tensor& y, DType common)
    : a(x.dtype() == common ? x : converted_a_), b(y.dtype() == common ? y : converted_b_) {
  if (x.dtype() != common) converted_a_ = to(x, common);
  if (y.dtype() != common) converted_b_ = to(y, common);
}

Tensor as_floating(const char* op, const Tensor& x) {
  check_defined(op, x);
  return is_floating(x.dtype()) ? x : to(x, DType::kFloat32);
}

Tensor scalar_operand(const char* op, const Tensor& x, Scalar value) {
  check_defined(op, x);
  if (is_floating(x.dtype())) return x;
  if (!value.is_whole()) return to(x, DType::kFloat32);
  check_fits(op, value, x.dtype());
  return x.dtype() == DType::kBool ? to(x, DType::kInt64) : x;
}

Tensor scalar_like(const char* op, const Tensor& x, Scalar value) {
  const Tensor operand = scalar_operand(op, x, value);
  return Tensor::full({}, value, operand.dtype(), operand.device());
}

Tensor result_like(const Tensor& a, const Tensor& b, const Shape& shape, DType dtype) {
  for (const Tensor* t : {&a, &b}) {
    if (t->shape() != shape) continue;
    if (t->dtype() == dtype) return Tensor::empty_like(*t);
    if (t->is_dense()) return Tensor::empty_strided(shape, t->strides(), dtype, t->device());
  }
  return Tensor::empty(shape, dtype, a.device());
}

}  // namespace trireme
