// Elementwise functions of two or three tensors, comparisons and conversions.
#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/operands.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

Tensor run(const char* name, BinaryOp op, const Tensor& a, const Tensor& b, Scalars scalars = {}) {
  number(name, a);
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), name);
  const Tensor out = result_like(a, b, shape, a.dtype());
  kernels(a).binary_with_scalars(op, out.view(), broadcast_view(a, shape), broadcast_view(b, shape), scalars);
  return out;
}

Tensor compare(const char* name, CompareOp op, const Tensor& x, const Tensor& y) {
  const Operands in(name, x, y);
  const Shape shape = broadcast_shapes(x.shape(), y.shape(), name);
  const Tensor out = result_like(in.a, in.b, shape, DType::kBool);
  kernels(x).compare(op, out.view(), broadcast_view(in.a, shape), broadcast_view(in.b, shape));
  return out;
}

/// The gradient of maximum or minimum: all to the winner, halves where both are equal, and to both in full
/// beside a NaN, as in PyTorch.
Tensor extreme(const char* name, BinaryOp op, const Tensor& x, const Tensor& y,
               Tensor (*loses)(const Tensor&, const Tensor&)) {
  const Operands in(name, x, y);
  return record(name, run(name, op, in.a, in.b), {&in.a, &in.b},
                [a = Saved(in.a), b = Saved(in.b), loses](Backward& g) {
                  const Tensor p = g.get(a).detach(), q = g.get(b).detach(),
                               none = Tensor::zeros({}, g.grad.dtype(), g.grad.device());
                  const Tensor shared = where(eq(p, q), mul(g.grad, 0.5), g.grad);
                  if (g.needs(0)) g.set(0, sum_to(where(loses(p, q), none, shared), p.shape()));
                  if (g.needs(1)) g.set(1, sum_to(where(loses(q, p), none, shared), q.shape()));
                });
}

}  // namespace

Tensor add(const Tensor& x, const Tensor& y) {
  const Operands in("add", x, y);
  return record("add", run("add", BinaryOp::add, in.a, in.b), {&in.a, &in.b},
                [sa = x.shape(), sb = y.shape()](Backward& g) {
                  if (g.needs(0)) g.set(0, sum_to(g.grad, sa));
                  if (g.needs(1)) g.set(1, sum_to(g.grad, sb));
                });
}

Tensor sub(const Tensor& x, const Tensor& y) {
  const Operands in("sub", x, y);
  return record("sub", run("sub", BinaryOp::sub, in.a, in.b), {&in.a, &in.b},
                [sa = x.shape(), sb = y.shape()](Backward& g) {
                  if (g.needs(0)) g.set(0, sum_to(g.grad, sa));
                  if (g.needs(1)) g.set(1, sum_to(neg(g.grad), sb));
                });
}

Tensor mul(const Tensor& x, const Tensor& y) {
  const Operands in("mul", x, y);
  return record("mul", run("mul", BinaryOp::mul, in.a, in.b), {&in.a, &in.b},
                [a = Saved(in.a), b = Saved(in.b), sa = x.shape(), sb = y.shape()](Backward& g) {
                  if (g.needs(0)) g.set(0, sum_to(mul(g.grad, g.get(b)), sa));
                  if (g.needs(1)) g.set(1, sum_to(mul(g.grad, g.get(a)), sb));
                });
}

Tensor div(const Tensor& x, const Tensor& y) {
  const Operands in("div", x, y, Operands::Meet::kFloating);
  return record("div", run("div", BinaryOp::div, in.a, in.b), {&in.a, &in.b},
                [a = Saved(in.a), b = Saved(in.b), sa = x.shape()](Backward& g) {
                  const Tensor q = g.get(b);
                  if (g.needs(0)) g.set(0, sum_to(div(g.grad, q), sa));
                  if (!g.needs(1)) return;
                  const auto slope = [](const Tensor& grad, const Tensor& n, const Tensor& d) {
                    return neg(mul(div(grad, d), div(n, d)));
                  };
                  g.set(1, sum_to(in_full(slope, g.grad, g.get(a), q), q.shape()));
                });
}

