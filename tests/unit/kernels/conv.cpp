// Compares the convolutions that do not use oneDNN (minimal filtering, and strided 1x1) with the definition
// in float64.
#include "kernels/cpu/winograd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/rng.h"

namespace trireme {
namespace {

/// Images (n,c,h,w) or weights of 4-dimensional shape `size`, in channels-last or row-major order.
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
  std::int64_t kernel = 3, stride = 1, groups = 1;
  std::int64_t out(std::int64_t size) const { return (size + 2 * padding - kernel) / stride + 1; }
  std::array<std::int64_t, 4> x() const { return {n, c, h, w}; }
  std::array<std::int64_t, 4> y() const { return {n, o, out(h), out(w)}; }
  std::array<std::int64_t, 4> weight() const { return {o, c / groups, kernel, kernel}; }
  Window window() const {
    return {.kernel_h = kernel,
            .kernel_w = kernel,
            .stride_h = stride,
            .stride_w = stride,
            .padding_h = padding,
            .padding_w = padding};
  }
  cpu::Conv conv() const { return {n, c, h, w, o, out(h), out(w), groups, window()}; }
};

std::int64_t count(const std::array<std::int64_t, 4>& size) { return size[0] * size[1] * size[2] * size[3]; }

template <class T>
std::vector<T> unset(const std::array<std::int64_t, 4>& size) {
  return std::vector<T>(static_cast<std::size_t>(count(size)), std::numeric_limits<T>::quiet_NaN());
}

/// The results of a convolution and of its gradients.
template <class T>
struct Results {
  std::vector<T> y, dx, dw;

  explicit Results(const Case& s) : y(unset<T>(s.y())), dx(unset<T>(s.x())), dw(unset<T>(s.weight())) {
    auto x = numbers<T>(count(s.x()), 1), w = numbers<T>(count(s.weight()), 2),
         dy = numbers<T>(count(s.y()), 3), b = numbers<T>(s.o, 4);
    const View vx = view_of(x, s.x(), true), vw = view_of(w, s.weight(), false),
               vdy = view_of(dy, s.y(), true), vy = view_of(y, s.y(), true), vdx = view_of(dx, s.x(), true),
               vdw = view_of(dw, s.weight(), false);
    View bias = view_of(b, {s.o, 1, 1, 1}, false);
    bias.dims = 1;
    const KernelTable& k = kernels_of(kCpu);
    k.conv2d_forward(vy, vx, vw, &bias, s.window(), s.groups);
    k.conv2d_backward_input(vdx, vdy, vw, s.window(), s.groups);
    k.conv2d_backward_weight(vdw, vx, vdy, s.window(), s.groups);
  }
};

void expect_near(const std::vector<float>& got, const std::vector<double>& wanted, const char* what) {
  double largest = 0, error = 0;
  for (const double v : wanted) largest = std::max(largest, std::fabs(v));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double distance = std::fabs(static_cast<double>(got[i]) - wanted[i]);
    if (!(distance <= error)) error = distance;  // keeps NaN
  }
  EXPECT_LE(error / largest, 1e-6) << what;
}

void expect_the_convolution(const Case& s) {
  SCOPED_TRACE(fmt::format("x ({},{},{},{}), {} channels out, kernel {}, padding {}, stride {}, groups {}",
                           s.n, s.c, s.h, s.w, s.o, s.kernel, s.padding, s.stride, s.groups));
  const Results<float> got(s);
  const Results<double> wanted(s);
  expect_near(got.y, wanted.y, "forward");
  expect_near(got.dx, wanted.dx, "gradient of x");
  expect_near(got.dw, wanted.dw, "gradient of w");
}

// Odd sizes leave tiles half empty. 136 tiles are more than one block, and 1152 more than one block of
// weights.
const Case kCases[] = {{2, 32, 7, 5, 40, 1},   {1, 40, 6, 9, 32, 0},   {3, 32, 4, 6, 32, 2},
                       {1, 32, 32, 34, 32, 1}, {8, 32, 24, 24, 32, 1}, {1, 64, 4, 4, 96, 1}};

TEST(Winograd, IsTheConvolution) {
  for (const Case& s : kCases) {
    ASSERT_TRUE(cpu::suits_winograd(s.conv()));
    expect_the_convolution(s);
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

// The cases include several gathers, padding, groups, and too few channels for a vector.
TEST(StridedPoints, AreTheConvolution) {
  const Case cases[] = {
      {.n = 9, .c = 64, .h = 97, .w = 94, .o = 24, .padding = 0, .kernel = 1, .stride = 2},
      {.n = 2, .c = 8, .h = 7, .w = 5, .o = 16, .padding = 2, .kernel = 1, .stride = 3},
      {.n = 3, .c = 12, .h = 6, .w = 9, .o = 6, .padding = 0, .kernel = 1, .stride = 2, .groups = 3},
      {.n = 1, .c = 3, .h = 1, .w = 8, .o = 5, .padding = 0, .kernel = 1, .stride = 2}};
  for (const Case& s : cases) expect_the_convolution(s);
}

}  // namespace
}  // namespace trireme
