// The networks of train_classifier, with one source file per family.
//
// Parameters have torchvision's names and are initialized like torchvision's. A network that does not take
// images of any size throws Error(kUsage), which says what it needs. Networks for images with a side below 64
// pixels have the changes that are customary for CIFAR: a first convolution with stride 1, no pooling after
// it in ResNets, and one linear layer as classifier.
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

/// Returns a new model. Throws Error(kUsage) if the name is unknown (the message lists all names), or if the
/// model does not take images of this size.
std::unique_ptr<nn::Module> make_model(const std::string& name, const ModelOptions& options);
/// Returns the names of all models: "mlp|lenet|...".
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
ModelPointer vit(const ModelOptions& options);  ///< ViT-B/16; ViT-Ti/4 for small images

/// Returns true if a side of the images is below 64 pixels.
bool is_small(const ModelOptions& options);

/// Initializes convolutions with normal numbers of variance 2 / (outputs * kernel): K. He et al., "Delving
/// deep into rectifiers", 2015. If `linear_std` > 0, linear layers get normal numbers of that standard
/// deviation, and all biases become 0.
void init_he(nn::Module& model, double linear_std = 0);

}  // namespace models
}  // namespace trireme
