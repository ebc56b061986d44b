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

Tensor run_binary(BinaryOp op, const Tensor& a, const Tensor& b, Scalars scalars) {
  const Tensor out = Tensor::empty_like(b);
  kernels(a).binary_with_scalars(op, out.view(), a.view(), b.view(), scalars);
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

/// g * slope(x) by one kernel, itself differentiable: `change(g, x)` is g * slope'(x), or undefined where the
/// slope is constant but for steps.
template <class Change>
Tensor slope(const char* name, BinaryOp op, const Tensor& g, const Tensor& x, Scalars scalars,
             Change change) {
  return record(name, run_binary(op, g, x, scalars), {&g, &x},
                [name, op, g = Saved(g), x = Saved(x), scalars, change](Backward& b) {
                  const Tensor at = b.get(x);
                  if (b.needs(0)) b.set(0, slope(name, op, b.grad, at, scalars, change));
                  if (!b.needs(1)) return;
                  if (const Tensor bend = change(mul(b.grad, b.get(g)), at); bend.defined()) b.set(1, bend);
                });
}

Tensor unbent(const Tensor&, const Tensor&) { return {}; }

Tensor relu_backward(const Tensor& g, const Tensor& y) {
  return slope("relu_backward", BinaryOp::relu_backward, g, y, {}, unbent);
}
Tensor tanh_backward(const Tensor& g, const Tensor& y) {
  return slope("tanh_backward", BinaryOp::tanh_backward, g, y, {},
               [](const Tensor& gg, const Tensor& at) { return mul(gg, mul(at, -2)); });
}
Tensor sigmoid_backward(const Tensor& g, const Tensor& y) {
  return slope("sigmoid_backward", BinaryOp::sigmoid_backward, g, y, {},
               [](const Tensor& gg, const Tensor& at) { return mul(gg, add(mul(at, -2), 1)); });
}
/// Returns the slope of the sigmoid s, s(x) s(-x).
Tensor bell(const Tensor& x) { return mul(sigmoid(x), sigmoid(neg(x))); }
Tensor log_sigmoid_backward(const Tensor& g, const Tensor& x) {
  return slope("log_sigmoid_backward", BinaryOp::log_sigmoid_backward, g, x, {},
               [](const Tensor& gg, const Tensor& at) { return neg(mul(gg, bell(at))); });
}
Tensor softplus_backward(const Tensor& g, const Tensor& x) {
  return slope("softplus_backward", BinaryOp::softplus_backward, g, x, {},
               [](const Tensor& gg, const Tensor& at) { return mul(gg, bell(at)); });
}
Tensor silu_backward(const Tensor& g, const Tensor& x) {
  return slope("silu_backward", BinaryOp::silu_backward, g, x, {}, [](const Tensor& gg, const Tensor& at) {
    const Tensor s = sigmoid(at), ds = mul(s, rsub(s, 1));
    return mul(gg, mul(ds, add(mul(at, rsub(mul(s, 2), 1)), 2)));
  });
}
Tensor gelu_backward(const Tensor& g, const Tensor& x) {
  return slope("gelu_backward", BinaryOp::gelu_backward, g, x, {}, [](const Tensor& gg, const Tensor& at) {
    return mul(gg, mul(mul(exp(mul(square(at), -0.5)), 0.39894228040143267794), rsub(square(at), 2)));
  });
}
Tensor gelu_tanh_backward(const Tensor& g, const Tensor& x) {
  const auto bend = [](const Tensor& gg, const Tensor& at) {
    const double k = 0.79788456080286535588;
    const Tensor u = mul(add(at, mul(mul(square(at), at), 0.044715)), k), t = tanh(u);
    const Tensor du = mul(add(mul(square(at), 0.134145), 1), k), dt = mul(rsub(square(t), 1), du);
    const Tensor ddu = mul(at, 0.26829 * k);
    // d/dx of (1 + t) / 2 + x dt / 2, where dt' = (1 - t^2) u'' - 2 t dt u'
    const Tensor ddt = sub(mul(rsub(square(t), 1), ddu), mul(mul(mul(t, dt), du), 2));
    return mul(gg, add(dt, mul(mul(at, ddt), 0.5)));
  };
  return slope("gelu_tanh_backward", BinaryOp::gelu_tanh_backward, g, x, {}, bend);
}
Tensor elu_backward(const Tensor& g, const Tensor& x, double alpha) {
  return slope("elu_backward", BinaryOp::elu_backward, g, x, {alpha},
               [alpha](const Tensor& gg, const Tensor& at) {
                 // The exponential of a large number, which is not used, must not become infinite.
                 const Tensor bend = mul(mul(gg, alpha), exp(clamp(at, {}, 0)));
                 return where(gt(at, 0), zeros_like(bend), bend);
               });
}

/// Returns `derivative` computed in float32 for 16-bit tensors and rounded once.
template <class Derivative>
auto unrounded(Derivative derivative) {
  return [derivative](const Tensor& g, const Tensor& v) { return in_full(derivative, g, v); };
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
#define TRIREME_FUNCTION(name, check, from, derivative)                                         \
  Tensor name(const Tensor& x) {                                                                \
    return recorded(#name, UnaryOp::name, check(#name, x), {}, From::from, derivative);         \
  }                                                                                             \
  const Tensor& name##_(const Tensor& t) { return in_place(#name "_", t, name); }
#define TRIREME_DERIVATIVE(expression) [](const Tensor& g, const Tensor& v) { (void)v; return expression; }
#define TRIREME_OP(name, check, from, derivative) \
  TRIREME_FUNCTION(name, check, from, TRIREME_DERIVATIVE(derivative))
// Defines an op whose derivative takes several kernels. 16-bit numbers are not rounded between them.
#define TRIREME_OP_WIDE(name, check, from, derivative) \
  TRIREME_FUNCTION(name, check, from, unrounded(TRIREME_DERIVATIVE(derivative)))

TRIREME_OP(neg,         number,      kGradient, neg(g))
TRIREME_OP(abs,         number,      kInput,    mul(g, sign(v)))
TRIREME_OP(sign,        number,      kGradient, zeros_like(g))
TRIREME_OP(square,      number,      kInput,    mul(mul(g, v), 2))
TRIREME_OP(relu,        number,      kOutput,   relu_backward(g, v))
TRIREME_OP(exp,         as_floating, kOutput,   mul(g, v))
TRIREME_OP_WIDE(exp2,   as_floating, kOutput,   mul(mul(g, v), 0.69314718055994530942))
TRIREME_OP_WIDE(expm1,  as_floating, kInput,    mul(g, exp(v)))
TRIREME_OP(log,         as_floating, kInput,    div(g, v))
TRIREME_OP_WIDE(log2,   as_floating, kInput,    div(g, mul(v, 0.69314718055994530942)))
TRIREME_OP_WIDE(log10,  as_floating, kInput,    div(g, mul(v, 2.30258509299404568402)))
TRIREME_OP_WIDE(log1p,  as_floating, kInput,    div(g, add(v, 1)))
TRIREME_OP(sqrt,        as_floating, kOutput,   div(g, mul(v, 2)))
TRIREME_OP_WIDE(rsqrt,  as_floating, kOutput,   mul(mul(g, -0.5), mul(square(v), v)))
TRIREME_OP_WIDE(reciprocal,  as_floating, kOutput,   neg(mul(g, square(v))))
TRIREME_OP_WIDE(sin,    as_floating, kInput,    mul(g, cos(v)))
TRIREME_OP_WIDE(cos,    as_floating, kInput,    neg(mul(g, sin(v))))
TRIREME_OP_WIDE(tan,    as_floating, kOutput,   mul(g, add(square(v), 1)))
TRIREME_OP_WIDE(asin,   as_floating, kInput,    mul(g, rsqrt(mul(rsub(v, 1), add(v, 1)))))
TRIREME_OP_WIDE(acos,   as_floating, kInput,    neg(mul(g, rsqrt(mul(rsub(v, 1), add(v, 1))))))
TRIREME_OP_WIDE(atan,   as_floating, kInput,    div(g, add(square(v), 1)))
TRIREME_OP_WIDE(sinh,   as_floating, kInput,    mul(g, cosh(v)))
TRIREME_OP_WIDE(cosh,   as_floating, kInput,    mul(g, sinh(v)))
TRIREME_OP(tanh,        as_floating, kOutput,   tanh_backward(g, v))
TRIREME_OP_WIDE(erf,    as_floating, kInput,    mul(mul(g, exp(neg(square(v)))), 1.12837916709551257390))
TRIREME_OP_WIDE(erfc,   as_floating, kInput,    mul(mul(g, exp(neg(square(v)))), -1.12837916709551257390))
TRIREME_OP(floor,       number,      kGradient, zeros_like(g))
TRIREME_OP(ceil,        number,      kGradient, zeros_like(g))
TRIREME_OP(round,       number,      kGradient, zeros_like(g))
TRIREME_OP(trunc,       number,      kGradient, zeros_like(g))
TRIREME_OP(sigmoid,     as_floating, kOutput,   sigmoid_backward(g, v))
TRIREME_OP(log_sigmoid, as_floating, kInput,    log_sigmoid_backward(g, v))
TRIREME_OP(softplus,    as_floating, kInput,    softplus_backward(g, v))
TRIREME_OP(silu,        as_floating, kInput,    silu_backward(g, v))
#undef TRIREME_FUNCTION
#undef TRIREME_DERIVATIVE
#undef TRIREME_OP
#undef TRIREME_OP_WIDE
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
                    return slope("leaky_relu_backward", BinaryOp::leaky_relu_backward, g, v, {negative_slope},
                                 unbent);
                  });
}

