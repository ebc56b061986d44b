// Elementwise functions, one line each, shared by every device.
//
// To add one: a line here; the op with its derivative in core/ops; a row in the op test table.
#pragma once

#include <cmath>

// F(name, expression of x and the scalar a)
#define TRIREME_UNARY_OPS(F)                           \
  F(neg, -x)                                           \
  F(abs, x < T(0) ? -x : x)                            \
  F(sign, x > T(0) ? T(1) : (x < T(0) ? T(-1) : T(0))) \
  F(exp, T(std::exp(x)))                               \
  F(log, T(std::log(x)))                               \
  F(sqrt, T(std::sqrt(x)))                             \
  F(tanh, T(std::tanh(x)))                             \
  F(sigmoid, T(1) / (T(1) + T(std::exp(-x))))          \
  F(relu, x > T(0) || x != x ? x : T(0))               \
  F(add_scalar, x + T(a))                              \
  F(mul_scalar, x* T(a))                               \
  F(pow_scalar, T(std::pow(x, T(a))))

// F(name, expression of x and y), result of the inputs' type
#define TRIREME_BINARY_OPS(F)         \
  F(add, x + y)                       \
  F(sub, x - y)                       \
  F(mul, x* y)                        \
  F(div, x / y)                       \
  F(maximum, x > y || x != x ? x : y) \
  F(minimum, x < y || x != x ? x : y) \
  F(relu_backward, y > T(0) ? x : T(0))

// F(name, expression of x and y), result of type bool
#define TRIREME_COMPARE_OPS(F) \
  F(eq, x == y)                \
  F(ne, x != y)                \
  F(lt, x < y)                 \
  F(le, x <= y)                \
  F(gt, x > y)                 \
  F(ge, x >= y)

namespace trireme {

#define TRIREME_NAME(name, expression) name,
enum class UnaryOp { TRIREME_UNARY_OPS(TRIREME_NAME) };
enum class BinaryOp { TRIREME_BINARY_OPS(TRIREME_NAME) };
enum class CompareOp { TRIREME_COMPARE_OPS(TRIREME_NAME) };
#undef TRIREME_NAME

namespace functors {

#define TRIREME_DEFINE(name, expression) \
  struct name {                          \
    double a;                            \
    template <class T>                   \
    T operator()(T x) const {            \
      (void)a;                           \
      return expression;                 \
    }                                    \
  };
TRIREME_UNARY_OPS(TRIREME_DEFINE)
#undef TRIREME_DEFINE

#define TRIREME_DEFINE(name, expression) \
  struct name {                          \
    template <class T>                   \
    T operator()(T x, T y) const {       \
      return expression;                 \
    }                                    \
  };
TRIREME_BINARY_OPS(TRIREME_DEFINE)
#undef TRIREME_DEFINE

#define TRIREME_DEFINE(name, expression) \
  struct name {                          \
    template <class T>                   \
    bool operator()(T x, T y) const {    \
      return expression;                 \
    }                                    \
  };
TRIREME_COMPARE_OPS(TRIREME_DEFINE)
#undef TRIREME_DEFINE

}  // namespace functors
}  // namespace trireme
