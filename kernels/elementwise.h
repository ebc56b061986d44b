// Elementwise functions, one line each, shared by every device.
//
// T is the type that is computed in: float for 16-bit storage. The scalars a and b are of that type. To add a
// function: a line here; the op with its derivative in core/ops/unary.cpp or binary.cpp; a row in the op test
// table.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/trigonometry.h"
#include "kernels/vector_math.h"

// F(name, expression of x and the scalars a and b), for every dtype but bool
// clang-format off
#define TRIREME_UNARY_NUMBER_OPS(F)                              \
  F(neg, -x)                                                     \
  F(abs, x < T(0) ? -x : x + T(0))                               \
  F(sign, x > T(0) ? T(1) : (x < T(0) ? T(-1) : T(0)))           \
  F(square, x * x)                                               \
  F(cube, x * x * x)                                             \
  F(relu, x > T(0) || x != x ? x : T(0))                         \
  F(add_scalar, x + a)                                           \
  F(sub_scalar, x - a)                                           \
  F(rsub_scalar, a - x)                                       \
  F(mul_scalar, x * a)                                        \
  F(floor, functors::floor_of(x))                                \
  F(ceil, functors::ceil_of(x))                                  \
  F(round, functors::nearest(x))                                 \
  F(trunc, functors::trunc_of(x))                                \
  F(clamp, functors::clamped(x, a, b))

// For floating point only
#define TRIREME_UNARY_FLOATING_OPS(F)                            \
  F(exp, fast_exp(x))                                            \
  F(exp2, fast_exp2(x))                                          \
  F(expm1, fast_expm1(x))                                        \
  F(log, fast_log(x))                                            \
  F(log2, fast_log2(x))                                          \
  F(log10, fast_log10(x))                                        \
  F(log1p, fast_log1p(x))                                        \
  F(sqrt, T(std::sqrt(x)))                                       \
  F(rsqrt, T(1) / T(std::sqrt(x)))                               \
  F(reciprocal, T(1) / x)                                        \
  F(sin, T(std::sin(x)))                                         \
  F(cos, T(std::cos(x)))                                         \
  F(tan, T(std::tan(x)))                                         \
  F(asin, fast_asin(x))                                          \
  F(acos, fast_acos(x))                                          \
  F(atan, fast_atan(x))                                          \
  F(sinh, T(std::sinh(x)))                                       \
  F(cosh, T(std::cosh(x)))                                       \
  F(tanh, fast_tanh(x))                                          \
  F(erf, fast_erf(x))                                            \
  F(erfc, fast_erfc(x))                                          \
  F(sigmoid, fast_sigmoid(x))                                    \
  F(log_sigmoid, (x < T(0) ? x : T(0)) - fast_log1p_of_part(fast_exp(x < T(0) ? x : -x))) \
  F(softplus, (x > T(0) ? x : T(0)) + fast_log1p_of_part(fast_exp(x > T(0) ? -x : x))) \
  F(silu, x * fast_sigmoid(x))                                   \
  F(gelu, T(0.5) * x * fast_one_plus_erf(x * T(0.70710678118654752440))) \
  F(gelu_tanh, x * functors::gelu_tanh_gate(x))                  \
  F(leaky_relu, x > T(0) ? x : x * a)                         \
  F(elu, x > T(0) ? x : a * fast_expm1(x))                    \
  F(div_scalar, x / a)                                        \
  F(pow_scalar, T(std::pow(x, a)))                            \
  F(rpow_scalar, T(std::pow(a, x)))                           \
  F(nan_to_num, x != x ? a : (std::isinf(x) ? (x > T(0) ? std::numeric_limits<T>::max() : std::numeric_limits<T>::lowest()) : x))

#define TRIREME_UNARY_OPS(F) TRIREME_UNARY_NUMBER_OPS(F) TRIREME_UNARY_FLOATING_OPS(F)