Tensor elu(const Tensor& x, double alpha) {
  return recorded("elu", UnaryOp::elu, as_floating("elu", x), {alpha}, From::kInput,
                  [alpha](const Tensor& g, const Tensor& v) { return elu_backward(g, v, alpha); });
}

namespace {

Tensor clamped(const char* name, const Tensor& x, std::optional<Scalar> low, std::optional<Scalar> high) {
  check_number(name, x);
  TRIREME_CHECK(low || high, "{}: neither a lower nor an upper bound is given", name);
  const auto is_nan = [](const std::optional<Scalar>& bound) {
    return bound && std::isnan(bound->to<double>());
  };
  if (is_nan(low) || is_nan(high))  // Every element becomes NaN, as in PyTorch.
    return masked_fill(as_floating(name, x), Tensor::ones({}, DType::kBool, x.device()), NAN);
  const auto has_fraction = [](Scalar bound) { return std::trunc(bound.to<double>()) != bound.to<double>(); };
  if (!is_floating(x.dtype()) && (has_fraction(low.value_or(0)) || has_fraction(high.value_or(0))))
    return clamped(name, to(x, DType::kFloat32), low, high);
  // No gradient passes at a bound itself, as in PyTorch; an infinity is none where there is no bound.
  const Scalars bounds{low.value_or(NAN), high.value_or(NAN)};
  return recorded(name, UnaryOp::clamp, x, {low.value_or(-INFINITY), high.value_or(INFINITY)}, From::kInput,
                  [bounds](const Tensor& g, const Tensor& v) {
                    return slope("clamp_backward", BinaryOp::clamp_backward, g, v, bounds, unbent);
                  });
}

}  // namespace

