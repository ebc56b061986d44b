#include "core/nn/init.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/autograd/autograd.h"
#include "core/nn/module.h"
#include "core/ops/ops.h"

namespace trireme::nn {

Tensor default_parameter(const Shape& shape, std::int64_t fan_in) {
  const double bound = fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0;
  return uniform(shape, next_initial_key(), -bound, bound).set_requires_grad(true);
}

Tensor constant_parameter(const Shape& shape, double value) {
  return Tensor::full(shape, value).set_requires_grad(true);
}

namespace init {

namespace {

const Tensor& assign(const Tensor& t, const Tensor& values) {
  const NoGrad off;
  return copy_(t, values);
}

/// Numbers are drawn as float32 for types that are narrower.
DType drawn_as(const Tensor& t) { return t.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32; }

/// Returns the number at which the integral of the normal distribution reaches p.
double normal_quantile(double p) {
  if (p > 0.5) return -normal_quantile(1 - p);
  p = std::max(p, 1e-300);
  // S. Winitzki's approximation (2008) of y with erfc(y) = 2p, then Newton's steps for log erfc, which is
  // nearly a parabola far out.
  const double l = std::log(4 * p * (1 - p)), a = 0.147, b = 2 / (std::numbers::pi * a) + l / 2;
  double y = std::sqrt(std::max(0.0, std::sqrt(b * b - l / a) - b));
  for (int step = 0; step < 2; ++step) {
    const double tail = std::erfc(y);
    y += std::log(tail / (2 * p)) * tail * std::exp(y * y) * std::sqrt(std::numbers::pi) / 2;
  }
  return -y * std::numbers::sqrt2;
}

double normal_integral(double x) { return std::erfc(-x / std::numbers::sqrt2) / 2; }

}  // namespace

const Tensor& constant_(const Tensor& t, double value) {
  const NoGrad off;
  return fill_(t, value);
}
const Tensor& zeros_(const Tensor& t) { return constant_(t, 0); }
const Tensor& ones_(const Tensor& t) { return constant_(t, 1); }

const Tensor& uniform_(const Tensor& t, double low, double high) {
  return assign(t, uniform(t.shape(), next_initial_key(), low, high, drawn_as(t)));
}

const Tensor& normal_(const Tensor& t, double mean, double std) {
  return assign(t, normal(t.shape(), next_initial_key(), mean, std, drawn_as(t)));
}

const Tensor& trunc_normal_(const Tensor& t, double mean, double std, double low, double high) {
  TRIREME_CHECK(low < high && std > 0, "trunc_normal_: bounds {} and {}, std {}", low, high, std);
  // Mirrored where all lies above the mean: there the integral is too close to 1 to tell places apart.
  const double sign = low > mean ? -1 : 1;
  const double from = normal_integral(sign * ((sign > 0 ? low : high) - mean) / std);
  const double to = normal_integral(sign * ((sign > 0 ? high : low) - mean) / std);
  std::vector<double> values =
      uniform(t.shape(), next_initial_key(), 0, 1, DType::kFloat64).to_vector<double>();
  for (double& v : values)
    v = std::clamp(mean + std * sign * normal_quantile(from + (to - from) * v), low, high);
  return assign(t, Tensor::from(values, t.shape()));
}

double gain_of(Nonlinearity nonlinearity, double slope) {
  switch (nonlinearity) {
    case Nonlinearity::kTanh:
      return 5.0 / 3;
    case Nonlinearity::kRelu:
      return std::numbers::sqrt2;
    case Nonlinearity::kLeakyRelu:
      return std::sqrt(2 / (1 + slope * slope));
    case Nonlinearity::kSelu:
      return 0.75;
    default:
      return 1;
  }
}

Fans fans_of(const Tensor& weight) {
  TRIREME_CHECK(weight.dim() >= 2, "init: a weight of shape {} has no fan; it needs two dimensions",
                weight.shape().to_string());
  std::int64_t window = 1;
  for (int d = 2; d < weight.dim(); ++d) window *= weight.size(d);
  return {weight.size(1) * window, weight.size(0) * window};
}

namespace {

double xavier_std(const Tensor& t, double gain) {
  const Fans fans = fans_of(t);
  return gain * std::sqrt(2.0 / static_cast<double>(std::max<std::int64_t>(1, fans.in + fans.out)));
}

double kaiming_std(const Tensor& t, const Kaiming& how) {
  const Fans fans = fans_of(t);
  const std::int64_t fan = how.fan == Fan::kIn ? fans.in : fans.out;
  return gain_of(how.nonlinearity, how.a) / std::sqrt(static_cast<double>(std::max<std::int64_t>(1, fan)));
}

const Tensor& uniform_of_std(const Tensor& t, double std) {
  const double bound = std::numbers::sqrt3 * std;
  return uniform_(t, -bound, bound);
}

/// Row r of a row-major matrix.
std::span<double> row_of(std::vector<double>& m, std::int64_t r, std::int64_t width) {
  return std::span(m).subspan(static_cast<std::size_t>(r * width), static_cast<std::size_t>(width));
}

/// Makes the rows orthonormal, by Gram and Schmidt, twice for precision.
void make_orthonormal(std::vector<double>& m, std::int64_t rows, std::int64_t width) {
  const auto dot = [](std::span<const double> a, std::span<const double> b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  };
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::span<double> row = row_of(m, r, width);
    for (int pass = 0; pass < 2; ++pass)
      for (std::int64_t other = 0; other < r; ++other) {
        const std::span<double> done = row_of(m, other, width);
        const double part = dot(row, done);
        for (std::size_t i = 0; i < row.size(); ++i) row[i] -= part * done[i];
      }
    const double length = std::sqrt(dot(row, row));
    for (double& v : row) v /= length;
  }
}

}  // namespace

const Tensor& xavier_uniform_(const Tensor& t, double gain) { return uniform_of_std(t, xavier_std(t, gain)); }
const Tensor& xavier_normal_(const Tensor& t, double gain) { return normal_(t, 0, xavier_std(t, gain)); }
const Tensor& kaiming_uniform_(const Tensor& t, const Kaiming& how) {
  return uniform_of_std(t, kaiming_std(t, how));
}
const Tensor& kaiming_normal_(const Tensor& t, const Kaiming& how) {
  return normal_(t, 0, kaiming_std(t, how));
}

const Tensor& orthogonal_(const Tensor& t, double gain) {
  TRIREME_CHECK(t.dim() >= 2, "orthogonal_: shape {} has fewer than two dimensions", t.shape().to_string());
  if (t.numel() == 0) return t;
  const std::int64_t rows = t.size(0), columns = t.numel() / rows;
  const std::int64_t fewer = std::min(rows, columns), more = std::max(rows, columns);
  std::vector<double> m =
      normal({fewer, more}, next_initial_key(), 0, 1, DType::kFloat64).to_vector<double>();
  make_orthonormal(m, fewer, more);
  Tensor values = Tensor::from(m, {fewer, more});
  if (rows > columns) values = transpose(values, 0, 1);
  return assign(t, reshape(mul(values, gain), t.shape()));
}

}  // namespace init
}  // namespace trireme::nn
