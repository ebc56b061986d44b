// Convolution. Forward, the gradient of the input and that of the weight are three functions, each linear in
// two of (x, w, y), and the derivatives of each are the other two. Kernels want images channels-last.
#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

struct Geometry {
  Shape x, w, y;
  Window window;
  std::int64_t groups;
};

Tensor run_input(const Tensor& dy, const Tensor& w, const Geometry& c);
Tensor run_weight(const Tensor& x, const Tensor& dy, const Geometry& c, const Tensor& memory = {});

Tensor run_forward(const char* name, const Tensor& x, const Tensor& w, const Tensor& b, const Geometry& c) {
  const Tensor in = channels_last(x.detach()), filter = w.row_major(),
               y = Tensor::empty_channels_last(c.y, x.dtype(), x.device());
  const Tensor shift = b.defined() ? b.row_major() : Tensor();
  const View bias = b.defined() ? shift.view() : View{};
  if (y.numel() > 0)
    kernels(x).conv2d_forward(y.view(), in.view(), filter.view(), b.defined() ? &bias : nullptr, c.window,
                              c.groups);
  return record(name, y, {&x, &w, &b}, [x = Saved(x), w = Saved(w), c](Backward& g) {
    if (g.needs(0)) g.set(0, run_input(g.grad, g.get(w), c));
    if (g.needs(1)) g.set(1, run_weight(g.get(x), g.grad, c, g.memory_for(1)));
    if (g.needs(2)) g.set(2, sum(g.grad, {0, 2, 3}));
  });
}

Tensor run_input(const Tensor& dy, const Tensor& w, const Geometry& c) {
  const Tensor in = channels_last(dy.detach()), filter = w.row_major();
  const Tensor dx = Tensor::empty_channels_last(c.x, dy.dtype(), dy.device());
  if (dy.numel() > 0)
    kernels(dx).conv2d_backward_input(dx.view(), in.view(), filter.view(), c.window, c.groups);
  else
    kernels(dx).fill(dx.view(), 0);
  return record("conv_input_gradient", dx, {&dy, &w}, [dy = Saved(dy), w = Saved(w), c](Backward& g) {
    if (g.needs(0)) g.set(0, run_forward("conv2d", g.grad, g.get(w), {}, c));
    if (g.needs(1)) g.set(1, run_weight(g.grad, g.get(dy), c));
  });
}

/// The gradient of w, in `memory` where that is defined.
Tensor run_weight(const Tensor& x, const Tensor& dy, const Geometry& c, const Tensor& memory) {
  const Tensor in = channels_last(x.detach()), out = channels_last(dy.detach()),
               dw = memory.defined() ? memory : Tensor::empty(c.w, x.dtype(), x.device());
  if (dy.numel() > 0)
    kernels(dw).conv2d_backward_weight(dw.view(), in.view(), out.view(), c.window, c.groups);
  else
    kernels(dw).fill(dw.view(), 0);
  return record("conv_weight_gradient", dw, {&x, &dy}, [x = Saved(x), dy = Saved(dy), c](Backward& g) {
    if (g.needs(0)) g.set(0, run_input(g.get(dy), g.grad, c));
    if (g.needs(1)) g.set(1, run_forward("conv2d", g.get(x), g.grad, {}, c));
  });
}

void check_operands(const char* op, const Tensor& x, const Tensor& w, const Tensor& b, int dims) {
  check_same_kind(op, {&x, &w});
  check_floating(op, x);
  check_dims(op, dims == 4 ? "x (N,C,H,W)" : "x (N,C,L)", x, dims);
  check_dims(op, "the weight", w, dims);
  if (b.defined()) check_same_kind(op, {&x, &b});
}

void check_bias(const char* op, const Tensor& b, const Tensor& w, std::int64_t channels) {
  TRIREME_CHECK(!b.defined() || (b.dim() == 1 && b.size(0) == channels),
                "{}: b {} does not fit w {}; needs ({})", op, b.defined() ? b.shape().to_string() : "",
                w.shape().to_string(), channels);
}

/// Before arithmetic with them.
void check_window(const char* op, const Tensor& x, const Tensor& w,
                  std::initializer_list<std::int64_t> options) {
  check_range(op, options, kMaxWindow);
  check_range(op, {x.size(2), x.size(3), w.size(1), w.size(2), w.size(3)}, kMaxWindow);
}

/// Size after w's window has passed over dimension `dim` of an image.
std::int64_t passed(const char* op, const Shape& image, const Tensor& w, int dim, const Conv2dOptions& o) {
  const std::int64_t kernel = w.size(dim), reach = (kernel - 1) * o.dilation + 1,
                     padded = image[dim] + 2 * o.padding;
  TRIREME_CHECK(
      o.stride > 0 && o.padding >= 0 && o.dilation > 0 && kernel > 0,
      "{}: kernel {}, stride {}, padding {}, dilation {}: sizes must be positive, padding at least 0", op,
      kernel, o.stride, o.padding, o.dilation);
  TRIREME_CHECK(
      reach <= padded,
      "{}: the kernel of w {} reaches over {} in dimension {}, more than the padded {} of an image {}", op,
      w.shape().to_string(), reach, dim, padded, image.to_string());
  return (padded - reach) / o.stride + 1;
}

/// Returns the options in the form that kernels take. A kernel of one element has no gaps, so its dilation
/// does not matter.
Window window_of(const Tensor& w, const Conv2dOptions& vertical, const Conv2dOptions& o) {
  const std::int64_t h = w.size(2), wide = w.size(3);
  return {h,
          wide,
          vertical.stride,
          o.stride,
          vertical.padding,
          o.padding,
          h == 1 ? 1 : vertical.dilation,
          wide == 1 ? 1 : o.dilation};
}

