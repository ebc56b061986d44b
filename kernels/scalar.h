// Scalar: a number that is an argument of an op, in addition to its tensors.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include "kernels/dtype.h"

namespace trireme {

/// Holds an integer as int64 and anything else as float64, so that neither is rounded to the other.
class Scalar {
 public:
  Scalar(double value = 0) : fraction_(value) {}
  template <class T>
  requires(std::is_integral_v<T>) Scalar(T value)
      : whole_(static_cast<std::int64_t>(value)), is_integer_(true) {}

  /// Returns true for integers that int64 can hold, whichever type they were given in.
  bool is_whole() const {
    return is_integer_ || (fraction_ == std::trunc(fraction_) && fits<std::int64_t>());
  }

  /// Returns the number as a T. Floating point is rounded to nearest. An integer type gets the fraction cut
  /// off, its own lowest or highest value where the number lies outside of its range, and 0 for NaN.
  template <class T>
  T to() const {
    if constexpr (std::is_same_v<T, bool>) {
      return is_integer_ ? whole_ != 0 : fraction_ != 0;
    } else if constexpr (std::is_integral_v<T>) {
      if (!is_integer_ && fraction_ != fraction_) return T(0);
      if (!fits<T>()) return is_below<T>() ? std::numeric_limits<T>::min() : std::numeric_limits<T>::max();
      return is_integer_ ? static_cast<T>(whole_) : static_cast<T>(fraction_);
    } else {
      return is_integer_ ? static_cast<T>(whole_) : static_cast<T>(fraction_);
    }
  }

  /// Returns false where T is an integer type that cannot hold the number with its fraction cut off.
  template <class T>
  bool fits() const {
    if constexpr (!std::is_integral_v<T> || std::is_same_v<T, bool>)
      return true;
    else if (is_integer_)
      return whole_ >= std::numeric_limits<T>::min() && whole_ <= std::numeric_limits<T>::max();
    else  // 2^63 and 2^8 are float64 numbers; the highest int64 is not
      return std::trunc(fraction_) >= static_cast<double>(std::numeric_limits<T>::min()) &&
             std::trunc(fraction_) < 2 * static_cast<double>(std::numeric_limits<T>::max() / 2 + 1);
  }
  bool fits(DType dtype) const {
    return visit_dtype(dtype, [this](auto type) { return fits<decltype(type)>(); });
  }

  std::string to_string() const {
    return is_integer_ ? fmt::format("{}", whole_) : fmt::format("{}", fraction_);
  }

 private:
  template <class T>
  bool is_below() const {
    return is_integer_ ? whole_ < std::numeric_limits<T>::min() : fraction_ < 0;
  }

  double fraction_ = 0;
  std::int64_t whole_ = 0;
  bool is_integer_ = false;
};

}  // namespace trireme
