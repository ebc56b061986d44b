// Pooling over images (N,C,H,W).
#include <algorithm>

#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/operands.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

struct Pool {
  const char* name;
  PoolOp op;
  Window window;
  Shape x, y;
};

Pool pool_of(const char* name, PoolOp op, const Tensor& x, const PoolOptions& o) {
  check_floating(name, x);
  check_dims(name, "x (N,C,H,W)", x, 4);
  const std::int64_t stride = o.stride ? o.stride : o.kernel;
  TRIREME_CHECK(
      stride > 0 && o.padding >= 0 && o.kernel > 0 && o.dilation > 0,
      "{}: kernel {}, stride {}, padding {}, dilation {}: sizes must be positive, padding at least 0", name,
      o.kernel, stride, o.padding, o.dilation);
  TRIREME_CHECK(op == PoolOp::kMax || o.dilation == 1, "{}: dilation {}; only max_pool2d has one", name,
                o.dilation);
  TRIREME_CHECK(o.padding <= o.kernel / 2, "{}: padding {} is more than half of the kernel {}", name,
                o.padding, o.kernel);
  TRIREME_CHECK(x.size(2) > 0 && x.size(3) > 0, "{}: an image of x {} has no pixels", name,
                x.shape().to_string());
  check_range(name, {o.kernel, stride, o.padding, x.size(2), x.size(3)}, kMaxWindow);
  // Otherwise a window could step over the whole image.
  TRIREME_CHECK(o.dilation <= std::min(x.size(2), x.size(3)), "{}: dilation {} is larger than x {}", name,
                o.dilation, x.shape().to_string());
  const std::int64_t reach = (o.kernel - 1) * o.dilation + 1;
  Shape y = x.shape();
  for (int d = 2; d < 4; ++d) {
    // With ceil_mode the last window may reach over the end by less than a stride.
    const std::int64_t room = x.size(d) + 2 * o.padding - reach + (o.ceil_mode ? stride - 1 : 0);
    TRIREME_CHECK(room >= 0, "{}: kernel {} x {} is larger than the padded input {} x {}", name, reach, reach,
                  x.size(2) + 2 * o.padding, x.size(3) + 2 * o.padding);
    y[d] = room / stride + 1;
    if (o.ceil_mode && (y[d] - 1) * stride >= x.size(d) + o.padding) --y[d];  // it would begin past the end
  }
  return {name,
          op,
          {o.kernel, o.kernel, stride, stride, o.padding, o.padding, o.dilation, o.dilation},
          x.shape(),
          y};
}

Tensor backward_of(const Pool& p, const Tensor& dy, const Tensor& indices);

Tensor average(const Pool& p, const Tensor& x) {
  const Tensor in = channels_last(x.detach()), y = Tensor::empty_channels_last(p.y, x.dtype(), x.device());
  kernels(x).pool_forward(p.op, y.view(), nullptr, in.view(), p.window);
  return record(p.name, y, {&x}, [p](Backward& g) { g.set(0, backward_of(p, g.grad, {})); });
}

/// The elements at `indices` (h*W + w) of each plane: what the derivative of the maximum's backward picks.
Tensor picked(const Tensor& t, const Tensor& indices) {
  const Shape planes{t.size(0), t.size(1), -1};
  return reshape(gather(reshape(t, planes), 2, reshape(indices, planes)), indices.shape());
}

Tensor backward_of(const Pool& p, const Tensor& dy, const Tensor& indices) {
  const Tensor in = channels_last(dy.detach()),
               dx = Tensor::empty_channels_last(p.x, dy.dtype(), dy.device());
  const View where = indices.defined() ? indices.view() : View{};
  kernels(dx).pool_backward(p.op, dx.view(), in.view(), indices.defined() ? &where : nullptr, p.window);
  return record(p.name, dx, {&dy}, [p, indices](Backward& g) {
    g.set(0, indices.defined() ? picked(g.grad, indices) : average(p, g.grad));
  });
}

Tensor maximum_of(const Pool& p, const Tensor& x) {
  const Tensor in = channels_last(x.detach()), y = Tensor::empty_channels_last(p.y, x.dtype(), x.device());
  const Tensor indices = Tensor::empty_channels_last(p.y, DType::kInt64, x.device());
  const View at = indices.view();
  kernels(x).pool_forward(p.op, y.view(), &at, in.view(), p.window);
  return record(p.name, y, {&x}, [p, indices = Saved(indices)](Backward& g) {
    g.set(0, backward_of(p, g.grad, g.get(indices)));
  });
}

/// fn(x), in float32 where x has 16 bits and its device no kernels that compute so themselves.
template <class Fn>
Tensor pooled(const Tensor& x, const Fn& fn) {
  return is_widened(x) ? in_full(fn, x) : fn(x);
}

void check_places(const char* op, const Tensor& x, std::int64_t height, std::int64_t width) {
  check_floating(op, x);
  check_dims(op, "x (N,C,H,W)", x, 4);
  TRIREME_CHECK(height > 0 && width > 0 && x.size(2) > 0 && x.size(3) > 0, "{}: x {} to {} x {}", op,
                x.shape().to_string(), height, width);
  check_range(op, {height, width}, kMaxPixels);
}

}  // namespace

Tensor max_pool2d(const Tensor& x, const PoolOptions& options) {
  const Pool p = pool_of("max_pool2d", PoolOp::kMax, x, options);
  return pooled(x, [&](const Tensor& t) { return maximum_of(p, t); });
}

Tensor adaptive_max_pool2d(const Tensor& x, std::int64_t height, std::int64_t width) {
  check_places("adaptive_max_pool2d", x, height, width);
  const Pool p{"adaptive_max_pool2d",
               PoolOp::kMax,
               {.adaptive = true},
               x.shape(),
               {x.size(0), x.size(1), height, width}};
  return pooled(x, [&](const Tensor& t) { return maximum_of(p, t); });
}

Tensor avg_pool2d(const Tensor& x, const PoolOptions& options) {
  const Pool p = pool_of("avg_pool2d", PoolOp::kAverage, x, options);
  return pooled(x, [&](const Tensor& t) { return average(p, t); });
}

Tensor adaptive_avg_pool2d(const Tensor& x, std::int64_t height, std::int64_t width) {
  check_places("adaptive_avg_pool2d", x, height, width);
  if (is_low_precision(x.dtype()))
    return in_full([&](const Tensor& t) { return adaptive_avg_pool2d(t, height, width); }, x);
  // Window i covers floor(i * size / count) .. ceil((i + 1) * size / count).
  Tensor y = x;
  for (const int d : {2, 3}) {
    const std::int64_t size = x.size(d), count = d == 2 ? height : width;
    std::vector<Tensor> parts;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t first = i * size / count, last = ((i + 1) * size + count - 1) / count;
      parts.push_back(mean(narrow(y, d, first, last - first), {d}, true));
    }
    y = parts.size() == 1 ? parts[0] : cat(parts, d);
  }
  return y;
}

Tensor global_avg_pool2d(const Tensor& x) {
  check_floating("global_avg_pool2d", x);
  check_dims("global_avg_pool2d", "x (N,C,H,W)", x, 4);
  return mean(x, {2, 3});
}

}  // namespace trireme
