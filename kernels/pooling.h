// Computes the pixels that a pooling window covers, for every device.
#pragma once

#include "kernels/host_device.h"
#include "kernels/table.h"

namespace trireme {

/// `count` elements first, first + gap, ... of an axis. Elements outside of the axis are ignored.
struct PoolSpan {
  std::int64_t first, count, gap;
};

/// Pooling of channels-last x (n,c,h,w) to (n,c,oh,ow).
struct PoolShape {
  std::int64_t n, c, h, w, oh, ow;
  Window window;

  PoolShape(const View& x, const View& y, const Window& k)
      : n(x.shape[0]),
        c(x.shape[1]),
        h(x.shape[2]),
        w(x.shape[3]),
        oh(y.shape[2]),
        ow(y.shape[3]),
        window(k) {}

  TRIREME_HOST_DEVICE PoolSpan rows(std::int64_t oy) const {
    return window.adaptive
               ? adaptive(oy, h, oh)
               : PoolSpan{oy * window.stride_h - window.padding_h, window.kernel_h, window.dilation_h};
  }
  TRIREME_HOST_DEVICE PoolSpan columns(std::int64_t ox) const {
    return window.adaptive
               ? adaptive(ox, w, ow)
               : PoolSpan{ox * window.stride_w - window.padding_w, window.kernel_w, window.dilation_w};
  }
  /// Returns the number of elements of the padded image that a window covers: fewer than the kernel has where
  /// the window reaches over the end of the padding.
  TRIREME_HOST_DEVICE std::int64_t covered(std::int64_t oy, std::int64_t ox) const {
    return inside(rows(oy), h + window.padding_h) * inside(columns(ox), w + window.padding_w);
  }

 private:
  TRIREME_HOST_DEVICE static std::int64_t inside(const PoolSpan& span, std::int64_t end) {
    const std::int64_t most = (end - span.first + span.gap - 1) / span.gap;
    return span.count < most ? span.count : most;
  }
  TRIREME_HOST_DEVICE static PoolSpan adaptive(std::int64_t i, std::int64_t size, std::int64_t places) {
    const std::int64_t first = i * size / places;
    return {first, ((i + 1) * size + places - 1) / places - first, 1};
  }
};

}  // namespace trireme
