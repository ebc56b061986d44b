#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// Channels-last memory that autograd does not follow: backward hands gradients over as they are.
Tensor channels_last_data(const Tensor& t) {
  if (t.is_channels_last()) return t;
  const Tensor out = Tensor::empty_channels_last(t.shape(), t.dtype(), t.device());
  copy_into(out, t);
  return out;
}

/// Sizes (h, w) after a window has passed; throws if it does not fit.
Shape windowed(const char* op, const Tensor& x, const Window& k, std::int64_t channels) {
  check_dims(op, "x (N,C,H,W)", x, 4);
  TRIREME_CHECK(k.stride_h > 0 && k.padding_h >= 0 && k.kernel_h > 0 && k.kernel_w > 0,
                "{}: kernel {} x {}, stride {}, padding {}: sizes must be positive, padding at least 0", op,
                k.kernel_h, k.kernel_w, k.stride_h, k.padding_h);
  TRIREME_CHECK(x.size(2) > 0 && x.size(3) > 0, "{}: an image of x {} has no pixels", op,
                x.shape().to_string());
  const std::int64_t h = x.size(2) + 2 * k.padding_h - k.kernel_h,
                     w = x.size(3) + 2 * k.padding_w - k.kernel_w;
  TRIREME_CHECK(h >= 0 && w >= 0, "{}: kernel {} x {} is larger than the padded input {} x {}", op,
                k.kernel_h, k.kernel_w, x.size(2) + 2 * k.padding_h, x.size(3) + 2 * k.padding_w);
  return {x.size(0), channels, h / k.stride_h + 1, w / k.stride_w + 1};
}

Tensor pool2d(const char* name, PoolOp op, const Tensor& x, const PoolOptions& o) {
  check_floating(name, x);
  const std::int64_t stride = o.stride ? o.stride : o.kernel;
  const Window window{o.kernel, o.kernel, stride, stride, o.padding, o.padding};
  TRIREME_CHECK(o.padding * 2 <= o.kernel, "{}: padding {} is more than half of the kernel {}", name,
                o.padding, o.kernel);
  const Shape shape = windowed(name, x, window, x.dim() == 4 ? x.size(1) : 0);
  const Tensor in = channels_last_data(x), y = Tensor::empty_channels_last(shape, x.dtype(), x.device());
  const bool is_max = op == PoolOp::kMax;
  const Tensor indices = is_max ? Tensor::empty_channels_last(shape, DType::kInt64, x.device()) : Tensor();
  const View at = is_max ? indices.view() : View{};
  kernels(x).pool_forward(op, y.view(), is_max ? &at : nullptr, in.view(), window);
  return record(name, y, {&x}, [op, indices, window, shape = x.shape()](Backward& g) {
    g.once_only();
    const Tensor dx = Tensor::empty_channels_last(shape, g.grad.dtype(), g.grad.device()),
                 dy = channels_last_data(g.grad);
    const View where = indices.defined() ? indices.view() : View{};
    kernels(dx).pool_backward(op, dx.view(), dy.view(), indices.defined() ? &where : nullptr, window);
    g.set(0, dx);
  });
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& b, const Conv2dOptions& o) {
  check_same_kind("conv2d", {&x, &w});
  check_floating("conv2d", x);
  check_dims("conv2d", "x (N,C,H,W)", x, 4);
  check_dims("conv2d", "w (O,C/groups,kh,kw)", w, 4);
  TRIREME_CHECK(o.groups > 0 && w.size(0) % o.groups == 0 && w.size(1) * o.groups == x.size(1),
                "conv2d: x {} and w {} do not fit with groups {}; w needs C/groups = {} input channels",
                x.shape().to_string(), w.shape().to_string(), o.groups,
                o.groups > 0 ? x.size(1) / o.groups : 0);
  TRIREME_CHECK(w.size(1) > 0, "conv2d: x {} and w {} have no channels", x.shape().to_string(),
                w.shape().to_string());
  if (b.defined()) check_same_kind("conv2d", {&x, &b});
  TRIREME_CHECK(!b.defined() || (b.dim() == 1 && b.size(0) == w.size(0)),
                "conv2d: b {} does not fit w {}; needs ({})", b.defined() ? b.shape().to_string() : "",
                w.shape().to_string(), w.size(0));
  const Window window{w.size(2), w.size(3), o.stride, o.stride, o.padding, o.padding};
  const Shape shape = windowed("conv2d", x, window, w.size(0));
  const Tensor in = channels_last_data(x), weight = w.row_major();
  const Tensor y = Tensor::empty_channels_last(shape, x.dtype(), x.device());
  const Tensor dense_bias = b.defined() ? b.row_major() : Tensor();
  const View bias = b.defined() ? dense_bias.view() : View{};
  if (y.numel() > 0)
    kernels(x).conv2d_forward(y.view(), in.view(), weight.view(), b.defined() ? &bias : nullptr, window,
                              o.groups);
  return record("conv2d", y, {&x, &w, &b},
                [in = Saved(in), w = Saved(w), size = x.shape(), window, groups = o.groups](Backward& g) {
                  g.once_only();
                  const Tensor dy = channels_last_data(g.grad);
                  const bool empty = dy.numel() == 0;
                  if (g.needs(0)) {
                    const Tensor dx = Tensor::empty_channels_last(size, dy.dtype(), dy.device()),
                                 filter = g.get(w).row_major();
                    if (empty)
                      kernels(dx).fill(dx.view(), 0);
                    else
                      kernels(dx).conv2d_backward_input(dx.view(), dy.view(), filter.view(), window, groups);
                    g.set(0, dx);
                  }
                  if (g.needs(1)) {
                    const Tensor data = g.get(in),
                                 dw = Tensor::empty(g.get(w).shape(), dy.dtype(), dy.device());
                    if (empty)
                      kernels(dw).fill(dw.view(), 0);
                    else
                      kernels(dw).conv2d_backward_weight(dw.view(), data.view(), dy.view(), window, groups);
                    g.set(1, dw);
                  }
                  if (g.needs(2)) g.set(2, sum(g.grad, {0, 2, 3}));
                });
}

Tensor max_pool2d(const Tensor& x, const PoolOptions& options) {
  return pool2d("max_pool2d", PoolOp::kMax, x, options);
}
Tensor avg_pool2d(const Tensor& x, const PoolOptions& options) {
  return pool2d("avg_pool2d", PoolOp::kAverage, x, options);
}

Tensor global_avg_pool2d(const Tensor& x) {
  check_floating("global_avg_pool2d", x);
  check_dims("global_avg_pool2d", "x (N,C,H,W)", x, 4);
  return mean(x, {2, 3});
}

}  // namespace trireme
