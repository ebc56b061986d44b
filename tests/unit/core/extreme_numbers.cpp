// Tests that numbers so large that arithmetic would overflow give an error before any arithmetic.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using test::error_of;
using test::expect_holds;

constexpr std::int64_t kHuge = std::int64_t{1} << 62, kLast = std::numeric_limits<std::int64_t>::max(),
                       kFirst = std::numeric_limits<std::int64_t>::min();

TEST(ExtremeNumbers, MakeNoTensor) {
  const auto says = [](const std::function<void()>& call, const char* op, const char* what) {
    expect_holds(error_of(call), {op, what});
  };
  says([] { Tensor::empty({kHuge, 4}); }, "empty", "too many elements");
  says([] { Tensor::empty({0, kHuge, kHuge}); }, "empty", "too many elements");
  says([] { Tensor::empty_channels_last({1, kHuge, 2, 2}); }, "empty", "too many elements");
  says([] { Tensor::empty_strided({3, 3}, {kHuge, 1}); }, "empty_strided", "does not go with");
  says([] { Tensor::empty_strided({3, 3}, {-1, 1}); }, "empty_strided", "does not go with");
  says([] { Tensor::from(std::vector<float>(), {kHuge, 4}); }, "from", "too many elements");
  says([] { Tensor::empty({std::int64_t{1} << 40}); }, "allocate", "out of memory");
  says([] { arange(0, 1e300); }, "arange", "too many elements");
  says([] { eye(kHuge, kHuge); }, "eye", "too many elements");
  says([] { eye(-1, 2); }, "eye", "negative size");
}

TEST(ExtremeNumbers, AreNoShapeOfATensor) {
  const Tensor x = Tensor::ones({2, 3}), one = Tensor::ones({1});
  const auto says = [](const std::function<void()>& call, const char* op, const char* what) {
    expect_holds(error_of(call), {op, what});
  };
  says([&] { reshape(x, {kHuge, 4, -1}); }, "reshape", "too many elements");
  says([&] { expand(one, {kHuge, 8, 1}); }, "expand", "too many elements");
  says([&] { expand(one, {-3}); }, "expand", "negative size");
  says([&] { repeat(x, {kHuge, 4}); }, "repeat", "too many elements");
  says([&] { pad(x, {kLast, kLast}); }, "pad", "out of range");
  says([&] { pad(x, {kFirst, 0}); }, "pad", "out of range");
  says([&] { diagonal(x, kFirst); }, "diagonal", "out of range");
  says(
      [&] {
        expand(one, {1 << 30}) + expand(reshape(one, {1, 1}), {1 << 30, 1});
      },
      "add", "too many elements");
  EXPECT_EQ(unfold(x, 1, 2, kLast).shape(), (Shape{2, 1, 2})) << "one window, wherever the next would be";
}

TEST(ExtremeNumbers, AreNoOptionOfAWindow) {
  const Tensor x = Tensor::ones({1, 1, 4, 4}), w = Tensor::ones({1, 1, 2, 2});
  for (const std::int64_t n : {kHuge, kLast, kFirst}) {
    for (const Conv2dOptions& o :
         std::vector<Conv2dOptions>{{.stride = n}, {.padding = n}, {.groups = n}, {.dilation = n}})
      EXPECT_NE(error_of([&] { conv2d(x, w, {}, o); }).find("conv2d: "), std::string::npos);
    for (const ConvTransposeOptions& o : std::vector<ConvTransposeOptions>{
             {.stride = n}, {.padding = n}, {.output_padding = n}, {.dilation = n}})
      EXPECT_NE(error_of([&] { conv_transpose2d(x, w, {}, o); }).find("conv_transpose2d: "),
                std::string::npos);
    EXPECT_NE(error_of([&] { avg_pool2d(x, {.kernel = n}); }).find("avg_pool2d: "), std::string::npos);
    EXPECT_NE(error_of([&] { max_pool2d(x, {.stride = n}); }).find("max_pool2d: "), std::string::npos);
    EXPECT_NE(error_of([&] { interpolate(x, {.size = {n, 2}}); }).find("interpolate: "), std::string::npos);
    EXPECT_NE(error_of([&] { adaptive_avg_pool2d(x, 2, n); }).find("adaptive_avg_pool2d: "),
              std::string::npos);
  }
  expect_holds(error_of([&] { adaptive_max_pool2d(x, std::int64_t{1} << 32, 1); }), {"out of range"});
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;
  EXPECT_EQ(conv2d(x, w, {}, {.stride = kMost}).item(), 4);
  EXPECT_EQ(sum(conv2d(x, Tensor::ones({1, 1, 1, 1}), {}, {.padding = 2, .dilation = kMost})).item(), 16);
}

std::vector<float> values(const Tensor& t) {
  const Tensor rows = contiguous(t);
  return {rows.data<float>(), rows.data<float>() + rows.numel()};
}

TEST(ExtremeNumbers, ReachFarPastAnImage) {
  constexpr std::int64_t kFar = std::int64_t{1} << 29;
  const Tensor x = Tensor::from(std::vector<float>{3, 1, 1, 1}, {1, 1, 2, 2}).set_requires_grad(true),
               w = Tensor::from(std::vector<float>{1, 10, 100, 1000}, {1, 1, 2, 2}).set_requires_grad(true);
  // One corner of the window is on the image's first pixel, and the others are outside of the image.
  const Tensor y = conv2d(x, w, {}, {.stride = kFar, .padding = kFar, .dilation = kFar});
  EXPECT_EQ(values(y), (std::vector<float>{3000, 300, 30, 3}));
  sum(y).backward();
  EXPECT_EQ(values(x.grad()), (std::vector<float>{1111, 0, 0, 0}));
  EXPECT_EQ(values(w.grad()), (std::vector<float>{3, 3, 3, 3}));
}

TEST(ExtremeNumbers, AreNoIndex) {
  const Tensor x = Tensor::ones({3});
  for (const std::int64_t n : {kLast, kFirst, (std::int64_t{1} << 53) + 1}) {
    const Tensor at = Tensor::from(std::vector<std::int64_t>{n}, {1});
    const std::string number = std::to_string(n);
    expect_holds(error_of([&] { gather(x, 0, at); }), {"gather", number.c_str()});
    expect_holds(error_of([&] { index(x, {at}); }), {"index", number.c_str()});
    expect_holds(error_of([&] { one_hot(at, 5); }), {"one_hot", number.c_str()});
  }
  expect_holds(error_of([] { one_hot(Tensor::from(std::vector<std::int64_t>{kLast}, {1})); }), {"one_hot"});
  EXPECT_EQ(narrow(x, 0, 1, 2).numel(), 2);
  expect_holds(error_of([&] { narrow(x, 0, kLast, kLast); }), {"narrow"});
}

}  // namespace
}  // namespace trireme
