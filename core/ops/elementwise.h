// Ops that treat each element by itself. See ops.h for the rules of all ops.
#pragma once

#include <optional>

#include "core/tensor/tensor.h"

namespace trireme {

// --- unary.cpp: elementwise; integers become float32 where results are fractions; `op_` changes its argument
Tensor neg(const Tensor& x);
Tensor abs(const Tensor& x);
Tensor sign(const Tensor& x);
Tensor square(const Tensor& x);
Tensor relu(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor exp2(const Tensor& x);
Tensor expm1(const Tensor& x);
Tensor log(const Tensor& x);
Tensor log2(const Tensor& x);
Tensor log10(const Tensor& x);
Tensor log1p(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor rsqrt(const Tensor& x);
Tensor reciprocal(const Tensor& x);
Tensor sin(const Tensor& x);
Tensor cos(const Tensor& x);
Tensor tan(const Tensor& x);
Tensor asin(const Tensor& x);
Tensor acos(const Tensor& x);
Tensor atan(const Tensor& x);
Tensor sinh(const Tensor& x);
Tensor cosh(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor erf(const Tensor& x);
Tensor erfc(const Tensor& x);
Tensor floor(const Tensor& x);
Tensor ceil(const Tensor& x);
Tensor round(const Tensor& x);
Tensor trunc(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor log_sigmoid(const Tensor& x);
Tensor softplus(const Tensor& x);
Tensor silu(const Tensor& x);
/// kNone: x * Phi(x); kTanh: its approximation. D. Hendrycks, K. Gimpel, "Gaussian error linear units", 2016.
enum class Gelu { kNone, kTanh };
Tensor gelu(const Tensor& x, Gelu approximate = Gelu::kNone);
Tensor leaky_relu(const Tensor& x, double negative_slope = 0.01);
Tensor elu(const Tensor& x, double alpha = 1);
Tensor relu6(const Tensor& x);
Tensor hardtanh(const Tensor& x, double low = -1, double high = 1);
/// At least one bound must be given. If low is above high, every element becomes high. If a bound is NaN,
/// every element becomes NaN.
Tensor clamp(const Tensor& x, std::optional<Scalar> low, std::optional<Scalar> high = {});
/// Replaces NaN by `nan`, and infinities by the largest finite numbers of their sign. Tensors of integers and
/// bool are copied.
Tensor nan_to_num(const Tensor& x, double nan = 0);
Tensor add(const Tensor& x, Scalar value);
Tensor sub(const Tensor& x, Scalar value);
Tensor rsub(const Tensor& x, Scalar value);  ///< value - x
Tensor mul(const Tensor& x, Scalar value);
Tensor div(const Tensor& x, Scalar value);
/// Integers to whole powers stay integers, which wrap around; the exponent must be at least 0.
Tensor pow(const Tensor& x, Scalar exponent);
Tensor pow(Scalar base, const Tensor& x);

const Tensor& neg_(const Tensor& t);
const Tensor& abs_(const Tensor& t);
const Tensor& sign_(const Tensor& t);
const Tensor& square_(const Tensor& t);
const Tensor& relu_(const Tensor& t);
const Tensor& exp_(const Tensor& t);
const Tensor& exp2_(const Tensor& t);
const Tensor& expm1_(const Tensor& t);
const Tensor& log_(const Tensor& t);
const Tensor& log2_(const Tensor& t);
const Tensor& log10_(const Tensor& t);
const Tensor& log1p_(const Tensor& t);
const Tensor& sqrt_(const Tensor& t);
const Tensor& rsqrt_(const Tensor& t);
const Tensor& reciprocal_(const Tensor& t);
const Tensor& sin_(const Tensor& t);
const Tensor& cos_(const Tensor& t);
const Tensor& tan_(const Tensor& t);
const Tensor& asin_(const Tensor& t);
const Tensor& acos_(const Tensor& t);
const Tensor& atan_(const Tensor& t);
const Tensor& sinh_(const Tensor& t);
const Tensor& cosh_(const Tensor& t);
const Tensor& tanh_(const Tensor& t);
const Tensor& erf_(const Tensor& t);
const Tensor& erfc_(const Tensor& t);
const Tensor& floor_(const Tensor& t);
const Tensor& ceil_(const Tensor& t);
const Tensor& round_(const Tensor& t);
const Tensor& trunc_(const Tensor& t);
const Tensor& sigmoid_(const Tensor& t);
const Tensor& log_sigmoid_(const Tensor& t);
const Tensor& softplus_(const Tensor& t);
const Tensor& silu_(const Tensor& t);

// --- binary.cpp: elementwise; inputs broadcast and are promoted to a common dtype by PyTorch's rule
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);  ///< integers give float32
/// Integers stay integers, which wrap around; a negative exponent gives 0 for bases other than 1 and -1.
Tensor pow(const Tensor& a, const Tensor& b);
Tensor atan2(const Tensor& y, const Tensor& x);
/// a - b * floor(a / b), with the sign of b; a - b * trunc(a / b), with the sign of a; floor(a / b). Integers
/// stay integers, and throw where b is 0.
Tensor remainder(const Tensor& a, const Tensor& b);
Tensor fmod(const Tensor& a, const Tensor& b);
Tensor floor_divide(const Tensor& a, const Tensor& b);  ///< has no gradient
Tensor remainder(const Tensor& x, Scalar value);
Tensor fmod(const Tensor& x, Scalar value);
Tensor floor_divide(const Tensor& x, Scalar value);
/// If a == b, each input gets half of the gradient. If either input is NaN, each gets all of it.
Tensor maximum(const Tensor& a, const Tensor& b);
Tensor minimum(const Tensor& a, const Tensor& b);
/// start + weight * (end - start)
Tensor lerp(const Tensor& start, const Tensor& end, double weight);
Tensor lerp(const Tensor& start, const Tensor& end, const Tensor& weight);
/// x + value * a * b, x + value * a / b
Tensor addcmul(const Tensor& x, const Tensor& a, const Tensor& b, Scalar value = 1);
Tensor addcdiv(const Tensor& x, const Tensor& a, const Tensor& b, double value = 1);
/// Returns x where the condition (bool) is true, else y.
Tensor where(const Tensor& condition, const Tensor& x, const Tensor& y);
Tensor masked_fill(const Tensor& x, const Tensor& mask, Scalar value);
inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator+(const Tensor& x, Scalar value) { return add(x, value); }
inline Tensor operator-(const Tensor& x, Scalar value) { return sub(x, value); }
inline Tensor operator*(const Tensor& x, Scalar value) { return mul(x, value); }
inline Tensor operator/(const Tensor& x, Scalar value) { return div(x, value); }
inline Tensor operator+(Scalar value, const Tensor& x) { return add(x, value); }
inline Tensor operator-(Scalar value, const Tensor& x) { return rsub(x, value); }
inline Tensor operator*(Scalar value, const Tensor& x) { return mul(x, value); }
Tensor operator/(Scalar value, const Tensor& x);
inline Tensor operator-(const Tensor& x) { return neg(x); }

/// Comparisons and tests give bool and have no gradient.
Tensor eq(const Tensor& a, const Tensor& b);
Tensor ne(const Tensor& a, const Tensor& b);
Tensor lt(const Tensor& a, const Tensor& b);
Tensor le(const Tensor& a, const Tensor& b);
Tensor gt(const Tensor& a, const Tensor& b);
Tensor ge(const Tensor& a, const Tensor& b);
Tensor eq(const Tensor& x, Scalar value);
Tensor ne(const Tensor& x, Scalar value);
Tensor lt(const Tensor& x, Scalar value);
Tensor le(const Tensor& x, Scalar value);
Tensor gt(const Tensor& x, Scalar value);
Tensor ge(const Tensor& x, Scalar value);
Tensor logical_and(const Tensor& a, const Tensor& b);
Tensor logical_or(const Tensor& a, const Tensor& b);
Tensor logical_xor(const Tensor& a, const Tensor& b);
Tensor logical_not(const Tensor& x);
Tensor isnan(const Tensor& x);
Tensor isinf(const Tensor& x);
Tensor isfinite(const Tensor& x);
/// Returns t in another dtype. Gradients flow between floating point dtypes.
Tensor to(const Tensor& t, DType dtype);
/// Returns t on another device. Gradients flow back.
Tensor to(const Tensor& t, Device device);

// --- in_place.cpp: other inputs broadcast to t and take its dtype; t's version rises
const Tensor& add_(const Tensor& t, const Tensor& other);
const Tensor& sub_(const Tensor& t, const Tensor& other);
const Tensor& mul_(const Tensor& t, const Tensor& other);
const Tensor& div_(const Tensor& t, const Tensor& other);
const Tensor& add_(const Tensor& t, Scalar value);
const Tensor& mul_(const Tensor& t, Scalar value);
const Tensor& clamp_(const Tensor& t, std::optional<Scalar> low, std::optional<Scalar> high = {});
const Tensor& masked_fill_(const Tensor& t, const Tensor& mask, Scalar value);
const Tensor& fill_(const Tensor& t, Scalar value);
const Tensor& zero_(const Tensor& t);
const Tensor& copy_(const Tensor& t, const Tensor& other);

}  // namespace trireme
