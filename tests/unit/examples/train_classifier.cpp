// Tests the classifier's models: published numbers of parameters, torchvision's names, and images of any
// size.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/autograd/autograd.h"
#include "examples/train_classifier/models/models.h"

namespace trireme {
namespace {

std::int64_t parameters_of(nn::Module& model) {
  std::int64_t count = 0;
  for (const NamedTensor& p : model.parameters()) count += p.tensor.numel();
  return count;
}

std::vector<std::string> all_models() {
  std::vector<std::string> names{""};
  for (const char c : model_names())
    if (c == '|')
      names.emplace_back();
    else
      names.back() += c;
  return names;
}

struct Published {
  std::string model;
  std::int64_t parameters;  ///< number of parameters for 1000 classes and images of 3x224x224
  std::vector<std::string> some_names;
};

TEST(Models, HaveTorchvisionsSizesAndNames) {
  const std::vector<Published> all{
      {"alexnet",
       61'100'840,
       {"features.0.weight", "features.10.bias", "classifier.1.weight", "classifier.6.bias"}},
      {"vgg19",
       143'667'240,
       {"features.0.weight", "features.34.bias", "classifier.0.weight", "classifier.6.bias"}},
      {"resnet18",
       11'689'512,
       {"conv1.weight", "bn1.bias", "layer2.0.downsample.1.weight", "layer4.1.conv2.weight", "fc.bias"}},
      {"resnet50",
       25'557'032,
       {"layer1.0.downsample.0.weight", "layer3.5.conv3.weight", "layer4.2.bn3.bias", "fc.weight"}},
      {"mobilenet",
       3'504'872,
       {"features.0.0.weight", "features.1.conv.0.0.weight", "features.1.conv.1.weight",
        "features.1.conv.2.bias", "features.2.conv.0.1.weight", "features.17.conv.2.weight",
        "features.18.1.bias", "classifier.1.weight"}},
      {"vit",
       86'567'656,
       {"class_token", "conv_proj.bias", "encoder.pos_embedding", "encoder.ln.bias", "heads.head.weight",
        "encoder.layers.encoder_layer_0.ln_1.weight", "encoder.layers.encoder_layer_3.mlp.3.weight",
        "encoder.layers.encoder_layer_5.self_attention.out_proj.bias",
        "encoder.layers.encoder_layer_11.self_attention.in_proj_weight"}}};
  for (const auto& [name, parameters, some_names] : all) {
    const auto model = make_model(name, {{3, 224, 224}, 1000});
    EXPECT_EQ(parameters_of(*model), parameters) << name;
    std::set<std::string> names;
    for (const NamedTensor& p : model->parameters()) names.insert(p.name);
    for (const std::string& one : some_names) EXPECT_TRUE(names.contains(one)) << name << " has no " << one;
  }
}

TEST(Models, StartWithTorchvisionsSpread) {
  const auto deviation = [](const std::string& model, const std::string& name) {
    const auto made = make_model(model, {{3, 64, 64}, 100});
    for (const NamedTensor& p : made->parameters())
      if (p.name == name) return std(p.tensor).item();
    return -1.0;
  };
  EXPECT_NEAR(deviation("resnet18", "layer4.1.conv2.weight"), std::sqrt(2.0 / (512 * 9)), 1e-4);
  EXPECT_NEAR(deviation("resnet18", "fc.weight"), 1 / std::sqrt(3.0 * 512), 1e-3);
  EXPECT_NEAR(deviation("mobilenet", "features.17.conv.1.0.weight"), std::sqrt(2.0 / (960 * 9)), 1e-3);
  EXPECT_NEAR(deviation("mobilenet", "classifier.1.weight"), 0.01, 1e-3);
}

TEST(Models, TakeImagesOfAnySize) {
  const NoGrad off;
  for (const std::string& name : all_models())
    for (const SampleShape& s : {SampleShape{1, 12, 12}, SampleShape{3, 28, 44}, SampleShape{3, 64, 80}}) {
      const auto model = make_model(name, {s, 7});
      const Tensor logits = model->forward(normal({1, s.channels, s.height, s.width}, {1}));
      EXPECT_EQ(logits.shape(), (Shape{1, 7})) << fmt::format("{} {}x{}", name, s.height, s.width);
    }
}

TEST(Models, GiveEveryParameterAGradient) {
  for (const std::string& name : all_models()) {
    const auto model = make_model(name, {{1, 12, 12}, 7});
    cross_entropy(model->forward(normal({2, 1, 12, 12}, {1})), Tensor::from<std::int64_t>({1, 6}, {2}))
        .backward();
    for (const NamedTensor& p : model->parameters()) {
      ASSERT_TRUE(p.tensor.grad().defined()) << name << ": " << p.name;
      EXPECT_TRUE(all(isfinite(p.tensor.grad())).item()) << name << ": " << p.name;
    }
  }
}

/// Finds out whether a module has parameters of its own, not of its submodules.
struct OwnParameters : nn::Visitor {
  void parameter(const std::string&, Tensor&) override { has_any = true; }
  void buffer(const std::string&, Tensor&) override {}
  void module(const std::string&, nn::Module&) override {}
  bool has_any = false;
};

TEST(Models, CallEveryLayerWithItsHooks) {
  for (const std::string& name : all_models()) {
    const auto model = make_model(name, {{3, 12, 12}, 7});
    std::map<std::string, int> calls;
    nn::for_each_module(*model, [&](const std::string& path, nn::Module& module) {
      OwnParameters own;
      module.visit(own);
      if (!own.has_any) return;
      calls[path] = 0;
      module.register_forward_hook([&calls, path](const auto&, const auto&) {
        ++calls[path];
        return std::vector<Tensor>{};
      });
    });
    (*model)(normal({2, 3, 12, 12}, {1}));
    for (const auto& [path, count] : calls) EXPECT_EQ(count, 1) << name << ": " << path;
    EXPECT_FALSE(calls.empty());
  }
}

TEST(Models, UnknownNamesAreRefusedWithAListOfAll) {
  try {
    make_model("vgg", {{1, 28, 28}, 10});
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find(model_names()), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace trireme