/// In one dimension: an image of height 1.
Tensor as_image(const Tensor& t) { return unsqueeze(t, 2); }

Tensor convolve(const char* op, const Tensor& x, const Tensor& w, const Tensor& b, const Conv2dOptions& o,
                const Conv2dOptions& vertical) {
  check_window(op, x, w, {o.stride, o.padding, o.groups, o.dilation});
  TRIREME_CHECK(o.groups > 0 && w.size(0) % o.groups == 0 && w.size(1) * o.groups == x.size(1),
                "{}: x {} and w {} do not fit with groups {}; w needs C/groups = {} input channels", op,
                x.shape().to_string(), w.shape().to_string(), o.groups,
                o.groups > 0 ? x.size(1) / o.groups : 0);
  TRIREME_CHECK(w.size(1) > 0, "{}: x {} and w {} have no channels", op, x.shape().to_string(),
                w.shape().to_string());
  TRIREME_CHECK(x.size(2) > 0 && x.size(3) > 0, "{}: an image of x {} has no pixels", op,
                x.shape().to_string());
  check_bias(op, b, w, w.size(0));
  const std::int64_t h = passed(op, x.shape(), w, 2, vertical), wide = passed(op, x.shape(), w, 3, o);
  const Geometry c{
      x.shape(), w.shape(), {x.size(0), w.size(0), h, wide}, window_of(w, vertical, o), o.groups};
  return run_forward(op, x, w, b, c);
}

Tensor transposed(const char* op, const Tensor& x, const Tensor& w, const Tensor& b,
                  const ConvTransposeOptions& o) {
  check_window(op, x, w, {o.stride, o.padding, o.output_padding, o.groups, o.dilation});
  const Conv2dOptions same{
      .stride = o.stride, .padding = o.padding, .groups = o.groups, .dilation = o.dilation};
  TRIREME_CHECK(o.groups > 0 && x.size(1) == w.size(0) && w.size(0) % o.groups == 0,
                "{}: x {} and w {} do not fit with groups {}; w needs x's channels first", op,
                x.shape().to_string(), w.shape().to_string(), o.groups);
  TRIREME_CHECK(o.output_padding >= 0 && (o.output_padding < o.stride || o.output_padding < o.dilation),
                "{}: output_padding {} must be smaller than stride {} or dilation {}", op, o.output_padding,
                o.stride, o.dilation);
  TRIREME_CHECK(w.size(0) > 0 && w.size(1) > 0, "{}: x {} and w {} have no channels", op,
                x.shape().to_string(), w.shape().to_string());
  const std::int64_t channels = w.size(1) * o.groups;
  check_bias(op, b, w, channels);
  const auto grown = [&](std::int64_t size, std::int64_t kernel) {
    return (size - 1) * o.stride - 2 * o.padding + (kernel - 1) * o.dilation + o.output_padding + 1;
  };
  const Shape image{x.size(0), channels, grown(x.size(2), w.size(2)), grown(x.size(3), w.size(3))};
  TRIREME_CHECK(image[2] > 0 && image[3] > 0, "{}: nothing is left of x {}", op, x.shape().to_string());
  for (const int dim : {2, 3}) passed(op, image, w, dim, same);
  const Geometry c{image, w.shape(), x.shape(), window_of(w, same, same), o.groups};
  const Tensor y = run_input(x, w, c);
  return b.defined() ? add(y, reshape(b, {1, channels, 1, 1})) : y;
}

/// fn(x, w, b), in float32 and rounded once where the kernels take no 16-bit numbers.
template <class Fn>
Tensor in_full(const Tensor& x, const Tensor& w, const Tensor& b, const Fn& fn) {
  if (!is_widened(x)) return fn(x, w, b);
  const auto wide = [](const Tensor& t) { return t.defined() ? to(t, DType::kFloat32) : t; };
  return to(fn(wide(x), wide(w), wide(b)), x.dtype());
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& b, const Conv2dOptions& options) {
  if (const amp::Cast c("conv2d", {&x, &w, &b}); c) return conv2d(c[0], c[1], c[2], options);
  check_operands("conv2d", x, w, b, 4);
  return in_full(x, w, b, [&](const Tensor& image, const Tensor& filter, const Tensor& shift) {
    return convolve("conv2d", image, filter, shift, options, options);
  });
}

Tensor conv1d(const Tensor& x, const Tensor& w, const Tensor& b, const Conv2dOptions& options) {
  if (const amp::Cast c("conv1d", {&x, &w, &b}); c) return conv1d(c[0], c[1], c[2], options);
  check_operands("conv1d", x, w, b, 3);
  return in_full(x, w, b, [&](const Tensor& line, const Tensor& filter, const Tensor& shift) {
    return squeeze(convolve("conv1d", as_image(line), as_image(filter), shift, options, {}), 2);
  });
}

Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& b,
                        const ConvTransposeOptions& options) {
  if (const amp::Cast c("conv_transpose2d", {&x, &w, &b}); c)
    return conv_transpose2d(c[0], c[1], c[2], options);
  check_operands("conv_transpose2d", x, w, b, 4);
  return in_full(x, w, b, [&](const Tensor& image, const Tensor& filter, const Tensor& shift) {
    return transposed("conv_transpose2d", image, filter, shift, options);
  });
}

}  // namespace trireme