namespace {

/// The gradients of p^q by p and by q.
Tensor pow_slope_of_base(const Tensor& g, const Tensor& p, const Tensor& q) {
  const Tensor none = Tensor::zeros({}, g.dtype(), g.device());
  return where(eq(q, 0), none, mul(g, mul(q, pow(p, sub(q, 1)))));
}
Tensor pow_slope_of_exponent(const Tensor& g, const Tensor& p, const Tensor& q, const Tensor& power) {
  // 0^q is 0 for all q > 0, although log(0) is not finite.
  const Tensor none = Tensor::zeros({}, g.dtype(), g.device());
  return mul(g, where(logical_and(eq(p, 0), ge(q, 0)), none, mul(power, log(p))));
}

}  // namespace

Tensor pow(const Tensor& x, const Tensor& y) {
  const Operands in("pow", x, y);
  if (in.a.dtype() == DType::kBool) return pow(to(in.a, DType::kFloat32), to(in.b, DType::kFloat32));
  const Tensor out = run("pow", BinaryOp::pow, in.a, in.b);
  return record("pow", out, {&in.a, &in.b},
                [a = Saved(in.a), b = Saved(in.b), y = Saved::output(out)](Backward& g) {
                  const Tensor p = g.get(a), q = g.get(b);
                  if (g.needs(0)) g.set(0, sum_to(in_full(pow_slope_of_base, g.grad, p, q), p.shape()));
                  if (g.needs(1))
                    g.set(1, sum_to(in_full(pow_slope_of_exponent, g.grad, p, q, g.get(y)), q.shape()));
                });
}

Tensor atan2(const Tensor& x, const Tensor& y) {
  const Operands in("atan2", x, y, Operands::Meet::kFloating);
  return record("atan2", run("atan2", BinaryOp::atan2, in.a, in.b), {&in.a, &in.b},
                [a = Saved(in.a), b = Saved(in.b)](Backward& g) {
                  // At the origin the slope is 0, as in PyTorch.
                  const auto slope = [](const Tensor& grad, const Tensor& one, const Tensor& other) {
                    const Tensor squares = add(square(one), square(other)),
                                 none = Tensor::zeros({}, grad.dtype(), grad.device());
                    return mul(grad, where(eq(squares, 0), none, div(other, squares)));
                  };
                  const Tensor p = g.get(a), q = g.get(b);
                  if (g.needs(0)) g.set(0, sum_to(in_full(slope, g.grad, p, q), p.shape()));
                  if (g.needs(1)) g.set(1, sum_to(neg(in_full(slope, g.grad, q, p)), q.shape()));
                });
}

namespace {

/// Divisions whose result is whole or a rest keep integers, so that these must not be divided by 0.
void check_divisible(const char* name, const Operands& in) {
  check_number(name, in.a);
  TRIREME_CHECK(
      is_floating(in.b.dtype()) || !any(eq(in.b, 0)).item(),
      "{}: division of {} by zero: the divisor {} has a 0; convert one operand to floating point with to()",
      name, name_of(in.a.dtype()), in.b.shape().to_string());
}

/// x - y * whole(x / y)
Tensor rest(const char* name, BinaryOp op, const Tensor& x, const Tensor& y,
            Tensor (*whole)(const Tensor&, const Tensor&)) {
  const Operands in(name, x, y);
  check_divisible(name, in);
  return record(name, run(name, op, in.a, in.b), {&in.a, &in.b},
                [a = Saved(in.a), b = Saved(in.b), whole](Backward& g) {
                  const Tensor p = g.get(a), q = g.get(b);
                  if (g.needs(0)) g.set(0, sum_to(g.grad, p.shape()));
                  if (g.needs(1))
                    g.set(1, sum_to(neg(mul(g.grad, whole(p.detach(), q.detach()))), q.shape()));
                });
}

Tensor truncated_quotient(const Tensor& x, const Tensor& y) { return trunc(div(x, y)); }

}  // namespace

Tensor remainder(const Tensor& x, const Tensor& y) {
  return rest("remainder", BinaryOp::remainder, x, y, floor_divide);
}
Tensor fmod(const Tensor& x, const Tensor& y) {
  return rest("fmod", BinaryOp::fmod, x, y, truncated_quotient);
}
Tensor floor_divide(const Tensor& x, const Tensor& y) {
  const Operands in("floor_divide", x, y);
  check_divisible("floor_divide", in);
  return run("floor_divide", BinaryOp::floor_divide, in.a, in.b);
}
Tensor operator/(Scalar value, const Tensor& x) { return div(scalar_like("div", x, value), x); }

