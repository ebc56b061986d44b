// 2-D convolution: in float32 by minimal filtering where that suits, else by oneDNN, but for the weight
// gradient of strided 1x1 filters, which is a matrix product; plain loops in float64, where checks need
// precision, not speed, and for what oneDNN does not take.
#include <dnnl.hpp>

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "kernels/cpu/conv_shape.h"
#include "kernels/cpu/dnnl_cache.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/winograd.h"

namespace trireme::cpu {

namespace {

Conv geometry(const View& x, const View& y, const Window& window, std::int64_t groups) {
  return {x.shape[0], x.shape[1], x.shape[2], x.shape[3], y.shape[1], y.shape[2], y.shape[3], groups, window};
}

enum class Pass { kForward, kInput, kWeight };

/// A made primitive with the weight layout that oneDNN chose for it.
struct Prepared {
  dnnl::primitive primitive;
  dnnl::memory::desc x, w, y, bias, scratchpad;
};

dnnl::memory::dims weight_dims(const Conv& c) {
  const Window& k = c.window;
  if (c.groups == 1) return {c.o, c.c, k.kernel_h, k.kernel_w};
  return {c.groups, c.o / c.groups, c.c / c.groups, k.kernel_h, k.kernel_w};
}

dnnl::memory::desc plain_weight(const Conv& c) {
  using tag = dnnl::memory::format_tag;
  return {weight_dims(c), dnnl::memory::data_type::f32, c.groups == 1 ? tag::oihw : tag::goihw};
}

// oneDNN 3 took operation descriptors away: their arguments go straight into the primitive's descriptor.
#if DNNL_VERSION_MAJOR >= 3
template <class Primitive, class... Arguments>
typename Primitive::primitive_desc describe(const dnnl::primitive_attr& attr, const Arguments&... arguments) {
  return {dnnl_engine(), arguments..., attr};
}
template <class Primitive, class Hint, class... Arguments>
typename Primitive::primitive_desc describe_backward(const dnnl::primitive_attr& attr, const Hint& hint,
                                                     const Arguments&... arguments) {
  return {dnnl_engine(), arguments..., hint, attr};
}
#else
template <class Primitive, class... Arguments>
typename Primitive::primitive_desc describe(const dnnl::primitive_attr& attr, const Arguments&... arguments) {
  return {typename Primitive::desc(arguments...), attr, dnnl_engine()};
}
template <class Primitive, class Hint, class... Arguments>
typename Primitive::primitive_desc describe_backward(const dnnl::primitive_attr& attr, const Hint& hint,
                                                     const Arguments&... arguments) {
  return {typename Primitive::desc(arguments...), attr, dnnl_engine(), hint};
}
#endif

Prepared prepare(Pass pass, const Conv& c, bool has_bias) {
  using dnnl::memory;
  using tag = memory::format_tag;
  const auto f32 = memory::data_type::f32;
  const memory::desc x({c.n, c.c, c.h, c.w}, f32, tag::nhwc), y({c.n, c.o, c.oh, c.ow}, f32, tag::nhwc);
  const memory::desc w(weight_dims(c), f32, tag::any), bias({c.o}, f32, tag::x);
  const memory::dims stride{c.window.stride_h, c.window.stride_w},
      pad{c.window.padding_h, c.window.padding_w}, gap{c.window.dilation_h - 1, c.window.dilation_w - 1};
  const auto algorithm = dnnl::algorithm::convolution_direct;
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  using Forward = dnnl::convolution_forward;
  const auto training = dnnl::prop_kind::forward_training;
  const Forward::primitive_desc hint =
      has_bias ? describe<Forward>(attr, training, algorithm, x, w, bias, y, stride, gap, pad, pad)
               : describe<Forward>(attr, training, algorithm, x, w, y, stride, gap, pad, pad);
  if (pass == Pass::kForward) return {Forward(hint), x, hint.weights_desc(), y, bias, hint.scratchpad_desc()};
  if (pass == Pass::kInput) {
    using Backward = dnnl::convolution_backward_data;
    const auto pd = describe_backward<Backward>(attr, hint, algorithm, x, w, y, stride, gap, pad, pad);
    return {Backward(pd), x, pd.weights_desc(), y, bias, pd.scratchpad_desc()};
  }
  using Backward = dnnl::convolution_backward_weights;
  const auto pd = describe_backward<Backward>(attr, hint, algorithm, x, w, y, stride, gap, pad, pad);
  return {Backward(pd), x, pd.diff_weights_desc(), y, bias, pd.scratchpad_desc()};
}

/// Prepared primitives are kept per thread for the life of the thread: shapes repeat every step.
const Prepared& prepared(Pass pass, const Conv& c, bool has_bias) {
  thread_local std::unordered_map<ShapeKey, Prepared, ShapeKeyHash> cache;
  const Window& k = c.window;
  const ShapeKey key{{static_cast<std::int64_t>(pass), has_bias, threads(), c.n, c.c, c.h, c.w, c.o, c.oh,
                      c.ow, c.groups, k.kernel_h, k.kernel_w, k.stride_h, k.stride_w, k.padding_h,
                      k.padding_w, k.dilation_h, k.dilation_w}};
  const auto found = cache.find(key);
  if (found != cache.end()) return found->second;
  return cache.emplace(key, prepare(pass, c, has_bias)).first->second;
}

dnnl::memory on(const dnnl::memory::desc& desc, void* data) { return {desc, dnnl_engine(), data}; }

void run_forward(const Conv& c, const View& y, const View& x, const View& w, const View* bias) {
  const Prepared& p = prepared(Pass::kForward, c, bias != nullptr);
  const Scratch packed(p.w.get_size()), scratch(p.scratchpad.get_size());
  dnnl_reorder(on(plain_weight(c), w.data), on(p.w, packed.data()));
  std::unordered_map<int, dnnl::memory> args{{DNNL_ARG_SRC, on(p.x, x.data)},
                                             {DNNL_ARG_WEIGHTS, on(p.w, packed.data())},
                                             {DNNL_ARG_DST, on(p.y, y.data)},
                                             {DNNL_ARG_SCRATCHPAD, on(p.scratchpad, scratch.data())}};
  if (bias) args.emplace(DNNL_ARG_BIAS, on(p.bias, bias->data));
  p.primitive.execute(dnnl_stream(), args);
}

void run_backward_input(const Conv& c, const View& dx, const View& dy, const View& w) {
  const Prepared& p = prepared(Pass::kInput, c, false);
  const Scratch packed(p.w.get_size()), scratch(p.scratchpad.get_size());
  dnnl_reorder(on(plain_weight(c), w.data), on(p.w, packed.data()));
  p.primitive.execute(dnnl_stream(), {{DNNL_ARG_DIFF_DST, on(p.y, dy.data)},
                                      {DNNL_ARG_WEIGHTS, on(p.w, packed.data())},
                                      {DNNL_ARG_DIFF_SRC, on(p.x, dx.data)},
                                      {DNNL_ARG_SCRATCHPAD, on(p.scratchpad, scratch.data())}});
}

void run_backward_weight(const Conv& c, const View& dw, const View& x, const View& dy) {
  const Prepared& p = prepared(Pass::kWeight, c, false);
  const Scratch packed(p.w.get_size()), scratch(p.scratchpad.get_size());
  p.primitive.execute(dnnl_stream(), {{DNNL_ARG_SRC, on(p.x, x.data)},
                                      {DNNL_ARG_DIFF_DST, on(p.y, dy.data)},
                                      {DNNL_ARG_DIFF_WEIGHTS, on(p.w, packed.data())},
                                      {DNNL_ARG_SCRATCHPAD, on(p.scratchpad, scratch.data())}});
  dnnl_reorder(on(p.w, packed.data()), on(plain_weight(c), dw.data));
}

/// Calls fn(y offset, x offset, w offset) for every product that the convolution sums.
template <class Fn>
void for_each_product(const Conv& c, const Fn& fn) {
  const Window& k = c.window;
  const std::int64_t cg = c.c / c.groups, og = c.o / c.groups;
  for (std::int64_t n = 0; n < c.n; ++n)
    for (std::int64_t oy = 0; oy < c.oh; ++oy)
      for (std::int64_t ox = 0; ox < c.ow; ++ox)
        for (std::int64_t ky = 0; ky < k.kernel_h; ++ky)
          for (std::int64_t kx = 0; kx < k.kernel_w; ++kx) {
            const std::int64_t iy = oy * k.stride_h - k.padding_h + ky * k.dilation_h,
                               ix = ox * k.stride_w - k.padding_w + kx * k.dilation_w;
            if (iy < 0 || iy >= c.h || ix < 0 || ix >= c.w) continue;
            for (std::int64_t o = 0; o < c.o; ++o)
              for (std::int64_t i = 0; i < cg; ++i)
                fn(((n * c.oh + oy) * c.ow + ox) * c.o + o,
                   ((n * c.h + iy) * c.w + ix) * c.c + o / og * cg + i,
                   ((o * cg + i) * k.kernel_h + ky) * k.kernel_w + kx);
          }
}

/// oneDNN takes the size of y from those of x and the window (a transposed convolution's output_padding may
/// make x larger than that, by a stride or more), and counts in 32 bits the bytes from one end of a window to
/// the other and to the next.
bool fits_onednn(const Conv& c) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  const Window& k = c.window;
  const auto fits = [](std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                       std::int64_t dilation, std::int64_t out, std::int64_t bytes_apart) {
    const std::int64_t padded = size + 2 * padding, reach = (kernel - 1) * dilation + 1;
    return padded + stride <= kMost && reach + padding + stride <= kMost / bytes_apart &&
           (padded - reach) / stride + 1 == out;
  };
  const std::int64_t pixel = static_cast<std::int64_t>(sizeof(float)) * std::max(c.c, c.o),
                     row = pixel * std::max(c.w, c.ow);
  return fits(c.h, k.kernel_h, k.stride_h, k.padding_h, k.dilation_h, c.oh, row) &&
         fits(c.w, k.kernel_w, k.stride_w, k.padding_w, k.dilation_w, c.ow, pixel);
}

bool is_strided_point(const Window& k) {
  return k.kernel_h == 1 && k.kernel_w == 1 && (k.stride_h > 1 || k.stride_w > 1);
}

/// The pixels of x that a strided 1x1 filter sees, for rows begin..end of all images' output rows:
/// (rows, ow, c). Padding is zero.
void gather_points(const Conv& c, const float* x, std::int64_t begin, std::int64_t end, float* points) {
  const Window& k = c.window;
  const std::int64_t piece = std::max<std::int64_t>(1, kPiece / (c.ow * c.c));
  for_pieces(end - begin, piece, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const std::int64_t image = (begin + row) / c.oh, iy = (begin + row) % c.oh * k.stride_h - k.padding_h;
      for (std::int64_t ox = 0; ox < c.ow; ++ox) {
        float* const point = points + (row * c.ow + ox) * c.c;
        const std::int64_t ix = ox * k.stride_w - k.padding_w;
        if (iy < 0 || iy >= c.h || ix < 0 || ix >= c.w) {
          std::fill_n(point, c.c, 0.0f);
        } else {
          std::copy_n(x + ((image * c.h + iy) * c.w + ix) * c.c, c.c, point);
        }
      }
    }
  });
}

