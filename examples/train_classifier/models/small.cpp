// Networks for small images and quick runs.
#include "examples/train_classifier/models/models.h"

namespace trireme::models {

using namespace nn;

/// Returns a perceptron: (N,C,H,W) -> 512 -> 256 -> classes.
ModelPointer mlp(const ModelOptions& o) {
  return std::make_unique<Sequential>(Flatten(), Linear(o.input.elements(), 512), ReLU(), Dropout(o.dropout),
                                      Linear(512, 256), ReLU(), Dropout(o.dropout), Linear(256, o.classes));
}

/// Returns the network of Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998,
/// with ReLU and max-pooling.
ModelPointer lenet(const ModelOptions& o) {
  if (o.input.height < 12 || o.input.width < 12)
    fail(ExitCode::kUsage,
         "--model lenet: it needs images of at least 12x12, this data has {}x{}; use --model mlp or resnet8",
         o.input.height, o.input.width);
  const std::int64_t h = (o.input.height / 2 - 4) / 2, w = (o.input.width / 2 - 4) / 2;
  return std::make_unique<Sequential>(Conv2d(o.input.channels, 6, 5, {.padding = 2}), ReLU(),
                                      MaxPool2d({.kernel = 2}), Conv2d(6, 16, 5), ReLU(),
                                      MaxPool2d({.kernel = 2}), Flatten(), Linear(16 * h * w, 120), ReLU(),
                                      Dropout(o.dropout), Linear(120, 84), ReLU(), Linear(84, o.classes));
}

/// Returns the smallest residual network for CIFAR in K. He et al., "Deep residual learning for image
/// recognition", 2016, section 4.2.
ModelPointer resnet8(const ModelOptions& o) {
  return std::make_unique<Sequential>(Conv2d(o.input.channels, 16, 3, {.padding = 1}, false),
                                      BatchNorm2d(16, {.relu = true}), BasicBlock(16, 16),
                                      BasicBlock(16, 32, 2), BasicBlock(32, 64, 2), GlobalAvgPool2d(),
                                      Dropout(o.dropout), Linear(64, o.classes));
}

}  // namespace trireme::models
