// Elementwise functions of one tensor: each with its derivative, and its in-place form.
#include <cmath>

#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/in_place.h"
#include "core/ops/operands.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

Tensor run(UnaryOp op, const Tensor& x, Scalars scalars = {}) {
  const Tensor out = Tensor::empty_like(x);
  kernels(x).unary(op, out.view(), x.view(), scalars);
  return out;
}

Tensor run_binary(BinaryOp op, const Tensor& a, const Tensor& b) {
  const Tensor out = Tensor::empty_like(b);
  kernels(a).binary(op, out.view(), a.view(), b.view());
  return out;
}

/// op's value for x; derivative(g, x, y) gives the gradient from those that it names.
enum class From { kGradient, kInput, kOutput };

template <class Derivative>
Tensor recorded(const char* name, UnaryOp op, const Tensor& x, Scalars scalars, From from,
                Derivative derivative) {
  const Tensor y = run(op, x, scalars);
  if (!recording({&x})) return y;
  const Saved saved = from == From::kInput ? Saved(x) : from == From::kOutput ? Saved::output(y) : Saved();
  return record(name, y, {&x},
                [saved, derivative](Backward& b) { b.set(0, derivative(b.grad, b.get(saved))); });
}

/// g * slope(x), itself differentiable: `change(g, x, gg)` is the gradient of sum(gg * g * slope(x)) by x.
template <class Change>
Tensor slope(const char* name, BinaryOp op, const Tensor& g, const Tensor& x, Change change) {
  return record(name, run_binary(op, g, x), {&g, &x},
                [name, op, g = Saved(g), x = Saved(x), change](Backward& b) {
                  const Tensor at = b.get(x);
                  if (b.needs(0)) b.set(0, slope(name, op, b.grad, at, change));
                  if (b.needs(1)) b.set(1, mul(mul(b.grad, b.get(g)), change(at)));
                });
}

Tensor relu_backward(const Tensor& g, const Tensor& y) {
  return slope("relu_backward", BinaryOp::relu_backward, g, y.detach(), [](const Tensor& at) { return at; });
}
Tensor tanh_backward(const Tensor& g, const Tensor& y) {
  return slope("tanh_backward", BinaryOp::tanh_backward, g, y, [](const Tensor& at) { return mul(at, -2); });
}
Tensor sigmoid_backward(const Tensor& g, const Tensor& y) {
  return slope("sigmoid_backward", BinaryOp::sigmoid_backward, g, y,
               [](const Tensor& at) { return add(mul(at, -2), 1); });
}
Tensor silu_backward(const Tensor& g, const Tensor& x) {
  return slope("silu_backward", BinaryOp::silu_backward, g, x, [](const Tensor& at) {
    const Tensor s = sigmoid(at), ds = mul(s, rsub(s, 1));
    return mul(ds, add(mul(at, rsub(mul(s, 2), 1)), 2));
  });
}
Tensor gelu_backward(const Tensor& g, const Tensor& x) {
  return slope("gelu_backward", BinaryOp::gelu_backward, g, x, [](const Tensor& at) {
    return mul(mul(exp(mul(square(at), -0.5)), 0.39894228040143267794), rsub(square(at), 2));
  });
}
Tensor gelu_tanh_backward(const Tensor& g, const Tensor& x) {
  return slope("gelu_tanh_backward", BinaryOp::gelu_tanh_backward, g, x, [](const Tensor& at) {
    const double k = 0.79788456080286535588;
    const Tensor u = mul(add(at, mul(mul(square(at), at), 0.044715)), k), t = tanh(u);
    const Tensor du = mul(add(mul(square(at), 0.134145), 1), k), dt = mul(rsub(square(t), 1), du);
    const Tensor ddu = mul(at, 0.26829 * k);
    // d/dx of (1 + t) / 2 + x dt / 2, where dt' = (1 - t^2) u'' - 2 t dt u'
    const Tensor ddt = sub(mul(rsub(square(t), 1), ddu), mul(mul(mul(t, dt), du), 2));
    return add(dt, mul(mul(at, ddt), 0.5));
  });
}

const Tensor& in_place(const char* name, const Tensor& t, Tensor (*op)(const Tensor&)) {
  check_number(name, t);
  const Tensor result = op(recording({&t}) ? t.clone() : t);
  TRIREME_CHECK(result.dtype() == t.dtype(),
                "{}: a result of {} does not fit into {}; convert the target with to()", name,
                name_of(result.dtype()), name_of(t.dtype()));
  return assign_(name, t, result);
}

}  // namespace

