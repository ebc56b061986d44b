#include "core/nn/state.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "core/autograd/autograd.h"
#include "core/interchange/weights.h"
#include "core/nn/layers.h"
#include "core/optim/optimizer.h"
#include "tests/support/errors.h"
#include "tests/unit/core/nn_check.h"

namespace trireme::nn {
namespace {

using test::error_of;
using test::expect_holds;
using test::Names;
using test::names_of;

/// A small language model whose output layer shares its weight with the embedding.
struct Words : Module {
  Embedding table{5, 3};
  Linear hidden{3, 3};
  BatchNorm2d norm{2};
  Linear head{3, 5, false};
  Words() { head.weight = table.weight; }
  Tensor forward(const Tensor& index) override { return head(hidden(table(index))); }
  void visit(Visitor& v) override {
    v.module("table", table);
    v.module("hidden", hidden);
    v.module("norm", norm);
    v.module("head", head);
  }
};

struct Nest : Module {
  Words words;
  Sequential tail{Linear(5, 2), Sequential(ReLU(), Linear(2, 1))};
  void visit(Visitor& v) override {
    v.module("words", words);
    v.module("tail", tail);
  }
};

const Tensor& named(const StateDict& dict, const std::string& name) {
  for (const NamedTensor& t : dict)
    if (t.name == name) return t.tensor;
  fail(ExitCode::kInternal, "no {}", name);
}

std::vector<std::vector<float>> bits_of(Module& module) {
  std::vector<std::vector<float>> bits;
  for (const NamedTensor& t : state_dict(module)) bits.push_back(t.tensor.to_vector<float>());
  return bits;
}

TEST(StateDict, ListsEverythingUnderEachOfItsNames) {
  Nest nest;
  const StateDict dict = state_dict(nest);
  EXPECT_EQ(names_of(dict),
            (Names{"words.table.weight", "words.hidden.weight", "words.hidden.bias", "words.norm.weight",
                   "words.norm.bias", "words.norm.running_mean", "words.norm.running_var",
                   "words.head.weight", "tail.0.weight", "tail.0.bias", "tail.1.1.weight", "tail.1.1.bias"}));
  EXPECT_EQ(named(dict, "words.head.weight").raw(), nest.words.table.weight.raw());
  for (const NamedTensor& t : dict) EXPECT_FALSE(t.tensor.requires_grad()) << t.name;
  fill_(named(dict, "tail.0.bias"), 7);
  EXPECT_EQ(nest.parameters()[6].name, "tail.0.bias");
  EXPECT_EQ(nest.parameters()[6].tensor.to_vector<float>()[0], 7) << "memory is shared";
}

TEST(StateDict, MovesAModel) {
  manual_seed(1);
  Nest from, to_model;
  from.words.norm.running_mean = Tensor::full({2}, 3);
  ASSERT_NE(bits_of(from), bits_of(to_model));
  const Tensor weight = to_model.words.hidden.weight;
  const std::uint32_t version = weight.version();
  const LoadResult result = load_state_dict(to_model, state_dict(from));
  EXPECT_TRUE(result.missing.empty() && result.unexpected.empty());
  EXPECT_EQ(bits_of(from), bits_of(to_model));
  EXPECT_TRUE(to_model.words.hidden.weight.is_same(weight)) << "in place";
  EXPECT_GT(weight.version(), version);
  EXPECT_TRUE(weight.requires_grad() && weight.is_leaf());
  EXPECT_NE(weight.raw(), from.words.hidden.weight.raw());
}

TEST(StateDict, ConvertsDtypes) {
  Linear from(2, 2), into(2, 2);
  to(from, DType::kFloat64);
  load_state_dict(into, state_dict(from));
  EXPECT_EQ(into.weight.dtype(), DType::kFloat32);
  EXPECT_EQ(into.weight.to_vector<float>(), from.weight.to_vector<float>());
  load_state_dict(into, {{"weight", Tensor::full({2, 2}, 3, DType::kInt64)}, {"bias", Tensor::zeros({2})}});
  EXPECT_EQ(into.weight.to_vector<float>(), std::vector<float>(4, 3));
}

TEST(StateDict, ComplainsOfEverythingAtOnceAndChangesNothing) {
  Nest nest;
  StateDict dict = state_dict(nest);
  for (NamedTensor& t : dict) t.tensor = Tensor::full(t.tensor.shape(), 9);
  std::erase_if(dict, [](const NamedTensor& t) { return t.name == "tail.0.bias"; });
  dict[1].tensor = Tensor::zeros({3, 4});
  dict.push_back({"words.extra", Tensor::zeros({1})});
  dict.push_back({"tail.1.1.bias", Tensor::zeros({1})});
  const auto before = bits_of(nest);
  const std::string error = error_of([&] { load_state_dict(nest, dict); });
  expect_holds(error,
               {"load_state_dict", "missing: tail.0.bias", "unexpected: words.extra",
                "given twice: tail.1.1.bias", "words.hidden.weight is (3, 4)", "(3, 3) in the module"});
  EXPECT_EQ(error.find('\n'), std::string::npos);
  EXPECT_EQ(bits_of(nest), before);
  dict.pop_back();
  expect_holds(error_of([&] { load_state_dict(nest, dict, false); }), {"(3, 4)"});
  dict[1].tensor = Tensor::full({3, 3}, 9);
  const LoadResult result = load_state_dict(nest, dict, false);
  EXPECT_EQ(result.missing, (Names{"tail.0.bias"}));
  EXPECT_EQ(result.unexpected, (Names{"words.extra"}));
  EXPECT_EQ(nest.words.hidden.weight.to_vector<float>(), std::vector<float>(9, 9));
  try {
    load_state_dict(nest, {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kCheckpoint);
  }
}

TEST(TiedWeights, GetTheSumOfBothUses) {
  manual_seed(2);
  Words tied, apart;
  apart.head = Linear(3, 5, false);
  load_state_dict(apart, state_dict(tied));
  EXPECT_EQ(names_of(tied.parameters()),
            (Names{"table.weight", "hidden.weight", "hidden.bias", "norm.weight", "norm.bias"}));
  EXPECT_EQ(apart.parameters().size(), 6u);
  EXPECT_EQ(num_parameters(tied), 15 + 9 + 3 + 4);
  EXPECT_EQ(num_parameters(apart), num_parameters(tied) + 15);
  const Tensor index = Tensor::from(std::vector<std::int64_t>{0, 3, 3}, {3});
  for (Words* model : {&tied, &apart}) sum(square((*model)(index))).backward();
  EXPECT_EQ(tied.table.weight.grad().to_vector<float>(),
            add(apart.table.weight.grad(), apart.head.weight.grad()).to_vector<float>());
  EXPECT_NE(amax(abs(apart.table.weight.grad())).item(), 0);
  to(tied, DType::kFloat64);
  EXPECT_TRUE(tied.head.weight.is_same(tied.table.weight)) << "still tied";
  EXPECT_EQ(tied.norm.running_var.dtype(), DType::kFloat64);
  EXPECT_FALSE(tied.norm.running_var.requires_grad());
  EXPECT_TRUE(tied.head.weight.requires_grad());
  expect_holds(error_of([&] { to(tied, DType::kInt64); }), {"int64", "floating point"});
}

TEST(Freezing, LeavesFrozenParametersAlone) {
  manual_seed(3);
  Sequential net(Linear(2, 3), Linear(3, 1));
  requires_grad_(*net[0], false);
  optim::SGD sgd(net.parameters(), {.lr = 0.1, .momentum = 0.9, .weight_decay = 0.1});
  const auto frozen = bits_of(*net[0]), trained = bits_of(*net[1]);
  sum(net(Tensor::ones({2, 2}))).backward();
  EXPECT_FALSE(net.parameters()[0].tensor.grad().defined());
  sgd.step();
  EXPECT_EQ(bits_of(*net[0]), frozen);
  EXPECT_NE(bits_of(*net[1]), trained);
  zero_grad(net);
  for (const NamedTensor& p : net.parameters()) EXPECT_FALSE(p.tensor.grad().defined());
  requires_grad_(net);
  sum(net(Tensor::ones({2, 2}))).backward();
  for (const NamedTensor& p : net.parameters()) EXPECT_TRUE(p.tensor.grad().defined()) << p.name;
}

TEST(Modules, AreVisitedWithTheirPaths) {
  Nest nest;
  Names paths;
  for_each_module(nest, [&](const std::string& path, Module& module) {
    paths.push_back(path);
    if (auto* layer = dynamic_cast<Linear*>(&module)) init::constant_(layer->weight, 2);
  });
  EXPECT_EQ(paths, (Names{"", "words", "words.table", "words.hidden", "words.norm", "words.head", "tail",
                          "tail.0", "tail.1", "tail.1.0", "tail.1.1"}));
  EXPECT_EQ(nest.words.hidden.weight.to_vector<float>(), std::vector<float>(9, 2));
  EXPECT_EQ(nest.parameters().back().tensor.shape(), (Shape{1}));
}

TEST(Swapping, WorksAtAnyTime) {
  Nest nest;
  nest.words.hidden = Linear(3, 3, false);
  nest.tail[1] = std::make_shared<Embedding>(4, 2);
  nest.words.norm.running_mean = Tensor();  // a buffer may also be removed
  EXPECT_EQ(names_of(state_dict(nest)),
            (Names{"words.table.weight", "words.hidden.weight", "words.norm.weight", "words.norm.bias",
                   "words.norm.running_var", "words.head.weight", "tail.0.weight", "tail.0.bias",
                   "tail.1.weight"}));
  const Tensor fresh = Tensor::ones({3, 3}).set_requires_grad(true);
  nest.words.hidden.weight = fresh;
  sum(nest.words(Tensor::from(std::vector<std::int64_t>{1}, {1}))).backward();
  EXPECT_TRUE(fresh.grad().defined());
}

TEST(LoadStateDict, OneNameOfASharedTensorIsEnough) {
  Words words, other;
  load_state_dict(words, other.parameters(), false);
  StateDict dict = other.parameters();
  for (NamedTensor& buffer : other.buffers()) dict.push_back(buffer);
  EXPECT_TRUE(load_state_dict(words, dict).missing.empty());
  EXPECT_EQ(words.head.weight.to_vector<float>(), other.table.weight.to_vector<float>());
  const auto path = std::filesystem::path(::testing::TempDir()) / "tied.safetensors";
  save_safetensors(path, state_dict(words));  // saves a shared tensor under each of its names
  load_weights(other, path);
  save_safetensors(path, dict);
  load_weights(other, path);
  std::filesystem::remove(path);
}

TEST(Dropout, ACopyDrawsItsOwnNumbers) {
  const Dropout one(0.5);
  Dropout two = one, three;
  three = one;
  const Tensor x = Tensor::ones({64, 16});
  const auto kept = [&](Dropout& d) { return d(x).to_vector<float>(); };
  EXPECT_NE(kept(two), kept(three));
  Sequential both{one, one};
  EXPECT_NEAR(sum(both(x)).item() / 4, 256, 60);
}

}  // namespace
}  // namespace trireme::nn
