#include "examples/train_classifier/models/models.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace trireme {

namespace {

using Maker = models::ModelPointer (*)(const ModelOptions&);

const std::vector<std::pair<std::string, Maker>>& makers() {
  static const std::vector<std::pair<std::string, Maker>> all{
      {"mlp", models::mlp},           {"lenet", models::lenet},        {"resnet8", models::resnet8},
      {"resnet18", models::resnet18}, {"resnet50", models::resnet50},  {"alexnet", models::alexnet},
      {"vgg19", models::vgg19},       {"mobilenet", models::mobilenet}};
  return all;
}

}  // namespace

std::string model_names() {
  std::string names;
  for (const auto& [name, maker] : makers()) names += (names.empty() ? "" : "|") + name;
  return names;
}

std::unique_ptr<nn::Module> make_model(const std::string& name, const ModelOptions& options) {
  for (const auto& [known, maker] : makers())
    if (known == name) return maker(options);
  fail(ExitCode::kUsage, "--model {}: there is no such model; use {}", name, model_names());
}

namespace models {

bool is_small(const ModelOptions& o) { return std::min(o.input.height, o.input.width) < 64; }

void init_he(nn::Module& model, double linear_std) {
  for (const auto& [name, tensor] : model.parameters()) {
    const auto normal_numbers = [&](double std) {
      copy_into(tensor, normal(tensor.shape(), nn::next_initial_key(), 0, std));
    };
    if (tensor.dim() == 4)
      normal_numbers(std::sqrt(2.0 / static_cast<double>(tensor.size(0) * tensor.size(2) * tensor.size(3))));
    else if (linear_std > 0 && tensor.dim() == 2)
      normal_numbers(linear_std);
    else if (linear_std > 0 && name.ends_with("bias"))
      copy_into(tensor, Tensor::zeros(tensor.shape()));
  }
}

}  // namespace models
}  // namespace trireme