/// The weight gradient of strided 1x1 filters as a matrix product over the pixels that they see. oneDNN 2.6's
/// own is wrong now and then, depending on what ran before: in one of some hundred thousand random graphs
/// (tests/unit/core/fuzz_graphs.cpp). Why is not known.
void point_backward_weight(const Conv& c, const View& dw, const View& x, const View& dy) {
  fill(dw, 0);
  if (dw.numel() == 0 || dy.numel() == 0) return;
  constexpr std::int64_t kGathered = std::int64_t{1} << 20;  // floats at once
  const std::int64_t rows = c.n * c.oh,
                     rows_at_once = std::clamp<std::int64_t>(kGathered / (c.ow * c.c), 1, rows),
                     filters = c.o / c.groups, channels = c.c / c.groups;
  const Scratch gathered(static_cast<std::size_t>(rows_at_once * c.ow * c.c) * sizeof(float));
  auto* const points = static_cast<float*>(gathered.data());
  for (std::int64_t row = 0; row < rows; row += rows_at_once) {
    const std::int64_t end = std::min(rows, row + rows_at_once);
    gather_points(c, x.as<float>(), row, end, points);
    for (std::int64_t group = 0; group < c.groups; ++group)
      gemm(static_cast<int>(filters), static_cast<int>(channels), static_cast<int>((end - row) * c.ow),
           {dy.as<float>() + row * c.ow * c.o + group * filters, static_cast<int>(c.o), true},
           {points + group * channels, static_cast<int>(c.c)}, 1.0f,
           {dw.as<float>() + group * filters * channels, static_cast<int>(channels)});
  }
}

}  // namespace

