// Functions that dispatch on the dtypes that a kernel is defined for.
#pragma once

#include <type_traits>

#include "kernels/dtype.h"

namespace trireme {

/// Calls fn(T{}) for any dtype but bool, on which arithmetic is not defined.
template <class Fn>
void visit_number(DType dtype, const char* op, Fn&& fn) {
  visit_dtype(dtype, [&](auto type) {
    if constexpr (std::is_same_v<decltype(type), bool>)
      fail(ExitCode::kInternal, "{}: not defined for bool; convert it with to() first", op);
    else
      fn(type);
  });
}

/// Calls fn(T{}) for any floating point dtype.
template <class Fn>
void visit_any_floating(DType dtype, const char* op, Fn&& fn) {
  visit_dtype(dtype, [&](auto type) {
    if constexpr (std::is_integral_v<decltype(type)>)
      fail(ExitCode::kInternal, "{}: needs floating point, got {}", op, name_of(dtype));
    else
      fn(type);
  });
}

/// Calls fn(T{}) for the dtypes in which gradients are summed.
template <class Fn>
void visit_gradient(DType dtype, const char* op, Fn&& fn) {
  if (dtype == DType::kFloat32) return fn(float{});
  if (dtype == DType::kBFloat16) return fn(BFloat16{});
  if (dtype == DType::kFloat16) return fn(Float16{});
  fail(ExitCode::kInternal, "{}: needs float32, bfloat16 or float16, got {}", op, name_of(dtype));
}

}  // namespace trireme
