// Numbers at equal distances, for every device.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/host_device.h"
#include "kernels/low_precision.h"
#include "kernels/scalar.h"

namespace trireme {

/// Gives element i of start, start + step, ... N is the type that is counted in: int64 or double.
template <class T, class N>
struct Arange {
  N start, step;
  TRIREME_HOST_DEVICE T operator()(std::int64_t i) const {
    if constexpr (std::is_integral_v<N>) {
      // Modulo 2^64, so that a product outside of int64 does not harm a sum inside it.
      const auto sum = static_cast<std::uint64_t>(start) +
                       static_cast<std::uint64_t>(i) * static_cast<std::uint64_t>(step);
      return static_cast<T>(static_cast<std::int64_t>(sum));
    } else {
      return static_cast<T>(start + static_cast<N>(i) * step);
    }
  }
};

/// Gives element i of `last + 1` numbers from `start` to `end`: each is counted from the end that is nearer,
/// so both ends are exact.
template <class T>
struct Linspace {
  T start, end;
  double first, final, step;  ///< `first` and `final` are the ends in float64
  std::int64_t last;
  TRIREME_HOST_DEVICE T operator()(std::int64_t i) const {
    if (i == 0) return start;
    if (i == last) return end;
    return static_cast<T>(i <= last / 2 ? first + static_cast<double>(i) * step
                                        : final - static_cast<double>(last - i) * step);
  }
};

/// Calls fn with an Arange that counts in int64 where both numbers are whole, else in float64.
template <class T, class Fn>
void with_arange(Scalar start, Scalar step, const Fn& fn) {
  if (start.is_whole() && step.is_whole())
    fn(Arange<T, std::int64_t>{start.to<std::int64_t>(), step.to<std::int64_t>()});
  else
    fn(Arange<T, double>{start.to<double>(), step.to<double>()});
}

template <class T>
Linspace<T> linspace_of(Scalar start, Scalar end, std::int64_t count) {
  const double first = start.to<double>(), final = end.to<double>();
  const std::int64_t last = count - 1;
  return {
      start.to<T>(), end.to<T>(), first, final, last > 0 ? (final - first) / static_cast<double>(last) : 0,
      last};
}

}  // namespace trireme