// F(name, expression of x, y and the scalars a and b), result of the inputs' type; every dtype but bool.
// A function NAME_backward gives the gradient x times the slope of NAME at y. Where that slope is 0 by
// definition the result is selected, since 0 times an infinite gradient would be NaN. To clamp_backward, a
// bound that is NaN is no bound. The scalar a is the weight of lerp, and the delta of huber and huber_slope.
#define TRIREME_BINARY_NUMBER_OPS(F)                             \
  F(add, x + y)                                                  \
  F(sub, x - y)                                                  \
  F(mul, x * y)                                                  \
  F(maximum, x > y || x != x ? x : y)                            \
  F(minimum, x < y || x != x ? x : y)                            \
  F(pow, functors::power(x, y))                                  \
  F(fmod, functors::rest(x, y))                                  \
  F(remainder, functors::floored_rest(x, y))                     \
  F(floor_divide, functors::floored_quotient(x, y))

#define TRIREME_BINARY_FLOATING_OPS(F)                           \
  F(div, x / y)                                                  \
  F(atan2, fast_atan2(x, y))                                     \
  F(relu_backward, y <= T(0) ? T(0) : x)                         \
  F(lerp, functors::lerped(x, y, a))                             \
  F(huber, functors::huber_value(x - y, a))                      \
  F(huber_slope, functors::clamped(x - y, -a, a))                \
  F(clamp_backward, (y > a || a != a) && (y < b || b != b) ? x : T(0)) \
  F(leaky_relu_backward, y > T(0) ? x : x * a)                   \
  F(elu_backward, y > T(0) ? x : x * a * fast_exp(y))            \
  F(log_sigmoid_backward, x * fast_sigmoid(-y))                  \
  F(softplus_backward, x * fast_sigmoid(y))                      \
  F(bce_with_logits, functors::binary_cross_entropy(x, y))       \
  F(bce_with_logits_slope, functors::binary_cross_entropy_slope(x, y)) \
  F(tanh_backward, x * (T(1) - y * y))                           \
  F(sigmoid_backward, x * y * (T(1) - y))                        \
  F(silu_backward, x * functors::silu_slope(y))                  \
  F(gelu_backward, x * functors::gelu_slope(y))                  \
  F(gelu_tanh_backward, x * functors::gelu_tanh_slope(y))

#define TRIREME_BINARY_OPS(F) TRIREME_BINARY_NUMBER_OPS(F) TRIREME_BINARY_FLOATING_OPS(F)

// F(name, expression of x and y), result of type bool; every dtype
#define TRIREME_COMPARE_OPS(F) \
  F(eq, x == y)                                                  \
  F(ne, x != y)                                                  \
  F(lt, x < y)                                                   \
  F(le, x <= y)                                                  \
  F(gt, x > y)                                                   \
  F(ge, x >= y)                                                  \
  F(logical_and, x != T(0) && y != T(0))                         \
  F(logical_or, x != T(0) || y != T(0))                          \
  F(logical_xor, (x != T(0)) != (y != T(0)))
// clang-format on

