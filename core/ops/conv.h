// Convolution, pooling and resizing of images. See ops.h for the rules of all ops.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor/tensor.h"

namespace trireme {

// --- conv.cpp: x (N,C,H,W); results are channels-last in memory
struct Conv2dOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t groups = 1;
  std::int64_t dilation = 1;
};
/// w (O, C/groups, kh, kw), b (O) or undefined -> (N, O, (H + 2p - d(kh - 1) - 1)/s + 1, the same of W).
Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& b = {}, const Conv2dOptions& options = {});
/// x (N,C,L), w (O, C/groups, k).
Tensor conv1d(const Tensor& x, const Tensor& w, const Tensor& b = {}, const Conv2dOptions& options = {});
struct ConvTransposeOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t output_padding = 0;
  std::int64_t groups = 1;
  std::int64_t dilation = 1;
};
/// The gradient of conv2d's input: w (C, O/groups, kh, kw) -> (N, O, (H - 1)s - 2p + d(kh - 1) + op + 1,
/// ...).
Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& b = {},
                        const ConvTransposeOptions& options = {});

// --- pool.cpp
struct PoolOptions {
  std::int64_t kernel = 2;
  std::int64_t stride = 0;  ///< 0: the kernel's size
  std::int64_t padding = 0;
  std::int64_t dilation = 1;  ///< max_pool2d only
  bool ceil_mode = false;     ///< a last window may reach over the end
};
Tensor max_pool2d(const Tensor& x, const PoolOptions& options = {});
/// Padding counts as zeros; what a window covers beyond it does not count.
Tensor avg_pool2d(const Tensor& x, const PoolOptions& options = {});
/// (N,C,H,W) -> (N,C,height,width), windows as equal as can be.
Tensor adaptive_avg_pool2d(const Tensor& x, std::int64_t height, std::int64_t width);
Tensor adaptive_max_pool2d(const Tensor& x, std::int64_t height, std::int64_t width);
/// (N,C,H,W) -> (N,C): the mean of each channel.
Tensor global_avg_pool2d(const Tensor& x);

// --- interpolate.cpp
enum class Interpolation { kNearest, kBilinear };
struct InterpolateOptions {
  std::vector<std::int64_t> size = {};    ///< (height, width): either this
  std::vector<double> scale_factor = {};  ///< or this, of height and width
  Interpolation mode = Interpolation::kNearest;
  bool align_corners = false;  ///< kBilinear: corner pixels' centers, not their outer corners, stay in place
};
/// x (N,C,H,W) -> (N,C,height,width).
Tensor interpolate(const Tensor& x, const InterpolateOptions& options);

}  // namespace trireme
