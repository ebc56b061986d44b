// The block of residual networks.
#pragma once

#include <cstdint>

#include "core/nn/conv.h"
#include "core/nn/norm.h"

namespace trireme::nn {

/// Two 3x3 convolutions around a shortcut: K. He et al., "Deep residual learning for image recognition",
/// 2016.
class BasicBlock : public Module {
 public:
  BasicBlock(std::int64_t in, std::int64_t out, std::int64_t stride = 1);
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  Conv2d conv1, conv2;
  BatchNorm2d bn1, bn2;
  Sequential downsample;  ///< 1x1 convolution and norm where the shape changes, else empty
};

}  // namespace trireme::nn