namespace trireme {

#define TRIREME_NAME(name, expression) name,
enum class UnaryOp { TRIREME_UNARY_OPS(TRIREME_NAME) };
enum class BinaryOp { TRIREME_BINARY_OPS(TRIREME_NAME) };
enum class CompareOp { TRIREME_COMPARE_OPS(TRIREME_NAME) };
#undef TRIREME_NAME

namespace functors {

// Integers are their own floor, and so on.
#define TRIREME_WHOLE(name, function)     \
  template <class T>                      \
  TRIREME_INLINE T name(T x) {            \
    if constexpr (std::is_integral_v<T>)  \
      return x;                           \
    else                                  \
      return static_cast<T>(function(x)); \
  }
TRIREME_WHOLE(floor_of, std::floor)
TRIREME_WHOLE(ceil_of, std::ceil)
TRIREME_WHOLE(nearest, std::nearbyint)
TRIREME_WHOLE(trunc_of, std::trunc)
#undef TRIREME_WHOLE

/// Returns min(max(x, low), high), which is `high` where low is above high. NaN stays NaN.
template <class T>
TRIREME_INLINE T clamped(T x, T low, T high) {
  const T raised = x < low ? low : x;
  return raised > high ? high : raised;
}

/// Returns start + w (end - start). For |w| >= 1/2 it is computed from `end`, so that w = 1 gives exactly
/// `end`.
template <class T>
TRIREME_INLINE T lerped(T start, T end, T w) {
  const T distance = end - start;
  return w < T(0.5) && w > T(-0.5) ? start + distance * w : end - distance * (T(1) - w);
}

/// Returns the Huber loss of a difference d: d^2 / 2 for |d| <= delta, and delta (|d| - delta / 2) beyond
/// (P. Huber, 1964).
template <class T>
TRIREME_INLINE T huber_value(T d, T delta) {
  const T distance = d < T(0) ? -d : d, near = distance > delta ? delta : distance;
  return near * near * T(0.5) + (distance - near) * delta;
}

/// Returns -t log s(x) - (1 - t) log(1 - s(x)), s being the sigmoid. Both terms of the sum below are at least
/// 0 for t in 0..1, so no digits cancel.
template <class T>
TRIREME_INLINE T binary_cross_entropy(T x, T t) {
  const T size = x < T(0) ? -x : x, miss = x > T(0) ? T(1) - t : t;
  return size * miss + fast_log1p_of_part(fast_exp(-size));
}

/// Returns s(x) - t, computed from the smaller one of s(x) and s(-x), which has all its digits.
template <class T>
TRIREME_INLINE T binary_cross_entropy_slope(T x, T t) {
  const T small = fast_sigmoid(x > T(0) ? -x : x);
  return x > T(0) ? (T(1) - t) - small : small - t;
}

/// Returns x^y. Integers wrap around; a negative y gives 0 unless x is 1 or -1.
template <class T>
TRIREME_HOST_DEVICE T power(T x, T y) {
  if constexpr (!std::is_integral_v<T>) {
    return static_cast<T>(std::pow(x, y));
  } else {
    if (std::is_signed_v<T> && y < T(0)) {
      if (x != T(1) && x != T(-1)) return T(0);
      return x == T(1) || y % T(2) == T(0) ? T(1) : T(-1);
    }
    std::uint64_t result = 1, base = static_cast<std::uint64_t>(x), left = static_cast<std::uint64_t>(y);
    for (; left > 0; left >>= 1, base *= base)
      if (left & 1) result *= base;
    return static_cast<T>(result);
  }
}

template <class T>
TRIREME_INLINE T silu_slope(T x) {
  const T s = fast_sigmoid(x);
  return s * (T(1) + x * (T(1) - s));
}

template <class T>
TRIREME_INLINE T gelu_slope(T x) {
  const T area = T(0.5) * fast_one_plus_erf(x * T(0.70710678118654752440));
  return area + x * T(0.39894228040143267794) * fast_exp(T(-0.5) * x * x);
}

/// (1 + tanh u) / 2 = 1 / (1 + e^-2u) of u = sqrt(2 / pi) (x + 0.044715 x^3).
template <class T>
TRIREME_INLINE T gelu_tanh_gate(T x) {
  return fast_sigmoid(T(1.59576912160573071176) * (x + T(0.044715) * x * x * x));
}

template <class T>
TRIREME_INLINE T gelu_tanh_slope(T x) {
  const T v = T(1.59576912160573071176) * (x + T(0.044715) * x * x * x);
  const T e = fast_exp(v < T(0) ? v : -v), q = T(1) / (T(1) + e);
  // The gate's own slope is e q^2: 1 - gate would lose digits.
  const T gate = v < T(0) ? e * q : q;
  return gate + x * (e * q * q) * T(1.59576912160573071176) * (T(1) + T(0.134145) * x * x);
}

/// x - y * trunc(x / y), exact. Integers: y is not 0.
template <class T>
TRIREME_HOST_DEVICE T rest(T x, T y) {
  if constexpr (!std::is_integral_v<T>)
    return std::fmod(x, y);
  else if constexpr (std::is_signed_v<T>)
    return y == T(-1) ? T(0) : x % y;  // the smallest integer / -1 is more than the largest
  else
    return static_cast<T>(x % y);
}

/// x - y * floor(x / y), with the sign of y.
template <class T>
TRIREME_HOST_DEVICE T floored_rest(T x, T y) {
  const T r = rest(x, y);
  if constexpr (std::is_unsigned_v<T>)
    return r;
  else
    return r != T(0) && (r < T(0)) != (y < T(0)) ? r + y : r;
}

/// floor(x / y). Floating point: floor of the exact quotient, where x / y may have been rounded up.
template <class T>
TRIREME_HOST_DEVICE T floored_quotient(T x, T y) {
  if constexpr (std::is_unsigned_v<T>) {
    return static_cast<T>(x / y);
  } else if constexpr (std::is_integral_v<T>) {
    if (y == T(-1)) return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(x));
    return x / y - (rest(x, y) != T(0) && (x < T(0)) != (y < T(0)) ? T(1) : T(0));
  } else {
    if (y == T(0)) return x / y;
    const T r = rest(x, y), q = (x - r) / y - (r != T(0) && (r < T(0)) != (y < T(0)) ? T(1) : T(0));
    return q == T(0) ? std::copysign(q, x / y) : std::nearbyint(q);
  }
}

#define TRIREME_DEFINE(name, expression)          \
  template <class T>                              \
  struct name {                                   \
    T a, b;                                       \
    TRIREME_HOST_DEVICE T operator()(T x) const { \
      (void)a, (void)b;                           \
      return static_cast<T>(expression);          \
    }                                             \
  };
TRIREME_UNARY_OPS(TRIREME_DEFINE)
#undef TRIREME_DEFINE

// Float32 sin, cos and tan have two forms, which give the same bits: operator() takes any x; inside() takes
// only |x| <= kBound, and compilers vectorize loops over it.
#define TRIREME_BOUNDED(name)                                                                \
  template <>                                                                                \
  struct name<float> {                                                                       \
    static constexpr float kBound = vector_math::kLargestAngle;                              \
    float a, b;                                                                              \
    TRIREME_INLINE float inside(float x) const { return near_##name(x); }                    \
    TRIREME_HOST_DEVICE float operator()(float x) const {                                    \
      return std::fabs(x) <= kBound ? near_##name(x)                                         \
                                    : static_cast<float>(std::name(static_cast<double>(x))); \
    }                                                                                        \
  };
TRIREME_BOUNDED(sin)
TRIREME_BOUNDED(cos)
TRIREME_BOUNDED(tan)
#undef TRIREME_BOUNDED

#define TRIREME_DEFINE(name, expression)               \
  template <class T>                                   \
  struct name {                                        \
    T a, b;                                            \
    TRIREME_HOST_DEVICE T operator()(T x, T y) const { \
      (void)a, (void)b;                                \
      return static_cast<T>(expression);               \
    }                                                  \
  };
TRIREME_BINARY_OPS(TRIREME_DEFINE)
#undef TRIREME_DEFINE

#define TRIREME_DEFINE(name, expression)                  \
  struct name {                                           \
    template <class T>                                    \
    TRIREME_HOST_DEVICE bool operator()(T x, T y) const { \
      return expression;                                  \
    }                                                     \
  };
TRIREME_COMPARE_OPS(TRIREME_DEFINE)
#undef TRIREME_DEFINE

}  // namespace functors
}  // namespace trireme
