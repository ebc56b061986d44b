// Pooling and resizing of channels-last images: a thread for each element of the result. Backward, it gathers
// from all that took part of it, so that no two threads add to one place. Pools take images of 16 bits too:
// In is an image's type, T that of the arithmetic.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/low_precision.h"
#include "kernels/pooling.h"
#include "kernels/visit.h"

namespace trireme::cuda {

namespace {

/// Element i of channels-last images (.., h, w, c).
struct Place {
  std::int64_t n, y, x, c;
  TRIREME_HOST_DEVICE Place(std::int64_t i, std::int64_t h, std::int64_t w, std::int64_t channels)
      : n(i / channels / w / h), y(i / channels / w % h), x(i / channels % w), c(i % channels) {}
};

template <class In, class T = Compute<In>>
struct PoolForward {
  PoolShape p;
  const In* x;
  In* y;
  std::int64_t* indices;  ///< null: averages
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const Place to(i, p.oh, p.ow, p.c);
    const PoolSpan rows = p.rows(to.y), columns = p.columns(to.x);
    T result = 0;
    std::int64_t found = -1;
    for (std::int64_t ky = 0; ky < rows.count; ++ky)
      for (std::int64_t kx = 0; kx < columns.count; ++kx) {
        const std::int64_t iy = rows.first + ky * rows.gap, ix = columns.first + kx * columns.gap;
        if (iy < 0 || iy >= p.h || ix < 0 || ix >= p.w) continue;
        const T v = static_cast<T>(x[((to.n * p.h + iy) * p.w + ix) * p.c + to.c]);
        if (!indices) {
          result += v;
        } else if (found < 0 || v > result || v != v) {
          result = v;
          found = iy * p.w + ix;
        }
      }
    y[i] = static_cast<In>(indices ? result : result / static_cast<T>(p.covered(to.y, to.x)));
    if (indices) indices[i] = found;
  }
};

/// Windows that may cover an element of an axis: first to last.
struct Covering {
  std::int64_t first, last;
  TRIREME_HOST_DEVICE Covering(std::int64_t at, bool adaptive, std::int64_t size, std::int64_t places,
                               std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                               std::int64_t dilation) {
    if (adaptive) {  // window i covers floor(i * size / places) up to ceil((i + 1) * size / places)
      first = at * places / size;
      last = ((at + 1) * places - 1) / size;
    } else {
      const std::int64_t reach = (kernel - 1) * dilation, low = at + padding - reach;
      first = low <= 0 ? 0 : (low + stride - 1) / stride;
      last = (at + padding) / stride;
    }
    last = last < places - 1 ? last : places - 1;
  }
};

template <class In, class T = Compute<In>>
struct PoolBackward {
  PoolShape p;
  const In* dy;
  In* dx;
  const std::int64_t* indices;  ///< null: averages
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const Place to(i, p.h, p.w, p.c);
    const Window& k = p.window;
    const Covering rows(to.y, k.adaptive, p.h, p.oh, k.kernel_h, k.stride_h, k.padding_h, k.dilation_h),
        columns(to.x, k.adaptive, p.w, p.ow, k.kernel_w, k.stride_w, k.padding_w, k.dilation_w);
    T sum = 0;
    for (std::int64_t oy = rows.first; oy <= rows.last; ++oy)
      for (std::int64_t ox = columns.first; ox <= columns.last; ++ox) {
        const std::int64_t from = ((to.n * p.oh + oy) * p.ow + ox) * p.c + to.c;
        if (indices)
          sum += indices[from] == to.y * p.w + to.x ? static_cast<T>(dy[from]) : T(0);
        else if ((to.y + k.padding_h - oy * k.stride_h) % k.dilation_h == 0 &&
                 (to.x + k.padding_w - ox * k.stride_w) % k.dilation_w == 0)
          sum += static_cast<T>(dy[from]) / static_cast<T>(p.covered(oy, ox));
      }
    dx[i] = static_cast<In>(sum);
  }
};

/// A Resampling on the device.
struct Axis {
  const std::int64_t* first;
  const double* weight;
  std::int64_t places;
};

/// Its arrays, for the length of a call.
class DeviceAxis {
 public:
  explicit DeviceAxis(const Resampling& r)
      : places_(static_cast<std::int64_t>(r.first.size())),
        first_(r.first.size() * sizeof(std::int64_t)),
        weight_(r.first.size() * sizeof(double)) {
    upload(first_.as<void>(), r.first.data(), r.first.size() * sizeof(std::int64_t));
    upload(weight_.as<void>(), r.weight.data(), r.weight.size() * sizeof(double));
  }
  Axis axis() const { return {first_.as<std::int64_t>(), weight_.as<double>(), places_}; }

