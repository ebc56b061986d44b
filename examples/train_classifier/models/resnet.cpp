// K. He et al., "Deep residual learning for image recognition", 2016.
#include "examples/train_classifier/models/models.h"

namespace trireme::models {

namespace {

using namespace nn;

/// A residual block of 1x1, 3x3 and 1x1 convolutions. The first two have `out` / 4 channels.
struct Bottleneck : Module {
  Bottleneck(std::int64_t in, std::int64_t out, std::int64_t stride)
      : conv1(in, out / 4, 1, {}, false),
        conv2(out / 4, out / 4, 3, {.stride = stride, .padding = 1}, false),
        conv3(out / 4, out, 1, {}, false),
        bn1(out / 4, {.relu = true}),
        bn2(out / 4, {.relu = true}),
        bn3(out, {.relu = true}) {
    if (stride != 1 || in != out)
      downsample = Sequential(Conv2d(in, out, 1, {.stride = stride}, false), BatchNorm2d(out));
  }

  Tensor forward(const Tensor& x) override {
    const Tensor shortcut = downsample.size() ? downsample(x) : x;
    return bn3(conv3(bn2(conv2(bn1(conv1(x))))), shortcut);
  }
  void visit(Visitor& v) override {
    v.module("conv1", conv1);
    v.module("bn1", bn1);
    v.module("conv2", conv2);
    v.module("bn2", bn2);
    v.module("conv3", conv3);
    v.module("bn3", bn3);
    v.module("downsample", downsample);
  }

  Conv2d conv1, conv2, conv3;
  BatchNorm2d bn1, bn2, bn3;
  Sequential downsample;  ///< 1x1 convolution and norm if the block changes the shape, otherwise empty
};

/// A residual network. `blocks` holds the number of blocks of each stage. Each stage after the first halves
/// the height and width.
template <class Block>
struct ResNet : Module {
  ResNet(const ModelOptions& o, std::initializer_list<int> blocks, std::int64_t expansion)
      : small(is_small(o)),
        conv1(o.input.channels, 64, small ? 3 : 7,
              Conv2dOptions{.stride = small ? 1 : 2, .padding = small ? 1 : 3}, false),
        bn1(64, {.relu = true}),
        dropout(o.dropout),
        fc(512 * expansion, o.classes) {
    std::int64_t in = 64, width = 64;
    for (const int count : blocks) {
      Sequential& stage = stages.emplace_back();
      for (int i = 0; i < count; ++i, in = width * expansion)
        stage.push_back(std::make_shared<Block>(in, width * expansion, i == 0 && stages.size() > 1 ? 2 : 1));
      width *= 2;
    }
    init_he(*this);
  }

  Tensor forward(const Tensor& x) override {
    Tensor y = bn1(conv1(x));
    if (!small) y = max_pool2d(y, {.kernel = 3, .stride = 2, .padding = 1});
    for (Sequential& stage : stages) y = stage(y);
    return fc(dropout(global_avg_pool2d(y)));
  }
  void visit(Visitor& v) override {
    v.module("conv1", conv1);
    v.module("bn1", bn1);
    for (std::size_t i = 0; i < stages.size(); ++i) v.module("layer" + std::to_string(i + 1), stages[i]);
    v.module("dropout", dropout);
    v.module("fc", fc);
  }

  bool small;
  Conv2d conv1;
  BatchNorm2d bn1;
  std::vector<Sequential> stages;
  Dropout dropout;
  Linear fc;
};

}  // namespace

ModelPointer resnet18(const ModelOptions& o) {
  return std::make_unique<ResNet<BasicBlock>>(o, std::initializer_list<int>{2, 2, 2, 2}, 1);
}
ModelPointer resnet50(const ModelOptions& o) {
  return std::make_unique<ResNet<Bottleneck>>(o, std::initializer_list<int>{3, 4, 6, 3}, 4);
}

}  // namespace trireme::models
