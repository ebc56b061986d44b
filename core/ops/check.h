// Argument checks that several op families share.
#pragma once

#include <initializer_list>

#include "core/tensor/observer.h"
#include "core/tensor/tensor.h"

namespace trireme {

inline void check_defined(const char* op, const Tensor& t) {
  TRIREME_CHECK(t.defined(), "{}: an argument is an undefined tensor", op);
}

inline void check_defined(const char* op, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors) check_defined(op, *t);
}

/// Throws if `dtype` is an integer type whose range `value` is outside of.
inline void check_fits(const char* op, Scalar value, DType dtype) {
  TRIREME_CHECK(value.fits(dtype), "{}: {} is outside of the range of {}; convert the tensor with to()", op,
                value.to_string(), name_of(dtype));
}

/// Throws unless all tensors are defined and have the same dtype and device. The error names `op` and what
/// differs.
inline void check_same_kind(const char* op, std::initializer_list<const Tensor*> tensors) {
  const Tensor* first = nullptr;
  for (const Tensor* t : tensors) {
    check_defined(op, *t);
    if (!first) first = t;
    TRIREME_CHECK(t->dtype() == first->dtype(), "{}: dtypes {} and {} differ; convert one with to()", op,
                  name_of(first->dtype()), name_of(t->dtype()));
    TRIREME_CHECK(t->device() == first->device(), "{}: devices {} and {} differ", op,
                  name_of(first->device()), name_of(t->device()));
  }
}

/// Throws for an undefined tensor and for bool, on which arithmetic is not defined.
inline void check_number(const char* op, const Tensor& t) {
  check_defined(op, t);
  TRIREME_CHECK(t.dtype() != DType::kBool, "{}: is not defined for bool; convert it with to()", op);
}

/// Returns x after check_number().
inline const Tensor& number(const char* op, const Tensor& x) {
  check_number(op, x);
  return x;
}

inline void check_floating(const char* op, const Tensor& t) {
  check_defined(op, t);
  TRIREME_CHECK(is_floating(t.dtype()), "{}: needs floating point, got {}", op, name_of(t.dtype()));
}

inline void check_dims(const char* op, const char* what, const Tensor& t, int dims) {
  check_defined(op, t);
  TRIREME_CHECK(t.dim() == dims, "{}: {} needs {} dimensions, got shape {}", op, what, dims,
                t.shape().to_string());
}

/// Numbers that the caller gave and that sums are made of: none is so large that those overflow.
inline void check_range(const char* op, std::initializer_list<std::int64_t> numbers,
                        std::int64_t most = kMaxNumel) {
  for (const std::int64_t n : numbers)
    TRIREME_CHECK(n >= -most && n <= most, "{}: {} is out of range, allowed are {} to {}", op, n, -most,
                  most);
}

/// Sizes and options of windows over images: products of two of them do not overflow either.
inline constexpr std::int64_t kMaxWindow = (std::int64_t{1} << 31) - 1;
/// The largest size that one dimension of an image can be resized to.
inline constexpr std::int64_t kMaxPixels = std::int64_t{1} << 24;

inline const KernelTable& kernels(const Tensor& t) { return kernels_for(t.device()); }

}  // namespace trireme
