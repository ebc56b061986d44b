// 2-D pooling over channels-last images. Channels are next to each other, so the inner loop is over them.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/pooling.h"

namespace trireme::cpu {

namespace {

/// Calls fn(output pixel, input pixel, h*W+w) for every pair that meets in image n.
template <class Fn>
void for_each_pair(const PoolShape& p, std::int64_t n, const Fn& fn) {
  for (std::int64_t oy = 0; oy < p.oh; ++oy) {
    const PoolSpan rows = p.rows(oy);
    for (std::int64_t ox = 0; ox < p.ow; ++ox) {
      const PoolSpan columns = p.columns(ox);
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
  const PoolShape p(x, y, window);
  visit_floating(x.dtype, "pool", [&](auto type) {
    using T = decltype(type);
    const T* in = x.as<T>();
    T* out = y.as<T>();
    const bool is_max = op == PoolOp::kMax;
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
        if (is_max) continue;
        for (std::int64_t pixel = 0; pixel < p.oh * p.ow; ++pixel) {
          const T covered = static_cast<T>(p.covered(pixel / p.ow, pixel % p.ow));
          T* o = out + n * image + pixel * p.c;
          for (std::int64_t c = 0; c < p.c; ++c) o[c] /= covered;
        }
      }
    });
  });
}

void pool_backward(PoolOp op, const View& dx, const View& dy, const View* indices, const Window& window) {
  const PoolShape p(dx, dy, window);
  visit_floating(dx.dtype, "pool", [&](auto type) {
    using T = decltype(type);
    const T* in = dy.as<T>();
    T* out = dx.as<T>();
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
          const T *g = in + from * p.c, covered = static_cast<T>(p.covered(from / p.ow % p.oh, from % p.ow));
          for (std::int64_t c = 0; c < p.c; ++c) o[c] += g[c] / covered;
        });
      }
    });
  });
}

}  // namespace trireme::cpu