Tensor clamp(const Tensor& x, std::optional<Scalar> low, std::optional<Scalar> high) {
  return clamped("clamp", x, low, high);
}
Tensor relu6(const Tensor& x) { return clamped("relu6", x, 0, 6); }
Tensor hardtanh(const Tensor& x, double low, double high) { return clamped("hardtanh", x, low, high); }

Tensor nan_to_num(const Tensor& x, double nan) {
  check_defined("nan_to_num", x);
  if (!is_floating(x.dtype())) return x.clone();  // float32 would not hold every integer
  return recorded("nan_to_num", UnaryOp::nan_to_num, as_floating("nan_to_num", x), {nan}, From::kInput,
                  [](const Tensor& g, const Tensor& v) { return mul(g, to(isfinite(v), g.dtype())); });
}

Tensor add(const Tensor& x, Scalar value) {
  return recorded("add", UnaryOp::add_scalar, scalar_operand("add", x, value), {value}, From::kGradient,
                  [](const Tensor& g, const Tensor&) { return g; });
}

Tensor mul(const Tensor& x, Scalar value) {
  return recorded("mul", UnaryOp::mul_scalar, scalar_operand("mul", x, value), {value}, From::kGradient,
                  [value](const Tensor& g, const Tensor&) { return mul(g, value); });
}