Tensor remainder(const Tensor& x, Scalar value) {
  return remainder(scalar_operand("remainder", x, value), scalar_like("remainder", x, value));
}
Tensor fmod(const Tensor& x, Scalar value) {
  return fmod(scalar_operand("fmod", x, value), scalar_like("fmod", x, value));
}
Tensor floor_divide(const Tensor& x, Scalar value) {
  return floor_divide(scalar_operand("floor_divide", x, value), scalar_like("floor_divide", x, value));
}

Tensor maximum(const Tensor& a, const Tensor& b) { return extreme("maximum", BinaryOp::maximum, a, b, lt); }
Tensor minimum(const Tensor& a, const Tensor& b) { return extreme("minimum", BinaryOp::minimum, a, b, gt); }

namespace {

/// start + weight * (end - start), counted from the end that is nearer: a weight of 1 gives `end`, and
/// infinite gradients reach both ends.
Tensor lerped(const Tensor& from, const Tensor& to_, const Tensor& weight) {
  const auto value = [](const Tensor& start, const Tensor& end, const Tensor& w) {
    const Tensor distance = sub(end, start);
    return where(lt(abs(w), 0.5), add(start, mul(distance, w)), sub(end, mul(distance, rsub(w, 1))));
  };
  Tensor out;
  {
    const NoGrad unrecorded;
    out = in_full(value, from, to_, weight);
  }
  return record(
      "lerp", out, {&from, &to_, &weight},
      [from = Saved(from), to_ = Saved(to_), weight = Saved(weight)](Backward& g) {
        const Tensor start = g.get(from), end = g.get(to_), w = g.get(weight);
        const auto mine = [&](int i, const Tensor& t, const Tensor& gradient) {
          if (g.needs(i)) g.set(i, to(sum_to(gradient, t.shape()), t.dtype()));
        };
        const auto times = [](const Tensor& a, const Tensor& b) { return mul(a, b); };
        mine(0, start,
             in_full([](const Tensor& a, const Tensor& b) { return mul(a, rsub(b, 1)); }, g.grad, w));
        mine(1, end, in_full(times, g.grad, w));
        mine(2, w,
             in_full([](const Tensor& a, const Tensor& s, const Tensor& e) { return mul(a, sub(e, s)); },
                     g.grad, start, end));
      });
}

}  // namespace

Tensor lerp(const Tensor& start, const Tensor& end, double weight) {
  const Operands in("lerp", start, end);
  check_floating("lerp", start);
  return record("lerp", run("lerp", BinaryOp::lerp, in.a, in.b, {weight}), {&in.a, &in.b},
                [weight, sa = start.shape(), sb = end.shape()](Backward& g) {
                  if (g.needs(0)) g.set(0, sum_to(mul(g.grad, 1 - weight), sa));
                  if (g.needs(1)) g.set(1, sum_to(mul(g.grad, weight), sb));
                });
}
Tensor lerp(const Tensor& start, const Tensor& end, const Tensor& weight) {
  check_defined("lerp", {&end, &weight});
  check_floating("lerp", start);
  broadcast_shapes(broadcast_shapes(start.shape(), end.shape(), "lerp"), weight.shape(), "lerp");
  return lerped(start, end, weight);
}
Tensor addcmul(const Tensor& x, const Tensor& a, const Tensor& b, Scalar value) {
  check_defined("addcmul", {&a, &b});
  check_number("addcmul", x);
  broadcast_shapes(x.shape(), broadcast_shapes(a.shape(), b.shape(), "addcmul"), "addcmul");
  return in_full(
      [value](const Tensor& t, const Tensor& p, const Tensor& q) { return add(t, mul(mul(p, q), value)); }, x,
      a, b);
}
Tensor addcdiv(const Tensor& x, const Tensor& a, const Tensor& b, double value) {
  check_defined("addcdiv", {&a, &b});
  check_floating("addcdiv", x);
  broadcast_shapes(x.shape(), broadcast_shapes(a.shape(), b.shape(), "addcdiv"), "addcdiv");
  return in_full(
      [value](const Tensor& t, const Tensor& p, const Tensor& q) { return add(t, mul(div(p, q), value)); }, x,
      a, b);
}

