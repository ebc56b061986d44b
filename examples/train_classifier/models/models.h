// The networks that train_classifier knows: one file per family.
//
// Parameters have the names that torchvision gives them, and its initial values. All take images of any
// size, or say which they need. Images with a side below 64 pixels get what is customary for CIFAR: a first
// convolution without stride, no pooling behind it, and one linear layer as classifier.
#pragma once

#include <memory>
#include <string>

#include "core/data/dataset.h"
#include "core/nn/layers.h"

namespace trireme {

struct ModelOptions {
  SampleShape input;
  std::int64_t classes = 10;
  double dropout = 0;
};

/// Throws Error(kUsage) for unknown names, listing all, and where the model cannot take such images.
std::unique_ptr<nn::Module> make_model(const std::string& name, const ModelOptions& options);
/// What make_model knows: "mlp|lenet|...".
std::string model_names();

namespace models {

using ModelPointer = std::unique_ptr<nn::Module>;

// small.cpp
ModelPointer mlp(const ModelOptions& options);
ModelPointer lenet(const ModelOptions& options);
ModelPointer resnet8(const ModelOptions& options);  ///< three residual blocks of 16, 32 and 64 channels
// alexnet.cpp
ModelPointer alexnet(const ModelOptions& options);
// vgg.cpp
ModelPointer vgg19(const ModelOptions& options);
// resnet.cpp
ModelPointer resnet18(const ModelOptions& options);
ModelPointer resnet50(const ModelOptions& options);
// mobilenet.cpp
ModelPointer mobilenet(const ModelOptions& options);  ///< version 2
// vit.cpp
ModelPointer vit(const ModelOptions& options);  ///< B/16, for small images Ti/4

bool is_small(const ModelOptions& options);

/// Gives convolutions normal numbers of variance 2 / (outputs * kernel): K. He et al., "Delving deep into
/// rectifiers", 2015. With `linear_std`, linear layers get normal numbers of that deviation, and biases 0.
void init_he(nn::Module& model, double linear_std = 0);

}  // namespace models
}  // namespace trireme
