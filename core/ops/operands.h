// Checks and converts the operands of elementwise ops.
#pragma once

#include <type_traits>

#include "core/ops/elementwise.h"
#include "core/tensor/tensor.h"

namespace trireme {

/// Returns the dtype that two operands are computed in, by PyTorch's rule. The wider kind (bool, integer,
/// floating point) wins, and within a kind the wider type. Within a kind, a tensor without dimensions does
/// not count against one with dimensions. bfloat16 and float16 meet in float32.
DType promoted(const Tensor& a, const Tensor& b);
/// Returns the dtype that two operands meet in if both have dimensions.
DType promoted(DType a, DType b);

/// Two operands of one dtype, converted (recorded) where needed. Throws if one is undefined or the devices
/// differ. Refers to what needs no conversion. With kFloating, integers and bool meet in float32.
class Operands {
 public:
  enum class Meet { kPromoted, kFloating };
  Operands(const char* op, const Tensor& x, const Tensor& y, Meet meet = Meet::kPromoted);
  template <class X, class Y>
  requires(!std::is_lvalue_reference_v<X> || !std::is_lvalue_reference_v<Y>)
      Operands(const char* op, X&& x, Y&& y, Meet meet = Meet::kPromoted)
  = delete;  // they would be gone
  Operands(const Operands&) = delete;
  Operands& operator=(const Operands&) = delete;

 private:
  Operands(const Tensor& x, const Tensor& y, DType common);
  Tensor converted_a_, converted_b_;

 public:
  const Tensor &a, &b;
};

/// x, or x as float32 if it is an integer or bool: what ops with fractional results compute with.
Tensor as_floating(const char* op, const Tensor& x);

/// x as it meets a scalar: bool becomes int64, an integer meets a fraction in float32. Throws if the scalar
/// is a whole number outside of the range of x's dtype.
Tensor scalar_operand(const char* op, const Tensor& x, Scalar value);
/// Returns the scalar as a tensor without dimensions, in the dtype of scalar_operand().
Tensor scalar_like(const char* op, const Tensor& x, Scalar value);

/// The dtype that numbers are computed in: float32 for 16 bits, else their own.
constexpr DType full(DType dtype) { return is_low_precision(dtype) ? DType::kFloat32 : dtype; }

/// Calls fn(tensors...), a tensor of the first one's dtype, on 16-bit tensors converted to float32, and
/// rounds the result to the first one's dtype: results in between are not rounded. Undefined tensors stay so.
/// All is recorded.
template <class Fn, class... Tensors>
Tensor in_full(const Fn& fn, const Tensor& first, const Tensors&... more) {
  if (!is_low_precision(first.dtype())) return fn(first, more...);
  const auto wide = [](const Tensor& t) { return t.defined() ? to(t, full(t.dtype())) : t; };
  return to(fn(wide(first), wide(more)...), first.dtype());
}

/// Returns a tensor of zeros with t's shape, dtype and device and without history.
inline Tensor zeros_like(const Tensor& t) { return Tensor::zeros(t.shape(), t.dtype(), t.device()); }

/// Returns uninitialized memory for a result of `shape`, laid out as the first operand that has this shape.
Tensor result_like(const Tensor& a, const Tensor& b, const Shape& shape, DType dtype);

}  // namespace trireme
