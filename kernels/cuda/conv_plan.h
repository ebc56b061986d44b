// The description of a convolution and cuDNN's plan for it. Include only from kernels/cuda and its tests.
#pragma once

#include <array>
#include <tuple>

#include "kernels/cuda/cudnn.h"
#include "kernels/table.h"

namespace trireme::cuda {

enum class ConvPass { kForward, kBackwardInput, kBackwardWeight };

/// Channels-last x (N,C,H,W) and y (N,O,H',W'), filters (O,C/groups,kh,kw) with channels next to each other
/// in memory.
struct ConvShape {
  ConvPass pass = ConvPass::kForward;
  DType dtype = DType::kFloat32;
  std::array<std::int64_t, 4> x{}, w{}, y{};
  std::int64_t stride_h = 1, stride_w = 1, padding_h = 0, padding_w = 0, dilation_h = 1, dilation_w = 1;
  auto operator<=>(const ConvShape&) const = default;
};

/// Describes a convolution in one line; different shapes have different lines.
std::string describe(const ConvShape& shape);

/// Makes a plan whose tensors 0, 1 and 2 are x, w and y. Throws Error(kInternal) if the library cannot.
dnn::Plan plan_conv(const dnn::Target& target, const ConvShape& shape);

}  // namespace trireme::cuda
