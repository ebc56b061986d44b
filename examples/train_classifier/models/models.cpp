#include "examples/train_classifier/models/models.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace trireme {

namespace {

using Maker = models::ModelPointer (*)(const ModelOptions&);

const std::vector<std::pair<std::string, Maker>>& makers() {
  static const std::vector<std::pair<std::string, Maker>> all{
      {"mlp", models::mlp},           {"lenet", models::lenet},         {"resnet8", models::resnet8},
      {"resnet18", models::resnet18}, {"resnet50", models::resnet50},   {"alexnet", models::alexnet},
      {"vgg19", models::vgg19},       {"mobilenet", models::mobilenet}, {"vit", models::vit}};
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
  using namespace nn::init;
  for (const auto& [name, tensor] : model.parameters())
    if (tensor.dim() == 4)
      kaiming_normal_(tensor, {.fan = Fan::kOut, .nonlinearity = Nonlinearity::kRelu});
    else if (linear_std > 0 && tensor.dim() == 2)
      normal_(tensor, 0, linear_std);
    else if (linear_std > 0 && name.ends_with("bias"))
      zeros_(tensor);
}

}  // namespace models
}  // namespace trireme
