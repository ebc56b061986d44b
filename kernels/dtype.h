// Element types of a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/error.h"

namespace trireme {

enum class DType : std::uint8_t { kFloat32, kFloat64, kInt64, kUInt8, kBool };

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 4;
    case DType::kFloat64:
      return 8;
    case DType::kInt64:
      return 8;
    case DType::kUInt8:
      return 1;
    case DType::kBool:
      return 1;
  }
  return 0;
}

/// "float32", "int64", ...: the name that error messages and files use.
constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kFloat64:
      return "float64";
    case DType::kInt64:
      return "int64";
    case DType::kUInt8:
      return "uint8";
    case DType::kBool:
      return "bool";
  }
  return "?";
}

constexpr bool is_floating(DType dtype) { return dtype == DType::kFloat32 || dtype == DType::kFloat64; }

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kFloat32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kFloat64;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::kInt64;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::kUInt8;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::kBool;
};
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

/// Calls fn(T{}) with the C++ type of `dtype`.
template <class Fn>
decltype(auto) visit_dtype(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::kFloat32:
      return fn(float{});
    case DType::kFloat64:
      return fn(double{});
    case DType::kInt64:
      return fn(std::int64_t{});
    case DType::kUInt8:
      return fn(std::uint8_t{});
    case DType::kBool:
      return fn(bool{});
  }
  fail(ExitCode::kInternal, "dtype {} is not known", static_cast<int>(dtype));
}

/// As visit_dtype, for operations that are defined on floating point only.
template <class Fn>
decltype(auto) visit_floating(DType dtype, const char* op, Fn&& fn) {
  if (dtype == DType::kFloat32) return fn(float{});
  if (dtype == DType::kFloat64) return fn(double{});
  fail(ExitCode::kInternal, "{}: needs float32 or float64, got {}", op, name_of(dtype));
}

}  // namespace trireme
