// Tests that cuDNN has a plan for every kind of convolution. Its bits must not depend on scheduling, and it
// must compute float32 in full precision. Plans are made for described GPUs, so this needs the library but no
// GPU.
#include <gtest/gtest.h>

#include "kernels/cuda/conv_plan.h"
#include "tests/support/described_gpu.h"

namespace trireme::cuda {
namespace {

struct Layer {
  const char* name;
  std::array<std::int64_t, 4> x;
  std::int64_t out, groups, kernel_h, kernel_w, stride, padding_h, padding_w, dilation = 1;
};

const Layer kLayers[] = {{"3x3", {8, 64, 32, 32}, 64, 1, 3, 3, 1, 1, 1},
                         {"first layer", {8, 3, 32, 32}, 64, 1, 7, 7, 2, 3, 3},
                         {"1x1, stride 2", {8, 64, 32, 32}, 128, 1, 1, 1, 2, 0, 0},
                         {"odd channels", {2, 5, 9, 7}, 7, 1, 3, 3, 1, 1, 1},
                         {"dilated", {2, 8, 16, 16}, 8, 1, 3, 3, 1, 2, 2, 2},
                         {"groups", {2, 8, 16, 16}, 12, 4, 3, 3, 1, 1, 1},
                         {"depthwise", {2, 32, 16, 16}, 32, 32, 3, 3, 1, 1, 1},
                         {"sequence", {4, 16, 1, 50}, 32, 1, 1, 5, 1, 0, 2},
                         {"patches", {2, 3, 224, 224}, 192, 1, 16, 16, 16, 0, 0}};

ConvShape shape_of(const Layer& l, ConvPass pass, DType dtype) {
  const auto size = [&](std::int64_t in, std::int64_t kernel, std::int64_t padding) {
    return (in + 2 * padding - l.dilation * (kernel - 1) - 1) / l.stride + 1;
  };
  return {pass,
          dtype,
          l.x,
          {l.out, l.x[1] / l.groups, l.kernel_h, l.kernel_w},
          {l.x[0], l.out, size(l.x[2], l.kernel_h, l.padding_h), size(l.x[3], l.kernel_w, l.padding_w)},
          l.stride,
          l.stride,
          l.padding_h,
          l.padding_w,
          l.dilation,
          l.dilation};
}

TEST(CudnnPlans, ThereIsOneForEveryConvolution) {
  try {
    dnn::api();
  } catch (const Error& e) {
    GTEST_SKIP() << "skipped: " << e.what();
  }
  for (const std::string& described :
       {test::described_gpu(800, 108, 166912), test::described_gpu(900, 132, 232448)}) {
    const dnn::Target target(described);
    for (const Layer& layer : kLayers)
      for (const auto pass : {ConvPass::kForward, ConvPass::kBackwardInput, ConvPass::kBackwardWeight})
        for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64}) {
          SCOPED_TRACE(fmt::format("{}, pass {}, {}", layer.name, static_cast<int>(pass), name_of(dtype)));
          EXPECT_NO_THROW({
            try {
              plan_conv(target, shape_of(layer, pass, dtype));
            } catch (const Error& e) {
              ADD_FAILURE() << e.what();
            }
          });
        }
  }
}

}  // namespace
}  // namespace trireme::cuda
