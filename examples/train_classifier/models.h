// The networks that train_classifier knows.
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

/// "mlp", "lenet", "resnet8" (three residual blocks of 16, 32 and 64 channels), "resnet18" (for small images:
/// 3x3 stem, no first pooling). Throws Error(kUsage) for other names, listing these.
std::unique_ptr<nn::Module> make_model(const std::string& name, const ModelOptions& options);

}  // namespace trireme
