// New tensors with a pattern. Not differentiable.
#include <cmath>

#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

Tensor arange(double start, double end, double step, DType dtype, Device device) {
  TRIREME_CHECK(step != 0 && std::isfinite(start) && std::isfinite(end) && std::isfinite(step),
                "arange: {} to {} by {}: bounds must be finite, the step not 0", start, end, step);
  TRIREME_CHECK((end - start) * step >= 0, "arange: {} to {} never ends in steps of {}", start, end, step);
  const double count = std::ceil((end - start) / step);
  TRIREME_CHECK(count <= static_cast<double>(kMaxNumel), "arange: {} to {} by {} are too many elements",
                start, end, step);
  const Tensor out = Tensor::empty({static_cast<std::int64_t>(count)}, dtype, device);
  kernels(out).arange(out.view(), start, step);
  return out;
}

Tensor linspace(double start, double end, std::int64_t steps, DType dtype, Device device) {
  TRIREME_CHECK(steps >= 0, "linspace: {} steps", steps);
  const Tensor out = Tensor::empty({steps}, dtype, device);
  kernels(out).arange(out.view(), start, steps > 1 ? (end - start) / static_cast<double>(steps - 1) : 0);
  return out;
}

Tensor eye(std::int64_t rows, std::int64_t columns, DType dtype, Device device) {
  check_size("eye", {rows, columns});
  const double n = static_cast<double>(rows), m = static_cast<double>(columns);
  return to(eq(unsqueeze(arange(0, n, 1, DType::kInt64, device), 1), arange(0, m, 1, DType::kInt64, device)),
            dtype);
}

}  // namespace trireme
