// K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015.
#include <algorithm>

#include "examples/train_classifier/models/models.h"

namespace trireme::models {

namespace {

using namespace nn;

struct Vgg : Module {
  /// Builds the network. `stages` holds the number of convolutions before each pooling.
  Vgg(const ModelOptions& o, std::initializer_list<int> stages) : pooled(is_small(o) ? 1 : 7) {
    std::int64_t in = o.input.channels, width = 64;
    std::int64_t side = std::min(o.input.height, o.input.width);
    for (const int convolutions : stages) {
      for (int i = 0; i < convolutions; ++i, in = width) {
        features.push_back(std::make_shared<Conv2d>(in, width, 3, Conv2dOptions{.padding = 1}));
        features.push_back(std::make_shared<ReLU>());
      }
      // Pool only while a side has two pixels: small images reach one pixel before the last pooling.
      if (side >= 2) features.push_back(std::make_shared<MaxPool2d>(PoolOptions{.kernel = 2}));
      side /= 2;
      width = std::min<std::int64_t>(2 * width, 512);
    }
    classifier = is_small(o)
                     ? Sequential(Dropout(o.dropout), Linear(512, o.classes))
                     : Sequential(Linear(512 * 7 * 7, 4096), ReLU(), Dropout(o.dropout), Linear(4096, 4096),
                                  ReLU(), Dropout(o.dropout), Linear(4096, o.classes));
    init_he(*this, 0.01);
  }

  Tensor forward(const Tensor& x) override {
    return classifier(flatten(adaptive_avg_pool2d(features(x), pooled, pooled), 1));
  }
  void visit(Visitor& v) override {
    v.module("features", features);
    v.module("classifier", classifier);
  }

  Sequential features, classifier;
  std::int64_t pooled;  ///< height and width of the pooled features
};

}  // namespace

ModelPointer vgg19(const ModelOptions& o) {
  return std::make_unique<Vgg>(o, std::initializer_list<int>{2, 2, 4, 4, 4});
}

}  // namespace trireme::models
