// New tensors with a pattern. Not differentiable.
#include <cmath>

#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// Returns the number of elements of arange(). The step is not 0 and leads from `start` to `end`.
double count_of(Scalar start, Scalar end, Scalar step) {
  if (!start.is_whole() || !end.is_whole() || !step.is_whole())
    return std::ceil((end.to<double>() - start.to<double>()) / step.to<double>());
  // Differences of two int64 fit into unsigned ones.
  const auto from = start.to<std::int64_t>(), last = end.to<std::int64_t>(), by = step.to<std::int64_t>();
  const auto size = [](std::int64_t high, std::int64_t low) {
    return static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  };
  const std::uint64_t length = by > 0 ? size(last, from) : size(from, last),
                      stride = by > 0 ? static_cast<std::uint64_t>(by) : size(0, by);
  return static_cast<double>(length / stride + (length % stride != 0));
}

}  // namespace

Tensor arange(Scalar start, Scalar end, Scalar step, DType dtype, Device device) {
  const double first = start.to<double>(), last = end.to<double>(), by = step.to<double>();
  TRIREME_CHECK(by != 0 && std::isfinite(first) && std::isfinite(last) && std::isfinite(by),
                "arange: {} to {} by {}: bounds must be finite, the step not 0", start.to_string(),
                end.to_string(), step.to_string());
  TRIREME_CHECK(by > 0 ? first <= last : first >= last, "arange: {} to {} never ends in steps of {}",
                start.to_string(), end.to_string(), step.to_string());
  const double count = count_of(start, end, step);
  TRIREME_CHECK(count <= static_cast<double>(kMaxNumel), "arange: {} to {} by {} are too many elements",
                start.to_string(), end.to_string(), step.to_string());
  const Tensor out = Tensor::empty({static_cast<std::int64_t>(count)}, dtype, device);
  kernels(out).arange(out.view(), start, step);
  return out;
}

Tensor linspace(Scalar start, Scalar end, std::int64_t steps, DType dtype, Device device) {
  TRIREME_CHECK(steps >= 0, "linspace: {} steps", steps);
  check_fits("linspace", start, dtype);
  check_fits("linspace", end, dtype);
  const Tensor out = Tensor::empty({steps}, dtype, device);
  kernels(out).linspace(out.view(), start, end);
  return out;
}

Tensor eye(std::int64_t rows, std::int64_t columns, DType dtype, Device device) {
  check_size("eye", {rows, columns});
  const auto line = [device](std::int64_t count) { return arange(0, count, 1, DType::kInt64, device); };
  return to(eq(unsqueeze(line(rows), 1), line(columns)), dtype);
}

}  // namespace trireme
