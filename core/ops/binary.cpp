// Elementwise functions of two or three tensors, comparisons and conversions.
#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/operands.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

Tensor run(const char* name, BinaryOp op, const Tensor& a, const Tensor& b) {
  number(name, a);
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), name);
  const Tensor out = result_like(a, b, shape, a.dtype());
  kernels(a).binary(op, out.view(), broadcast_view(a, shape), broadcast_view(b, shape));
  return out;
}

Tensor compare(const char* name, CompareOp op, const Tensor& x, const Tensor& y) {
  const Operands in(name, x, y);
  const Shape shape = broadcast_shapes(x.shape(), y.shape(), name);
  const Tensor out = result_like(in.a, in.b, shape, DType::kBool);
  kernels(x).compare(op, out.view(), broadcast_view(in.a, shape), broadcast_view(in.b, shape));
  return out;
}

/// The gradient of maximum or minimum: all to the winner, halves where both are equal.
Tensor extreme(const char* name, BinaryOp op, const Tensor& x, const Tensor& y,
               Tensor (*wins)(const Tensor&, const Tensor&)) {
  const Operands in(name, x, y);
  return record(name, run(name, op, in.a, in.b), {&in.a, &in.b},
                [a = Saved(in.a), b = Saved(in.b), wins](Backward& g) {
                  const Tensor p = g.get(a).detach(), q = g.get(b).detach(), half = mul(g.grad, 0.5);
                  const Tensor tie = eq(p, q), none = mul(g.grad, 0);
                  if (g.needs(0))
                    g.set(0, sum_to(where(tie, half, where(wins(p, q), g.grad, none)), p.shape()));
                  if (g.needs(1))
                    g.set(1, sum_to(where(tie, half, where(wins(q, p), g.grad, none)), q.shape()));
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
                  const Tensor q = g.get(b), scaled = div(g.grad, q);
                  if (g.needs(0)) g.set(0, sum_to(scaled, sa));
                  if (g.needs(1)) g.set(1, sum_to(neg(mul(scaled, div(g.get(a), q))), q.shape()));
                });
}

Tensor pow(const Tensor& x, const Tensor& y) {
  const Operands in("pow", x, y, Operands::Meet::kFloating);
  const Tensor out = run("pow", BinaryOp::pow, in.a, in.b);
  return record("pow", out, {&in.a, &in.b},
                [a = Saved(in.a), b = Saved(in.b), y = Saved::output(out)](Backward& g) {
                  const Tensor p = g.get(a), q = g.get(b);
                  if (g.needs(0)) {
                    const Tensor d = mul(g.grad, mul(q, pow(p, sub(q, 1))));
                    g.set(0, sum_to(where(eq(q, 0), mul(g.grad, 0), d), p.shape()));
                  }
                  if (g.needs(1)) {
                    // 0^q is 0 for all q > 0, although log(0) is not finite.
                    const Tensor d = mul(g.grad, mul(g.get(y), log(p)));
                    g.set(1, sum_to(where(logical_and(eq(p, 0), ge(q, 0)), mul(g.grad, 0), d), q.shape()));
                  }
                });
}

Tensor atan2(const Tensor& x, const Tensor& y) {
  const Operands in("atan2", x, y, Operands::Meet::kFloating);
  return record("atan2", run("atan2", BinaryOp::atan2, in.a, in.b), {&in.a, &in.b},
                [a = Saved(in.a), b = Saved(in.b)](Backward& g) {
                  const Tensor p = g.get(a), q = g.get(b), scaled = div(g.grad, add(square(p), square(q)));
                  if (g.needs(0)) g.set(0, sum_to(mul(scaled, q), p.shape()));
                  if (g.needs(1)) g.set(1, sum_to(neg(mul(scaled, p)), q.shape()));
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
Tensor remainder(const Tensor& x, double value) {
  return remainder(scalar_operand("remainder", x, value), scalar_like("remainder", x, value));
}
Tensor fmod(const Tensor& x, double value) {
  return fmod(scalar_operand("fmod", x, value), scalar_like("fmod", x, value));
}
Tensor floor_divide(const Tensor& x, double value) {
  return floor_divide(scalar_operand("floor_divide", x, value), scalar_like("floor_divide", x, value));
}

Tensor maximum(const Tensor& a, const Tensor& b) { return extreme("maximum", BinaryOp::maximum, a, b, gt); }
Tensor minimum(const Tensor& a, const Tensor& b) { return extreme("minimum", BinaryOp::minimum, a, b, lt); }

Tensor lerp(const Tensor& start, const Tensor& end, double weight) {
  check_defined("lerp", end);
  check_floating("lerp", start);
  broadcast_shapes(start.shape(), end.shape(), "lerp");
  return add(start, mul(sub(end, start), weight));
}
Tensor lerp(const Tensor& start, const Tensor& end, const Tensor& weight) {
  check_defined("lerp", {&end, &weight});
  check_floating("lerp", start);
  broadcast_shapes(broadcast_shapes(start.shape(), end.shape(), "lerp"), weight.shape(), "lerp");
  return add(start, mul(weight, sub(end, start)));
}
Tensor addcmul(const Tensor& x, const Tensor& a, const Tensor& b, double value) {
  check_defined("addcmul", {&a, &b});
  check_number("addcmul", x);
  broadcast_shapes(x.shape(), broadcast_shapes(a.shape(), b.shape(), "addcmul"), "addcmul");
  return add(x, mul(mul(a, b), value));
}
Tensor addcdiv(const Tensor& x, const Tensor& a, const Tensor& b, double value) {
  check_defined("addcdiv", {&a, &b});
  check_floating("addcdiv", x);
  broadcast_shapes(x.shape(), broadcast_shapes(a.shape(), b.shape(), "addcdiv"), "addcdiv");
  return add(x, mul(div(a, b), value));
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

Tensor masked_fill(const Tensor& x, const Tensor& mask, double value) {
  check_defined("masked_fill", {&x, &mask});
  TRIREME_CHECK(mask.dtype() == DType::kBool, "masked_fill: the mask must be bool, got {}",
                name_of(mask.dtype()));
  broadcast_shapes(x.shape(), mask.shape(), "masked_fill");
  return where(mask, Tensor::full({}, value, x.dtype(), x.device()), x);
}

// clang-format off
#define TRIREME_COMPARE(name)                                                                              \
  Tensor name(const Tensor& a, const Tensor& b) { return compare(#name, CompareOp::name, a, b); }          \
  Tensor name(const Tensor& x, double value) {                                                             \
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
