// 2-D pooling over channels-last images. Channels are next to each other, so the inner loop is over them.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"

namespace trireme::cpu {

namespace {

struct Pool {
  std::int64_t n, c, h, w, oh, ow;
  Window window;
};

Pool geometry(const View& x, const View& y, const Window& window) {
  return {x.shape[0], x.shape[1], x.shape[2], x.shape[3], y.shape[2], y.shape[3], window};
}

/// Elements first, first + gap, ... of an axis, `count` of them; those outside of it do not count.
struct Span {
  std::int64_t first, count, gap;
};

Span span(std::int64_t i, bool adaptive, std::int64_t size, std::int64_t places, std::int64_t kernel,
          std::int64_t stride, std::int64_t padding, std::int64_t dilation) {
  if (!adaptive) return {i * stride - padding, kernel, dilation};
  const std::int64_t first = i * size / places;
  return {first, ((i + 1) * size + places - 1) / places - first, 1};
}

/// Calls fn(output pixel, input pixel, h*W+w) for every pair that meets in image n.
template <class Fn>
void for_each_pair(const Pool& p, std::int64_t n, const Fn& fn) {
  const Window& k = p.window;
  for (std::int64_t oy = 0; oy < p.oh; ++oy) {
    const Span rows = span(oy, k.adaptive, p.h, p.oh, k.kernel_h, k.stride_h, k.padding_h, k.dilation_h);
    for (std::int64_t ox = 0; ox < p.ow; ++ox) {
      const Span columns = span(ox, k.adaptive, p.w, p.ow, k.kernel_w, k.stride_w, k.padding_w, k.dilation_w);
      for (std::int64_t ky = 0; ky < rows.count; ++ky)
        for (std::int64_t kx = 0; kx < columns.count; ++kx) {
          const std::int64_t iy = rows.first + ky * rows.gap, ix = columns.first + kx * columns.gap;
          if (iy < 0 || iy >= p.h || ix < 0 || ix >= p.w) continue;
          fn((n * p.oh + oy) * p.ow + ox, (n * p.h + iy) * p.w + ix, iy * p.w + ix);
        }
    }
  }
}

}  // namespace

void pool_forward(PoolOp op, const View& y, const View* indices, const View& x, const Window& window) {
  const Pool p = geometry(x, y, window);
  visit_floating(x.dtype, "pool", [&](auto type) {
    using T = decltype(type);
    const T* in = x.as<T>();
    T* out = y.as<T>();
    const bool is_max = op == PoolOp::kMax;
    const T share = T(1) / static_cast<T>(window.kernel_h * window.kernel_w);
    const std::int64_t image = p.oh * p.ow * p.c;
    for_pieces(p.n, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) {
        std::fill(out + n * image, out + (n + 1) * image, T(0));
        if (is_max)
          std::fill_n(indices->as<std::int64_t>() + n * image, image, std::int64_t{-1});  // nothing seen yet
        for_each_pair(p, n, [&](std::int64_t to, std::int64_t from, std::int64_t index) {
          T* o = out + to * p.c;
          const T* i = in + from * p.c;
          if (is_max) {
            std::int64_t* at = indices->as<std::int64_t>() + to * p.c;
            for (std::int64_t c = 0; c < p.c; ++c) {
              const bool larger = at[c] < 0 || i[c] > o[c] || i[c] != i[c];
              o[c] = larger ? i[c] : o[c];
              at[c] = larger ? index : at[c];
            }
          } else {
            for (std::int64_t c = 0; c < p.c; ++c) o[c] += i[c];
          }
        });
        if (!is_max)
          for (std::int64_t k = n * image; k < (n + 1) * image; ++k) out[k] *= share;
      }
    });
  });
}

void pool_backward(PoolOp op, const View& dx, const View& dy, const View* indices, const Window& window) {
  const Pool p = geometry(dx, dy, window);
  visit_floating(dx.dtype, "pool", [&](auto type) {
    using T = decltype(type);
    const T* in = dy.as<T>();
    T* out = dx.as<T>();
    const T share = T(1) / static_cast<T>(window.kernel_h * window.kernel_w);
    const std::int64_t image = p.h * p.w * p.c;
    for_pieces(p.n, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) {
        std::fill(out + n * image, out + (n + 1) * image, T(0));
        if (op == PoolOp::kMax) {
          const std::int64_t* at = indices->as<std::int64_t>();
          for (std::int64_t k = n * p.oh * p.ow * p.c; k < (n + 1) * p.oh * p.ow * p.c; ++k)
            out[n * image + at[k] * p.c + k % p.c] += in[k];
          continue;
        }
        for_each_pair(p, n, [&](std::int64_t from, std::int64_t to, std::int64_t) {
          T* o = out + to * p.c;
          const T* g = in + from * p.c;
          for (std::int64_t c = 0; c < p.c; ++c) o[c] += g[c] * share;
        });
      }
    });
  });
}

}  // namespace trireme::cpu
