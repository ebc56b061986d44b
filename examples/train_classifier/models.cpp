#include "examples/train_classifier/models.h"

namespace trireme {

namespace {

using namespace nn;

/// (N,C,H,W) -> 512 -> 256 -> classes.
Sequential mlp(const ModelOptions& o) {
  return Sequential(Flatten(), Linear(o.input.elements(), 512), ReLU(), Dropout(o.dropout), Linear(512, 256),
                    ReLU(), Dropout(o.dropout), Linear(256, o.classes));
}

/// Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998, with ReLU and
/// max-pooling.
Sequential lenet(const ModelOptions& o) {
  if (o.input.height < 12 || o.input.width < 12)
    fail(ExitCode::kUsage,
         "--model lenet: it needs images of at least 12x12, this data has {}x{}; use --model mlp or resnet8",
         o.input.height, o.input.width);
  const std::int64_t h = (o.input.height / 2 - 4) / 2, w = (o.input.width / 2 - 4) / 2;
  return Sequential(Conv2d(o.input.channels, 6, 5, {.padding = 2}), ReLU(), MaxPool2d({.kernel = 2}),
                    Conv2d(6, 16, 5), ReLU(), MaxPool2d({.kernel = 2}), Flatten(), Linear(16 * h * w, 120),
                    ReLU(), Dropout(o.dropout), Linear(120, 84), ReLU(), Linear(84, o.classes));
}

/// A residual network for small images: K. He et al., 2016, section 4.2. Each stage after the first halves
/// the size.
Sequential residual(const ModelOptions& o, std::initializer_list<std::int64_t> widths, int blocks) {
  Sequential net(Conv2d(o.input.channels, *widths.begin(), 3, {.padding = 1}, false),
                 BatchNorm2d(*widths.begin(), {.relu = true}));
  std::int64_t in = *widths.begin();
  for (const std::int64_t width : widths)
    for (int block = 0; block < blocks; ++block) {
      const bool shrinks = block == 0 && width != *widths.begin();
      net.push_back(std::make_shared<BasicBlock>(in, width, shrinks ? 2 : 1));
      in = width;
    }
  net.push_back(std::make_shared<GlobalAvgPool2d>());
  net.push_back(std::make_shared<Dropout>(o.dropout));
  net.push_back(std::make_shared<Linear>(in, o.classes));
  return net;
}

}  // namespace

std::unique_ptr<Module> make_model(const std::string& name, const ModelOptions& o) {
  if (name == "mlp") return std::make_unique<Sequential>(mlp(o));
  if (name == "lenet") return std::make_unique<Sequential>(lenet(o));
  if (name == "resnet8") return std::make_unique<Sequential>(residual(o, {16, 32, 64}, 1));
  if (name == "resnet18") return std::make_unique<Sequential>(residual(o, {64, 128, 256, 512}, 2));
  fail(ExitCode::kUsage, "--model {}: there is no such model; there are mlp, lenet, resnet8 and resnet18",
       name);
}

}  // namespace trireme
