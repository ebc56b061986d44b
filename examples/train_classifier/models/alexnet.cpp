// A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
#include "examples/train_classifier/models/models.h"

namespace trireme::models {

namespace {

using namespace nn;

struct AlexNet : Module {
  explicit AlexNet(const ModelOptions& o)
      : features(stem(o), ReLU(), pool(o), Conv2d(64, 192, 5, {.padding = 2}), ReLU(), pool(o),
                 Conv2d(192, 384, 3, {.padding = 1}), ReLU(), Conv2d(384, 256, 3, {.padding = 1}), ReLU(),
                 Conv2d(256, 256, 3, {.padding = 1}), ReLU()),
        classifier(is_small(o)
                       ? Sequential(Dropout(o.dropout), Linear(256, o.classes))
                       : Sequential(Dropout(o.dropout), Linear(256 * 6 * 6, 4096), ReLU(), Dropout(o.dropout),
                                    Linear(4096, 4096), ReLU(), Linear(4096, o.classes))),
        pooled(is_small(o) ? 1 : 6) {
    if (!is_small(o)) features.push_back(std::make_shared<MaxPool2d>(PoolOptions{.kernel = 3, .stride = 2}));
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

 private:
  static Conv2d stem(const ModelOptions& o) {
    if (is_small(o)) return Conv2d(o.input.channels, 64, 3, {.padding = 1});
    return Conv2d(o.input.channels, 64, 11, {.stride = 4, .padding = 2});
  }
  static MaxPool2d pool(const ModelOptions& o) {
    if (is_small(o)) return MaxPool2d({.kernel = 3, .stride = 2, .padding = 1});
    return MaxPool2d({.kernel = 3, .stride = 2});
  }
};

}  // namespace

ModelPointer alexnet(const ModelOptions& o) { return std::make_unique<AlexNet>(o); }

}  // namespace trireme::models
