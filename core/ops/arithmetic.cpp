#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

Tensor unary_kernel(const char* name, UnaryOp op, const Tensor& x, double a = 0) {
  check_number(name, x);
  Tensor out = Tensor::empty_like(x);
  kernels(x).unary(op, out.view(), x.view(), a);
  return out;
}

Tensor floating_kernel(const char* name, UnaryOp op, const Tensor& x, double a = 0) {
  check_floating(name, x);
  return unary_kernel(name, op, x, a);
}

Tensor scalar_kernel(const char* name, UnaryOp op, const Tensor& x, double value) {
  check_scalar(name, x, value);
  return unary_kernel(name, op, x, value);
}

/// Memory order of the result: that of the first input that has the result's shape.
Tensor result_like(const Tensor& a, const Tensor& b, const Shape& shape, DType dtype) {
  for (const Tensor* t : {&a, &b})
    if (t->shape() == shape && t->dtype() == dtype) return Tensor::empty_like(*t);
  return Tensor::empty(shape, dtype, a.device());
}

Tensor binary_kernel(const char* name, BinaryOp op, const Tensor& a, const Tensor& b) {
  check_same_kind(name, {&a, &b});
  check_number(name, a);
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), name);
  Tensor out = result_like(a, b, shape, a.dtype());
  kernels(a).binary(op, out.view(), broadcast_view(a, shape), broadcast_view(b, shape));
  return out;
}

Tensor compare_kernel(const char* name, CompareOp op, const Tensor& a, const Tensor& b) {
  check_same_kind(name, {&a, &b});
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), name);
  Tensor out = Tensor::empty(shape, DType::kBool, a.device());
  kernels(a).compare(op, out.view(), broadcast_view(a, shape), broadcast_view(b, shape));
  return out;
}

/// d(relu)/dx applied to g, itself differentiable in g.
Tensor relu_backward(const Tensor& g, const Tensor& y) {
  const Tensor out = binary_kernel("relu_backward", BinaryOp::relu_backward, g, y);
  return record("relu_backward", out, {&g},
                [y = Saved(y)](Backward& b) { b.set(0, relu_backward(b.grad, b.get(y))); });
}

/// 1 where a wins, 1/2 where equal, 0 elsewhere; no gradient.
Tensor share(const Tensor& wins, const Tensor& ties, DType dtype) {
  return to(wins, dtype) + to(ties, dtype) * 0.5;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  const Tensor out = binary_kernel("add", BinaryOp::add, a, b);
  return record("add", out, {&a, &b}, [sa = a.shape(), sb = b.shape()](Backward& g) {
    if (g.needs(0)) g.set(0, sum_to(g.grad, sa));
    if (g.needs(1)) g.set(1, sum_to(g.grad, sb));
  });
}

Tensor sub(const Tensor& a, const Tensor& b) {
  const Tensor out = binary_kernel("sub", BinaryOp::sub, a, b);
  return record("sub", out, {&a, &b}, [sa = a.shape(), sb = b.shape()](Backward& g) {
    if (g.needs(0)) g.set(0, sum_to(g.grad, sa));
    if (g.needs(1)) g.set(1, sum_to(neg(g.grad), sb));
  });
}

Tensor mul(const Tensor& a, const Tensor& b) {
  const Tensor out = binary_kernel("mul", BinaryOp::mul, a, b);
  return record("mul", out, {&a, &b},
                [a = Saved(a), b = Saved(b), sa = a.shape(), sb = b.shape()](Backward& g) {
                  if (g.needs(0)) g.set(0, sum_to(mul(g.grad, g.get(b)), sa));
                  if (g.needs(1)) g.set(1, sum_to(mul(g.grad, g.get(a)), sb));
                });
}

Tensor div(const Tensor& a, const Tensor& b) {
  check_floating("div", a);
  const Tensor out = binary_kernel("div", BinaryOp::div, a, b);
  return record("div", out, {&a, &b}, [a = Saved(a), b = Saved(b), sa = a.shape()](Backward& g) {
    const Tensor y = g.get(b), scaled = div(g.grad, y);
    if (g.needs(0)) g.set(0, sum_to(scaled, sa));
    if (g.needs(1)) g.set(1, sum_to(neg(mul(scaled, div(g.get(a), y))), y.shape()));
  });
}

Tensor add(const Tensor& x, double value) {
  const Tensor out = scalar_kernel("add", UnaryOp::add_scalar, x, value);
  return record("add", out, {&x}, [](Backward& g) { g.set(0, g.grad); });
}

Tensor mul(const Tensor& x, double value) {
  const Tensor out = scalar_kernel("mul", UnaryOp::mul_scalar, x, value);
  return record("mul", out, {&x}, [value](Backward& g) { g.set(0, mul(g.grad, value)); });
}