 private:
  std::int64_t places_;
  Scratch first_, weight_;
};

template <class T>
struct ResampleForward {
  Axis rows, columns;
  const T* x;
  T* y;
  std::int64_t h, w, c;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const Place to(i, rows.places, columns.places, c);
    T sum = 0;
    for (int a = 0; a < 2; ++a)
      for (int b = 0; b < 2; ++b) {
        const double next_row = rows.weight[to.y], next_column = columns.weight[to.x];
        if ((a == 1 && next_row == 0) || (b == 1 && next_column == 0)) continue;
        const double weight = (a ? next_row : 1 - next_row) * (b ? next_column : 1 - next_column);
        const std::int64_t row = rows.first[to.y] + a, column = columns.first[to.x] + b;
        sum += x[((to.n * h + row) * w + column) * c + to.c] * static_cast<T>(weight);
      }
    y[i] = sum;
  }
};

/// The part of place o of an axis that element `at` has.
TRIREME_HOST_DEVICE inline double part_of(const Axis& axis, std::int64_t o, std::int64_t at) {
  double part = 0;
  if (axis.first[o] == at) part += 1 - axis.weight[o];
  if (axis.first[o] + 1 == at) part += axis.weight[o];
  return part;
}

/// First place of an axis whose first element is `at` or later; firsts never fall.
TRIREME_HOST_DEVICE inline std::int64_t first_place(const Axis& axis, std::int64_t at) {
  std::int64_t low = 0, high = axis.places;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (axis.first[middle] < at)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

template <class T>
struct ResampleBackward {
  Axis rows, columns;
  const T* dy;
  T* dx;
  std::int64_t h, w, c;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const Place to(i, h, w, c);
    T sum = 0;
    const std::int64_t last_row = first_place(rows, to.y + 1), last_column = first_place(columns, to.x + 1);
    for (std::int64_t oy = first_place(rows, to.y - 1); oy < last_row; ++oy) {
      const double a = part_of(rows, oy, to.y);
      for (std::int64_t ox = first_place(columns, to.x - 1); ox < last_column; ++ox) {
        const double part = a * part_of(columns, ox, to.x);
        if (part != 0)  // 0 times an infinite gradient would be NaN
          sum += dy[((to.n * rows.places + oy) * columns.places + ox) * c + to.c] * static_cast<T>(part);
      }
    }
    dx[i] = sum;
  }
};

}  // namespace

void pool_forward(PoolOp op, const View& y, const View* indices, const View& x, const Window& window) {
  visit_any_floating(x.dtype, "pool", [&](auto type) {
    using T = decltype(type);
    parallel_for(y.numel(), PoolForward<T>{PoolShape(x, y, window), x.as<T>(), y.as<T>(),
                                           op == PoolOp::kMax ? indices->as<std::int64_t>() : nullptr});
  });
}

void pool_backward(PoolOp op, const View& dx, const View& dy, const View* indices, const Window& window) {
  visit_any_floating(dx.dtype, "pool", [&](auto type) {
    using T = decltype(type);
    parallel_for(dx.numel(), PoolBackward<T>{PoolShape(dx, dy, window), dy.as<T>(), dx.as<T>(),
                                             op == PoolOp::kMax ? indices->as<std::int64_t>() : nullptr});
  });
}

void resample_forward(const View& y, const View& x, const Resampling& rows, const Resampling& columns) {
  visit_floating(x.dtype, "interpolate", [&](auto type) {
    using T = decltype(type);
    const DeviceAxis down(rows), across(columns);
    parallel_for(y.numel(), ResampleForward<T>{down.axis(), across.axis(), x.as<T>(), y.as<T>(), x.shape[2],
                                               x.shape[3], x.shape[1]});
  });
}

void resample_backward(const View& dx, const View& dy, const Resampling& rows, const Resampling& columns) {
  visit_floating(dx.dtype, "interpolate", [&](auto type) {
    using T = decltype(type);
    const DeviceAxis down(rows), across(columns);
    parallel_for(dx.numel(), ResampleBackward<T>{down.axis(), across.axis(), dy.as<T>(), dx.as<T>(),
                                                 dx.shape[2], dx.shape[3], dx.shape[1]});
  });
}

}  // namespace trireme::cuda
