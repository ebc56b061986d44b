// Images of another size. Forward and the gradient of the input are linear, and the derivative of each is the
// other.
#include <cmath>

#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

struct Resize {
  Shape x, y;
  Resampling rows, columns;
};

/// From `size` pixels to `count`; `step` is how far one pixel of the result goes in the input.
Resampling resampling(std::int64_t size, std::int64_t count, double step, const InterpolateOptions& o) {
  Resampling axis;
  const bool nearest = o.mode == Interpolation::kNearest;
  // PyTorch ignores the scale factor and steps by the ratio of the sizes if a size stays the same or doubles.
  if (nearest && count == size) step = 1;
  if (nearest && count == 2 * size) step = 0.5;
  if (o.align_corners) step = count > 1 ? static_cast<double>(size - 1) / static_cast<double>(count - 1) : 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<double>(i);
    // PyTorch finds the nearest pixel in float32, which shows where at * step comes close to a whole number.
    const double from = nearest           ? static_cast<float>(i) * static_cast<float>(step)
                        : o.align_corners ? at * step
                                          : std::fmax((at + 0.5) * step - 0.5, 0);
    const std::int64_t first = std::min(static_cast<std::int64_t>(from), size - 1);
    axis.first.push_back(first);
    axis.weight.push_back(nearest || first == size - 1 ? 0 : from - static_cast<double>(first));
  }
  return axis;
}

Tensor run_backward(const Tensor& dy, const Resize& r);

Tensor run_forward(const Tensor& x, const Resize& r) {
  const Tensor in = channels_last(x.detach()), y = Tensor::empty_channels_last(r.y, x.dtype(), x.device());
  kernels(x).resample_forward(y.view(), in.view(), r.rows, r.columns);
  return record("interpolate", y, {&x}, [r](Backward& g) { g.set(0, run_backward(g.grad, r)); });
}

Tensor run_backward(const Tensor& dy, const Resize& r) {
  const Tensor in = channels_last(dy.detach()),
               dx = Tensor::empty_channels_last(r.x, dy.dtype(), dy.device());
  kernels(dy).resample_backward(dx.view(), in.view(), r.rows, r.columns);
  return record("interpolate", dx, {&dy}, [r](Backward& g) { g.set(0, run_forward(g.grad, r)); });
}

Resize resize_of(const Tensor& x, const InterpolateOptions& o) {
  check_floating("interpolate", x);
  check_dims("interpolate", "x (N,C,H,W)", x, 4);
  TRIREME_CHECK(
      (o.size.size() == 2) != (o.scale_factor.size() == 2) && o.size.size() + o.scale_factor.size() == 2,
      "interpolate: {} sizes and {} scale factors; give two of one and none of the other", o.size.size(),
      o.scale_factor.size());
  TRIREME_CHECK(!o.align_corners || o.mode == Interpolation::kBilinear,
                "interpolate: align_corners is of Interpolation::kBilinear only");
  Resize r{x.shape(), x.shape(), {}, {}};
  for (const int d : {2, 3}) {
    const std::int64_t size = x.size(d);
    const std::size_t axis = static_cast<std::size_t>(d - 2);
    const double scale = o.size.empty() ? o.scale_factor[axis] : 0;
    const double wanted =
        o.size.empty() ? static_cast<double>(size) * scale : static_cast<double>(o.size[axis]);
    TRIREME_CHECK(std::abs(wanted) <= static_cast<double>(kMaxPixels),
                  "interpolate: {} pixels of x {}; {} are possible", wanted, x.shape().to_string(),
                  kMaxPixels);
    const auto count = static_cast<std::int64_t>(wanted);
    TRIREME_CHECK(size > 0 && count > 0, "interpolate: {} pixels of x {} to {}; needs at least one of each",
                  size, x.shape().to_string(), count);
    const double step = o.size.empty() ? 1 / scale : static_cast<double>(size) / static_cast<double>(count);
    (d == 2 ? r.rows : r.columns) = resampling(size, count, step, o);
    r.y[d] = count;
  }
  return r;
}

}  // namespace

Tensor interpolate(const Tensor& x, const InterpolateOptions& options) {
  const Resize r = resize_of(x, options);
  if (!is_low_precision(x.dtype())) return run_forward(x, r);
  return to(run_forward(to(x, DType::kFloat32), r), x.dtype());
}

}  // namespace trireme