// TRIREME_OP(name, operand check, what the derivative is made from, derivative by g and v): v is the input or
// the output as From says.
// clang-format off
#define TRIREME_OP(name, check, from, derivative)                                          \
  Tensor name(const Tensor& x) {                                                           \
    return recorded(#name, UnaryOp::name, check(#name, x), {}, From::from,                 \
                    [](const Tensor& g, const Tensor& v) { (void)v; return derivative; }); \
  }                                                                                        \
  const Tensor& name##_(const Tensor& t) { return in_place(#name "_", t, name); }

TRIREME_OP(neg,         number,      kGradient, neg(g))
TRIREME_OP(abs,         number,      kInput,    mul(g, sign(v)))
TRIREME_OP(sign,        number,      kGradient, mul(g, 0))
TRIREME_OP(square,      number,      kInput,    mul(mul(g, v), 2))
TRIREME_OP(relu,        number,      kOutput,   relu_backward(g, v))
TRIREME_OP(exp,         as_floating, kOutput,   mul(g, v))
TRIREME_OP(exp2,        as_floating, kOutput,   mul(mul(g, v), 0.69314718055994530942))
TRIREME_OP(expm1,       as_floating, kOutput,   mul(g, add(v, 1)))
TRIREME_OP(log,         as_floating, kInput,    div(g, v))
TRIREME_OP(log2,        as_floating, kInput,    div(g, mul(v, 0.69314718055994530942)))
TRIREME_OP(log10,       as_floating, kInput,    div(g, mul(v, 2.30258509299404568402)))
TRIREME_OP(log1p,       as_floating, kInput,    div(g, add(v, 1)))
TRIREME_OP(sqrt,        as_floating, kOutput,   div(mul(g, 0.5), v))
TRIREME_OP(rsqrt,       as_floating, kOutput,   mul(mul(g, -0.5), mul(square(v), v)))
TRIREME_OP(reciprocal,  as_floating, kOutput,   neg(mul(g, square(v))))
TRIREME_OP(sin,         as_floating, kInput,    mul(g, cos(v)))
TRIREME_OP(cos,         as_floating, kInput,    neg(mul(g, sin(v))))
TRIREME_OP(tan,         as_floating, kOutput,   mul(g, add(square(v), 1)))
TRIREME_OP(asin,        as_floating, kInput,    mul(g, rsqrt(rsub(square(v), 1))))
TRIREME_OP(acos,        as_floating, kInput,    neg(mul(g, rsqrt(rsub(square(v), 1)))))
TRIREME_OP(atan,        as_floating, kInput,    div(g, add(square(v), 1)))
TRIREME_OP(sinh,        as_floating, kInput,    mul(g, cosh(v)))
TRIREME_OP(cosh,        as_floating, kInput,    mul(g, sinh(v)))
TRIREME_OP(tanh,        as_floating, kOutput,   tanh_backward(g, v))
TRIREME_OP(erf,         as_floating, kInput,    mul(mul(g, exp(neg(square(v)))), 1.12837916709551257390))
TRIREME_OP(erfc,        as_floating, kInput,    mul(mul(g, exp(neg(square(v)))), -1.12837916709551257390))
TRIREME_OP(floor,       as_floating, kGradient, mul(g, 0))
TRIREME_OP(ceil,        as_floating, kGradient, mul(g, 0))
TRIREME_OP(round,       as_floating, kGradient, mul(g, 0))
TRIREME_OP(trunc,       as_floating, kGradient, mul(g, 0))
TRIREME_OP(sigmoid,     as_floating, kOutput,   sigmoid_backward(g, v))
TRIREME_OP(log_sigmoid, as_floating, kInput,    mul(g, sigmoid(neg(v))))
TRIREME_OP(softplus,    as_floating, kInput,    mul(g, sigmoid(v)))
TRIREME_OP(silu,        as_floating, kInput,    silu_backward(g, v))
#undef TRIREME_OP
// clang-format on