Tensor where(const Tensor& condition, const Tensor& x, const Tensor& y) {
  check_defined("where", condition);
  TRIREME_CHECK(condition.dtype() == DType::kBool, "where: the condition must be bool, got {}",
                name_of(condition.dtype()));
  const Operands in("where", x, y);
  const Shape shape =
      broadcast_shapes(condition.shape(), broadcast_shapes(x.shape(), y.shape(), "where"), "where");
  const Tensor out = result_like(in.a, in.b, shape, in.a.dtype());
  kernels(x).where(out.view(), broadcast_view(condition, shape), broadcast_view(in.a, shape),
                   broadcast_view(in.b, shape));
  return record("where", out, {&in.a, &in.b},
                [condition = Saved(condition), sa = x.shape(), sb = y.shape()](Backward& g) {
                  const Tensor c = g.get(condition),
                               none = Tensor::zeros({}, g.grad.dtype(), g.grad.device());
                  if (g.needs(0)) g.set(0, sum_to(where(c, g.grad, none), sa));
                  if (g.needs(1)) g.set(1, sum_to(where(c, none, g.grad), sb));
                });
}

Tensor masked_fill(const Tensor& x, const Tensor& mask, Scalar value) {
  check_defined("masked_fill", {&x, &mask});
  TRIREME_CHECK(mask.dtype() == DType::kBool, "masked_fill: the mask must be bool, got {}",
                name_of(mask.dtype()));
  broadcast_shapes(x.shape(), mask.shape(), "masked_fill");
  check_fits("masked_fill", value, x.dtype());
  return where(mask, Tensor::full({}, value, x.dtype(), x.device()), x);
}

// clang-format off
#define TRIREME_COMPARE(name)                                                                              \
  Tensor name(const Tensor& a, const Tensor& b) { return compare(#name, CompareOp::name, a, b); }          \
  Tensor name(const Tensor& x, Scalar value) {                                                             \
    return compare(#name, CompareOp::name, scalar_operand(#name, x, value), scalar_like(#name, x, value)); \
  }
TRIREME_COMPARE(eq)
TRIREME_COMPARE(ne)
TRIREME_COMPARE(lt)
TRIREME_COMPARE(le)
TRIREME_COMPARE(gt)
TRIREME_COMPARE(ge)
#undef TRIREME_COMPARE
// clang-format on

Tensor logical_and(const Tensor& a, const Tensor& b) {
  return compare("logical_and", CompareOp::logical_and, a, b);
}
Tensor logical_or(const Tensor& a, const Tensor& b) {
  return compare("logical_or", CompareOp::logical_or, a, b);
}
Tensor logical_xor(const Tensor& a, const Tensor& b) {
  return compare("logical_xor", CompareOp::logical_xor, a, b);
}
Tensor logical_not(const Tensor& x) {
  check_defined("logical_not", x);
  return compare("logical_not", CompareOp::eq, x, Tensor::zeros({}, x.dtype(), x.device()));
}
Tensor isnan(const Tensor& x) { return compare("isnan", CompareOp::ne, x, x); }
Tensor isinf(const Tensor& x) { return eq(abs(as_floating("isinf", x).detach()), INFINITY); }
Tensor isfinite(const Tensor& x) { return lt(abs(as_floating("isfinite", x).detach()), INFINITY); }

Tensor to(const Tensor& t, DType dtype) {
  check_defined("to", t);
  if (t.dtype() == dtype) return t;
  const Tensor out = to_dtype(t, dtype);
  if (!is_floating(dtype)) return out;
  return record("to", out, {&t}, [dtype = t.dtype()](Backward& g) { g.set(0, to(g.grad, dtype)); });
}

Tensor to(const Tensor& t, Device device) {
  check_defined("to", t);
  if (t.device() == device) return t;
  return record("to", to_device(t, device), {&t},
                [device = t.device()](Backward& g) { g.set(0, to(g.grad, device)); });
}

}  // namespace trireme
