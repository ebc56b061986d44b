// Convolutions by minimal filtering against the definition in float64.
#include "kernels/cpu/winograd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/rng.h"

namespace trireme {
namespace {

/// Images (n,c,h,w) or weights, of whole 4-dimensional shape `size`, channels-last or row-major.
template <class T>
View view_of(std::vector<T>& memory, std::array<std::int64_t, 4> size, bool channels_last) {
  View v;
  v.data = memory.data();
  v.dtype = dtype_of<T>;
  v.dims = 4;
  const auto [n, c, h, w] = size;
  const std::int64_t last[] = {h * w * c, 1, w * c, c}, row[] = {c * h * w, h * w, w, 1};
  for (int d = 0; d < 4; ++d) {
    v.shape[d] = size[static_cast<std::size_t>(d)];
    v.strides[d] = channels_last ? last[d] : row[d];
  }
  return v;
}

template <class T>
std::vector<T> numbers(std::int64_t count, std::uint64_t stream) {
  std::vector<T> out(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<T>(to_unit_float(philox({7}, stream, i)[0]) - 0.5f);
  return out;
}

struct Case {
  std::int64_t n, c, h, w, o, padding;
  std::int64_t oh() const { return h + 2 * padding - 2; }
  std::int64_t ow() const { return w + 2 * padding - 2; }
  cpu::Conv conv() const {
    return {n,    c, h,
            w,    o, oh(),
            ow(), 1, {.kernel_h = 3, .kernel_w = 3, .padding_h = padding, .padding_w = padding}};
  }
};

/// What a convolution and its gradients give. In float32 by minimal filtering.
template <class T>
struct Results {
  std::vector<T> y, dx, dw;

  explicit Results(const Case& s)
      : y(s.n * s.o * s.oh() * s.ow(), std::numeric_limits<T>::quiet_NaN()),
        dx(s.n * s.c * s.h * s.w, std::numeric_limits<T>::quiet_NaN()),
        dw(s.o * s.c * 9, std::numeric_limits<T>::quiet_NaN()) {
    auto x = numbers<T>(s.n * s.c * s.h * s.w, 1), w = numbers<T>(s.o * s.c * 9, 2),
         dy = numbers<T>(s.n * s.o * s.oh() * s.ow(), 3), b = numbers<T>(s.o, 4);
    const View vx = view_of(x, {s.n, s.c, s.h, s.w}, true), vw = view_of(w, {s.o, s.c, 3, 3}, false),
               vdy = view_of(dy, {s.n, s.o, s.oh(), s.ow()}, true),
               vy = view_of(y, {s.n, s.o, s.oh(), s.ow()}, true),
               vdx = view_of(dx, {s.n, s.c, s.h, s.w}, true), vdw = view_of(dw, {s.o, s.c, 3, 3}, false);
    View bias = view_of(b, {s.o, 1, 1, 1}, false);
    bias.dims = 1;
    const KernelTable& k = kernels_of(kCpu);
    const Window window = s.conv().window;
    k.conv2d_forward(vy, vx, vw, &bias, window, 1);
    k.conv2d_backward_input(vdx, vdy, vw, window, 1);
    k.conv2d_backward_weight(vdw, vx, vdy, window, 1);
  }
};

void expect_near(const std::vector<float>& got, const std::vector<double>& wanted, const char* what) {
  double largest = 0, error = 0;
  for (const double v : wanted) largest = std::max(largest, std::fabs(v));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double distance = std::fabs(static_cast<double>(got[i]) - wanted[i]);
    if (!(distance <= error)) error = distance;  // NaN stays
  }
  EXPECT_LE(error / largest, 1e-6) << what;
}

// Odd sizes leave tiles half empty; 136 tiles are more than one block, 1152 more than one of weights.
const Case kCases[] = {{2, 32, 7, 5, 40, 1},   {1, 40, 6, 9, 32, 0},   {3, 32, 4, 6, 32, 2},
                       {1, 32, 32, 34, 32, 1}, {8, 32, 24, 24, 32, 1}, {1, 64, 4, 4, 96, 1}};

TEST(Winograd, IsTheConvolution) {
  for (const Case& s : kCases) {
    SCOPED_TRACE(
        fmt::format("x ({},{},{},{}), {} channels out, padding {}", s.n, s.c, s.h, s.w, s.o, s.padding));
    ASSERT_TRUE(cpu::suits_winograd(s.conv()));
    const Results<float> got(s);
    const Results<double> wanted(s);
    expect_near(got.y, wanted.y, "forward");
    expect_near(got.dx, wanted.dx, "gradient of x");
    expect_near(got.dw, wanted.dw, "gradient of w");
  }
}

TEST(Winograd, BitsDoNotDependOnThreads) {
  const int before = threads();
  for (const Case& s : kCases) {
    set_threads(1);
    const Results<float> one(s);
    for (const int count : {2, 3}) {
      set_threads(count);
      const Results<float> many(s);
      EXPECT_EQ(one.y, many.y);
      EXPECT_EQ(one.dx, many.dx);
      EXPECT_EQ(one.dw, many.dw);
    }
  }
  set_threads(before);
}

TEST(Winograd, TakesNothingElse) {
  const cpu::Conv fits = Case{1, 32, 8, 8, 32, 1}.conv();
  ASSERT_TRUE(cpu::suits_winograd(fits));
  const auto with = [&](auto&& change) {
    cpu::Conv c = fits;
    change(c);
    return cpu::suits_winograd(c);
  };
  EXPECT_FALSE(with([](cpu::Conv& c) { c.window.kernel_w = 5; }));
  EXPECT_FALSE(with([](cpu::Conv& c) { c.window.stride_h = 2; }));
  EXPECT_FALSE(with([](cpu::Conv& c) { c.window.dilation_w = 2; }));
  EXPECT_FALSE(with([](cpu::Conv& c) { c.window.padding_h = c.window.padding_w = 3; }));
  EXPECT_FALSE(with([](cpu::Conv& c) { c.groups = 2; }));
  EXPECT_FALSE(with([](cpu::Conv& c) { c.c = 36; }));
  EXPECT_FALSE(with([](cpu::Conv& c) { c.oh += 1; }));  // a transposed convolution's output_padding
}

}  // namespace
}  // namespace trireme
