// Ops that change their first argument. All others of the kind `op_` are the op itself and copy_.
#include "core/ops/in_place.h"

#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// `other` broadcast to t's shape; in memory of its own if the op would change elements before reading them.
struct Operand {
  Operand(const char* op, const Tensor& t, const Tensor& other) {
    check_defined(op, t);
    check_defined(op, other);
    TRIREME_CHECK(t.device() == other.device(), "{}: devices {} and {} differ", op, name_of(t.device()),
                  name_of(other.device()));
    TRIREME_CHECK(is_floating(t.dtype()) || !is_floating(other.dtype()),
                  "{}: a result of {} does not fit into {}; convert the target with to()", op,
                  name_of(other.dtype()), name_of(t.dtype()));
    TRIREME_CHECK(broadcast_shapes(t.shape(), other.shape(), op) == t.shape(),
                  "{}: shape {} does not broadcast to {}, the shape of what is changed", op,
                  other.shape().to_string(), t.shape().to_string());
    const bool same_elements =
        other.offset() == t.offset() && other.shape() == t.shape() && other.strides() == t.strides();
    memory = other.impl()->storage == t.impl()->storage && !same_elements ? other.detach().clone()
                                                                          : to_dtype(other, t.dtype());
    view = broadcast_view(memory, t.shape());
  }
  Tensor memory;
  View view;
};

const Tensor& binary_in_place(const char* name, BinaryOp op, const Tensor& t, const Tensor& other) {
  check_number(name, t);
  const Operand operand(name, t, other);
  check_in_place(name, t);
  kernels(t).binary(op, t.view(), t.view(), operand.view);
  t.bump_version(name);
  return t;
}

/// An op by a scalar whose derivative is `factor`.
const Tensor& unary_in_place(const char* name, UnaryOp op, const Tensor& t, Scalar value, Scalar factor) {
  check_number(name, t);
  TRIREME_CHECK(is_floating(t.dtype()) || (value.is_whole() && value.fits(t.dtype())),
                "{}: {} does not fit into {}; convert the target with to()", name, value.to_string(),
                name_of(t.dtype()));
  check_in_place(name, t);
  kernels(t).unary(op, t.view(), t.view(), {value});
  t.bump_version(name);
  record_in_place(name, t, {}, [factor](Backward& g) { g.set(0, mul(g.grad, factor)); });
  return t;
}

}  // namespace

const Tensor& add_(const Tensor& t, const Tensor& other) {
  binary_in_place("add_", BinaryOp::add, t, other);
  record_in_place("add_", t, {&other}, [shape = other.shape(), dtype = other.dtype()](Backward& g) {
    g.set(0, g.grad);
    if (g.needs(1)) g.set(1, to(sum_to(g.grad, shape), dtype));
  });
  return t;
}

const Tensor& mul_(const Tensor& t, const Tensor& other) {
  if (!recording({&t, &other})) return binary_in_place("mul_", BinaryOp::mul, t, other);
  // Backward needs what both were.
  const bool shared = other.impl()->storage == t.impl()->storage;
  const Tensor factor = to(shared ? other.clone() : other, t.dtype()),
               old = other.requires_grad() ? t.clone() : Tensor();
  binary_in_place("mul_", BinaryOp::mul, t, factor);
  record_in_place("mul_", t, {&factor},
                  [old = Saved(old), factor = Saved(factor), shape = factor.shape()](Backward& g) {
                    if (g.needs(0)) g.set(0, mul(g.grad, g.get(factor)));
                    if (g.needs(1)) g.set(1, sum_to(mul(g.grad, g.get(old)), shape));
                  });
  return t;
}

const Tensor& sub_(const Tensor& t, const Tensor& other) {
  if (!recording({&t, &other})) return binary_in_place("sub_", BinaryOp::sub, t, other);
  return assign_("sub_", t, sub(t, other));
}

const Tensor& div_(const Tensor& t, const Tensor& other) {
  check_floating("div_", t);
  if (!recording({&t, &other})) return binary_in_place("div_", BinaryOp::div, t, other);
  return assign_("div_", t, div(t.clone(), other));
}

const Tensor& add_(const Tensor& t, Scalar value) {
  return unary_in_place("add_", UnaryOp::add_scalar, t, value, 1);
}
const Tensor& mul_(const Tensor& t, Scalar value) {
  return unary_in_place("mul_", UnaryOp::mul_scalar, t, value, value);
}

const Tensor& clamp_(const Tensor& t, std::optional<Scalar> low, std::optional<Scalar> high) {
  check_number("clamp_", t);
  const Tensor result = clamp(recording({&t}) ? t.clone() : t, low, high);
  TRIREME_CHECK(result.dtype() == t.dtype(), "clamp_: bounds with fractions do not fit into {}",
                name_of(t.dtype()));
  return assign_("clamp_", t, result);
}

const Tensor& masked_fill_(const Tensor& t, const Tensor& mask, Scalar value) {
  check_defined("masked_fill_", {&t, &mask});
  return assign_("masked_fill_", t, masked_fill(t, mask, value));
}

const Tensor& zero_(const Tensor& t) {
  check_defined("zero_", t);
  return fill_(t, 0);
}

const Tensor& fill_(const Tensor& t, Scalar value) {
  check_defined("fill_", t);
  check_fits("fill_", value, t.dtype());
  check_in_place("fill_", t);
  kernels(t).fill(t.view(), value);
  t.bump_version("fill_");
  record_in_place("fill_", t, {}, [](Backward&) {});  // nothing flows to what was overwritten
  return t;
}

const Tensor& assign_(const char* name, const Tensor& t, const Tensor& other) {
  check_defined(name, other);
  check_in_place(name, t);
  TRIREME_CHECK(t.device() == other.device(), "{}: devices {} and {} differ", name, name_of(t.device()),
                name_of(other.device()));
  const bool shared = other.impl()->storage == t.impl()->storage;
  copy_into(t, shared ? other.detach().clone() : other);
  t.bump_version(name);
  record_in_place(name, t, {&other}, [shape = other.shape(), dtype = other.dtype()](Backward& g) {
    if (g.needs(1)) g.set(1, to(sum_to(g.grad, shape), dtype));
  });
  return t;
}

const Tensor& copy_(const Tensor& t, const Tensor& other) { return assign_("copy_", t, other); }

}  // namespace trireme
