// M. Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018.
#include "examples/train_classifier/models/models.h"

namespace trireme::models {

namespace {

using namespace nn;

/// Returns a convolution, a batch norm and ReLU6. The convolution is depthwise if `groups` == `in` == `out`.
Sequential conv_norm(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride = 1,
                     std::int64_t groups = 1) {
  return Sequential(
      Conv2d(in, out, kernel, {.stride = stride, .padding = kernel / 2, .groups = groups}, false),
      BatchNorm2d(out), ReLU6());
}

/// Widens with a 1x1 convolution, filters each channel with a depthwise one, and narrows with another 1x1
/// convolution. Has a shortcut if input and output have the same shape.
struct InvertedResidual : Module {
  InvertedResidual(std::int64_t in, std::int64_t out, std::int64_t stride, std::int64_t expansion)
      : has_shortcut(stride == 1 && in == out) {
    const std::int64_t wide = in * expansion;
    if (expansion != 1) conv.push_back(std::make_shared<Sequential>(conv_norm(in, wide, 1)));
    conv.push_back(std::make_shared<Sequential>(conv_norm(wide, wide, 3, stride, wide)));
    conv.push_back(std::make_shared<Conv2d>(wide, out, 1, Conv2dOptions{}, false));
    conv.push_back(std::make_shared<BatchNorm2d>(out));
  }

  Tensor forward(const Tensor& x) override { return has_shortcut ? x + conv(x) : conv(x); }
  void visit(Visitor& v) override { v.module("conv", conv); }

  Sequential conv;
  bool has_shortcut;
};

struct MobileNet : Module {
  explicit MobileNet(const ModelOptions& o) : classifier(Dropout(o.dropout), Linear(1280, o.classes)) {
    struct Stage {
      std::int64_t expansion, width, blocks, stride;
    };
    std::int64_t in = 32;
    features.push_back(std::make_shared<Sequential>(conv_norm(o.input.channels, in, 3, is_small(o) ? 1 : 2)));
    for (const Stage& s : {Stage{1, 16, 1, 1}, Stage{6, 24, 2, is_small(o) ? 1 : 2}, Stage{6, 32, 3, 2},
                           Stage{6, 64, 4, 2}, Stage{6, 96, 3, 1}, Stage{6, 160, 3, 2}, Stage{6, 320, 1, 1}})
      for (std::int64_t i = 0; i < s.blocks; ++i, in = s.width)
        features.push_back(
            std::make_shared<InvertedResidual>(in, s.width, i == 0 ? s.stride : 1, s.expansion));
    features.push_back(std::make_shared<Sequential>(conv_norm(in, 1280, 1)));
    init_he(*this, 0.01);
  }

  Tensor forward(const Tensor& x) override { return classifier(global_avg_pool2d(features(x))); }
  void visit(Visitor& v) override {
    v.module("features", features);
    v.module("classifier", classifier);
  }

  Sequential features, classifier;
};

}  // namespace

ModelPointer mobilenet(const ModelOptions& o) { return std::make_unique<MobileNet>(o); }

}  // namespace trireme::models