Tensor maximum(const Tensor& a, const Tensor& b) {
  const Tensor out = binary_kernel("maximum", BinaryOp::maximum, a, b);
  return record("maximum", out, {&a, &b}, [a = Saved(a), b = Saved(b)](Backward& g) {
    const Tensor x = g.get(a), y = g.get(b), ties = eq(x, y);
    if (g.needs(0)) g.set(0, sum_to(mul(g.grad, share(gt(x, y), ties, x.dtype())), x.shape()));
    if (g.needs(1)) g.set(1, sum_to(mul(g.grad, share(gt(y, x), ties, x.dtype())), y.shape()));
  });
}

Tensor minimum(const Tensor& a, const Tensor& b) {
  const Tensor out = binary_kernel("minimum", BinaryOp::minimum, a, b);
  return record("minimum", out, {&a, &b}, [a = Saved(a), b = Saved(b)](Backward& g) {
    const Tensor x = g.get(a), y = g.get(b), ties = eq(x, y);
    if (g.needs(0)) g.set(0, sum_to(mul(g.grad, share(lt(x, y), ties, x.dtype())), x.shape()));
    if (g.needs(1)) g.set(1, sum_to(mul(g.grad, share(lt(y, x), ties, x.dtype())), y.shape()));
  });
}

Tensor neg(const Tensor& x) {
  const Tensor out = unary_kernel("neg", UnaryOp::neg, x);
  return record("neg", out, {&x}, [](Backward& g) { g.set(0, neg(g.grad)); });
}

Tensor abs(const Tensor& x) {
  const Tensor out = unary_kernel("abs", UnaryOp::abs, x);
  return record("abs", out, {&x}, [x = Saved(x)](Backward& g) { g.set(0, mul(g.grad, sign(g.get(x)))); });
}

Tensor sign(const Tensor& x) { return unary_kernel("sign", UnaryOp::sign, x); }

Tensor exp(const Tensor& x) {
  const Tensor y = floating_kernel("exp", UnaryOp::exp, x);
  return record("exp", y, {&x}, [y = Saved::output(y)](Backward& g) { g.set(0, mul(g.grad, g.get(y))); });
}

Tensor log(const Tensor& x) {
  const Tensor out = floating_kernel("log", UnaryOp::log, x);
  return record("log", out, {&x}, [x = Saved(x)](Backward& g) { g.set(0, div(g.grad, g.get(x))); });
}

Tensor sqrt(const Tensor& x) {
  const Tensor y = floating_kernel("sqrt", UnaryOp::sqrt, x);
  return record("sqrt", y, {&x},
                [y = Saved::output(y)](Backward& g) { g.set(0, div(mul(g.grad, 0.5), g.get(y))); });
}

Tensor tanh(const Tensor& x) {
  const Tensor y = floating_kernel("tanh", UnaryOp::tanh, x);
  return record("tanh", y, {&x}, [y = Saved::output(y)](Backward& g) {
    const Tensor t = g.get(y);
    g.set(0, mul(g.grad, add(neg(mul(t, t)), 1)));
  });
}

Tensor sigmoid(const Tensor& x) {
  const Tensor y = floating_kernel("sigmoid", UnaryOp::sigmoid, x);
  return record("sigmoid", y, {&x}, [y = Saved::output(y)](Backward& g) {
    const Tensor s = g.get(y);
    g.set(0, mul(g.grad, mul(s, add(neg(s), 1))));
  });
}

Tensor relu(const Tensor& x) {
  const Tensor y = unary_kernel("relu", UnaryOp::relu, x);
  return record("relu", y, {&x},
                [y = Saved::output(y)](Backward& g) { g.set(0, relu_backward(g.grad, g.get(y))); });
}

Tensor pow(const Tensor& x, double exponent) {
  const Tensor out = floating_kernel("pow", UnaryOp::pow_scalar, x, exponent);
  return record("pow", out, {&x}, [x = Saved(x), exponent](Backward& g) {
    g.set(0, exponent == 0 ? mul(g.grad, 0.0) : mul(g.grad, mul(pow(g.get(x), exponent - 1), exponent)));
  });
}

Tensor eq(const Tensor& a, const Tensor& b) { return compare_kernel("eq", CompareOp::eq, a, b); }
Tensor ne(const Tensor& a, const Tensor& b) { return compare_kernel("ne", CompareOp::ne, a, b); }
Tensor lt(const Tensor& a, const Tensor& b) { return compare_kernel("lt", CompareOp::lt, a, b); }
Tensor le(const Tensor& a, const Tensor& b) { return compare_kernel("le", CompareOp::le, a, b); }
Tensor gt(const Tensor& a, const Tensor& b) { return compare_kernel("gt", CompareOp::gt, a, b); }
Tensor ge(const Tensor& a, const Tensor& b) { return compare_kernel("ge", CompareOp::ge, a, b); }

Tensor to(const Tensor& t, DType dtype) {
  check_defined("to", t);
  if (t.dtype() == dtype) return t;
  const Tensor out = to_dtype(t, dtype);
  if (!is_floating(dtype)) return out;
  return record("to", out, {&t}, [dtype = t.dtype()](Backward& g) { g.set(0, to(g.grad, dtype)); });
}

}  // namespace trireme