Tensor gelu(const Tensor& x, Gelu approximate) {
  const bool exact = approximate == Gelu::kNone;
  return recorded("gelu", exact ? UnaryOp::gelu : UnaryOp::gelu_tanh, as_floating("gelu", x), {},
                  From::kInput, [exact](const Tensor& g, const Tensor& v) {
                    return exact ? gelu_backward(g, v) : gelu_tanh_backward(g, v);
                  });
}

Tensor leaky_relu(const Tensor& x, double negative_slope) {
  return recorded("leaky_relu", UnaryOp::leaky_relu, as_floating("leaky_relu", x), {negative_slope},
                  From::kInput, [negative_slope](const Tensor& g, const Tensor& v) {
                    return where(gt(v, 0), g, mul(g, negative_slope));
                  });
}

Tensor elu(const Tensor& x, double alpha) {
  return recorded(
      "elu", UnaryOp::elu, as_floating("elu", x), {alpha}, From::kInput,
      [alpha](const Tensor& g, const Tensor& v) { return where(gt(v, 0), g, mul(mul(g, alpha), exp(v))); });
}

namespace {

Tensor clamped(const char* name, const Tensor& x, std::optional<double> low, std::optional<double> high) {
  check_number(name, x);
  TRIREME_CHECK(low || high, "{}: neither a lower nor an upper bound is given", name);
  const bool is_byte = x.dtype() == DType::kUInt8;
  const double most_of_all = is_floating(x.dtype()) ? INFINITY : is_byte ? 255 : 9.2e18;  // int64's, nearly
  const double least = low.value_or(is_byte ? 0 : -most_of_all), most = high.value_or(most_of_all);
  return recorded(name, UnaryOp::clamp, x, {least, most}, From::kInput,
                  [low, high](const Tensor& g, const Tensor& v) {  // none on a bound itself, as in PyTorch
                    const Tensor inside = !high  ? gt(v, *low)
                                          : !low ? lt(v, *high)
                                                 : logical_and(gt(v, *low), lt(v, *high));
                    return mul(g, to(inside, g.dtype()));
                  });
}

}  // namespace

Tensor clamp(const Tensor& x, std::optional<double> low, std::optional<double> high) {
  return clamped("clamp", x, low, high);
}
Tensor relu6(const Tensor& x) { return clamped("relu6", x, 0, 6); }
Tensor hardtanh(const Tensor& x, double low, double high) { return clamped("hardtanh", x, low, high); }

Tensor nan_to_num(const Tensor& x, double nan) {
  return recorded("nan_to_num", UnaryOp::nan_to_num, as_floating("nan_to_num", x), {nan}, From::kInput,
                  [](const Tensor& g, const Tensor& v) { return mul(g, to(isfinite(v), g.dtype())); });
}

Tensor add(const Tensor& x, double value) {
  return recorded("add", UnaryOp::add_scalar, scalar_operand("add", x, value), {value}, From::kGradient,
                  [](const Tensor& g, const Tensor&) { return g; });
}

Tensor mul(const Tensor& x, double value) {
  return recorded("mul", UnaryOp::mul_scalar, scalar_operand("mul", x, value), {value}, From::kGradient,
                  [value](const Tensor& g, const Tensor&) { return mul(g, value); });
}

Tensor sub(const Tensor& x, double value) {
  check_defined("sub", x);
  return add(x, -value);
}

Tensor rsub(const Tensor& x, double value) {
  return recorded("rsub", UnaryOp::rsub_scalar, scalar_operand("rsub", x, value), {value}, From::kGradient,
                  [](const Tensor& g, const Tensor&) { return neg(g); });
}

Tensor div(const Tensor& x, double value) {
  return recorded("div", UnaryOp::div_scalar, as_floating("div", x), {value}, From::kGradient,
                  [value](const Tensor& g, const Tensor&) { return div(g, value); });
}

Tensor pow(const Tensor& x, double exponent) {
  return recorded("pow", UnaryOp::pow_scalar, as_floating("pow", x), {exponent}, From::kInput,
                  [exponent](const Tensor& g, const Tensor& v) {
                    return exponent == 0 ? mul(g, 0) : mul(g, mul(pow(v, exponent - 1), exponent));
                  });
}

Tensor pow(double base, const Tensor& x) {
  return recorded("pow", UnaryOp::rpow_scalar, as_floating("pow", x), {base}, From::kOutput,
                  [base](const Tensor& g, const Tensor& v) { return mul(mul(g, v), std::log(base)); });
}

}  // namespace trireme
