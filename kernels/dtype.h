// Element types of a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/error.h"
#include "kernels/low_precision.h"

namespace trireme {

// F(enumerator, C++ type, the name that error messages and files use). New ones go to the end: checkpoints
// hold the number.
#define TRIREME_DTYPES(F)            \
  F(kFloat32, float, "float32")      \
  F(kFloat64, double, "float64")     \
  F(kInt64, std::int64_t, "int64")   \
  F(kUInt8, std::uint8_t, "uint8")   \
  F(kBool, bool, "bool")             \
  F(kBFloat16, BFloat16, "bfloat16") \
  F(kFloat16, Float16, "float16")

#define TRIREME_NAME(enumerator, type, name) enumerator,
enum class DType : std::uint8_t { TRIREME_DTYPES(TRIREME_NAME) };
#undef TRIREME_NAME

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
#define TRIREME_SIZE(enumerator, type, name) \
  case DType::enumerator:                    \
    return sizeof(type);
    TRIREME_DTYPES(TRIREME_SIZE)
#undef TRIREME_SIZE
  }
  return 0;
}

constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
#define TRIREME_TEXT(enumerator, type, name) \
  case DType::enumerator:                    \
    return name;
    TRIREME_DTYPES(TRIREME_TEXT)
#undef TRIREME_TEXT
  }
  return "?";
}

/// Returns true for types that are stored in 16 bits and computed with in float32.
constexpr bool is_low_precision(DType dtype) { return dtype == DType::kBFloat16 || dtype == DType::kFloat16; }
constexpr bool is_floating(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat64 || is_low_precision(dtype);
}

template <class T>
struct DTypeOf;
#define TRIREME_DTYPE_OF(enumerator, type, name)      \
  template <>                                         \
  struct DTypeOf<type> {                              \
    static constexpr DType value = DType::enumerator; \
  };
TRIREME_DTYPES(TRIREME_DTYPE_OF)
#undef TRIREME_DTYPE_OF
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

/// Calls fn(T{}) with the C++ type of `dtype`.
template <class Fn>
decltype(auto) visit_dtype(DType dtype, Fn&& fn) {
  switch (dtype) {
#define TRIREME_VISIT(enumerator, type, name) \
  case DType::enumerator:                     \
    return fn(type{});
    TRIREME_DTYPES(TRIREME_VISIT)
#undef TRIREME_VISIT
  }
  fail(ExitCode::kInternal, "dtype {} is not known", static_cast<int>(dtype));
}

/// Calls fn(T{}) for float32 and float64. It is for kernels that compute in these types only.
template <class Fn>
decltype(auto) visit_floating(DType dtype, const char* op, Fn&& fn) {
  if (dtype == DType::kFloat32) return fn(float{});
  if (dtype == DType::kFloat64) return fn(double{});
  fail(ExitCode::kInternal, "{}: needs float32 or float64, got {}", op, name_of(dtype));
}

}  // namespace trireme