Tensor sub(const Tensor& x, Scalar value) {
  return recorded("sub", UnaryOp::sub_scalar, scalar_operand("sub", x, value), {value}, From::kGradient,
                  [](const Tensor& g, const Tensor&) { return g; });
}

Tensor rsub(const Tensor& x, Scalar value) {
  return recorded("rsub", UnaryOp::rsub_scalar, scalar_operand("rsub", x, value), {value}, From::kGradient,
                  [](const Tensor& g, const Tensor&) { return neg(g); });
}

Tensor div(const Tensor& x, Scalar value) {
  return recorded("div", UnaryOp::div_scalar, as_floating("div", x), {value}, From::kGradient,
                  [value](const Tensor& g, const Tensor&) { return div(g, value); });
}

namespace {

/// Returns the cheapest op that raises to the power `exponent`. PyTorch computes these powers by the same
/// ops.
UnaryOp power_op(double exponent) {
  if (exponent == 2) return UnaryOp::square;
  if (exponent == 3) return UnaryOp::cube;
  if (exponent == 0.5) return UnaryOp::sqrt;
  if (exponent == -0.5) return UnaryOp::rsqrt;
  if (exponent == -1) return UnaryOp::reciprocal;
  return UnaryOp::pow_scalar;
}

}  // namespace

Tensor pow(const Tensor& x, Scalar exponent) {
  check_defined("pow", x);
  if (!is_floating(x.dtype()) && x.dtype() != DType::kBool && exponent.is_whole()) {
    TRIREME_CHECK(exponent.to<double>() >= 0,
                  "pow: {} to the power {}; convert x to floating point with to()", name_of(x.dtype()),
                  exponent.to_string());
    return pow(x, scalar_like("pow", x, exponent));
  }
  const auto e = exponent.to<double>();
  return recorded(
      "pow", power_op(e), as_floating("pow", x), {e}, From::kInput,
      [e](const Tensor& grad, const Tensor& value) {
        if (e == 0) return zeros_like(grad);
        return in_full(
            [e](const Tensor& g, const Tensor& v) { return mul(g, mul(e == 2 ? v : pow(v, e - 1), e)); },
            grad, value);
      });
}

Tensor pow(Scalar base, const Tensor& x) {
  check_defined("pow", x);
  if (!is_floating(x.dtype()) && x.dtype() != DType::kBool && base.is_whole())
    return pow(scalar_like("pow", x, base), x);
  const auto b = base.to<double>();
  return recorded("pow", UnaryOp::rpow_scalar, as_floating("pow", x), {b}, From::kOutput,
                  [b](const Tensor& grad, const Tensor& value) {
                    return in_full(
                        [b](const Tensor& g, const Tensor& v) {
                          if (b != 0) return mul(mul(g, v), std::log(b));
                          // 0^x is 0 for all x > 0, although the logarithm of 0 is not finite.
                          return mul(g, where(le(v, 1), zeros_like(v), mul(v, std::log(b))));
                        },
                        grad, value);
                  });
}

}  // namespace trireme