void conv2d_forward(const View& y, const View& x, const View& w, const View* bias, const Window& window,
                    std::int64_t groups) {
  const Conv c = geometry(x, y, window, groups);
  if (y.dtype == DType::kFloat32 && suits_winograd(c)) return winograd_forward(c, y, x, w, bias);
  if (y.dtype == DType::kFloat32 && fits_onednn(c)) return run_forward(c, y, x, w, bias);
  visit_floating(y.dtype, "conv", [&]<class T>(T) {
    T* out = y.as<T>();
    for (std::int64_t i = 0, count = y.numel(); i < count; ++i) out[i] = bias ? bias->as<T>()[i % c.o] : 0;
    for_each_product(c, [out, in = x.as<T>(), weight = w.as<T>()](auto yo, auto xo, auto wo) {
      out[yo] += in[xo] * weight[wo];
    });
  });
}

void conv2d_backward_input(const View& dx, const View& dy, const View& w, const Window& window,
                           std::int64_t groups) {
  const Conv c = geometry(dx, dy, window, groups);
  if (dx.dtype == DType::kFloat32 && suits_winograd(c)) return winograd_backward_input(c, dx, dy, w);
  if (dx.dtype == DType::kFloat32 && fits_onednn(c)) return run_backward_input(c, dx, dy, w);
  fill(dx, 0);
  visit_floating(dx.dtype, "conv", [&]<class T>(T) {
    for_each_product(c, [out = dx.as<T>(), in = dy.as<T>(), weight = w.as<T>()](auto yo, auto xo, auto wo) {
      out[xo] += in[yo] * weight[wo];
    });
  });
}

void conv2d_backward_weight(const View& dw, const View& x, const View& dy, const Window& window,
                            std::int64_t groups) {
  const Conv c = geometry(x, dy, window, groups);
  if (dw.dtype == DType::kFloat32 && suits_winograd(c)) return winograd_backward_weight(c, dw, x, dy);
  if (dw.dtype == DType::kFloat32 && fits_onednn(c))
    return is_strided_point(window) ? point_backward_weight(c, dw, x, dy) : run_backward_weight(c, dw, x, dy);
  fill(dw, 0);
  visit_floating(dw.dtype, "conv", [&]<class T>(T) {
    for_each_product(c, [out = dw.as<T>(), in = x.as<T>(), grad = dy.as<T>()](auto yo, auto xo, auto wo) {
      out[wo] += in[xo] * grad[yo];
    });
  });
}

}  // namespace trireme::cpu
