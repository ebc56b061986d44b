// Compares training curves with PyTorch's. The examples' networks must give the same curves from the same
// weights and batches. tests/golden/curves.py wrote curves.json, and describes its content.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "core/autograd/autograd.h"
#include "core/nn/state.h"
#include "examples/optimizer.h"
#include "examples/train_classifier/models/models.h"
#include "examples/train_gnmt/model.h"
#include "examples/train_gnmt/task.h"
#include "examples/train_gpt/model.h"
#include "kernels/table.h"
#include "tests/support/source_dir.h"

namespace trireme::test {
namespace {

using Json = nlohmann::json;
using Doubles = std::vector<double>;

constexpr std::int64_t kBatches = 4;  ///< number of batches, which steps use in turn

/// The formula of curves.py for numbers whose bits depend only on a name and a position.
class Formula {
 public:
  explicit Formula(const std::string& name) {
    for (const char c : name) state_ = (state_ ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// Returns the next number in [-1, 1), without rounding.
  double unit() { return static_cast<double>(bits() >> 11) * 0x1p-52 - 1; }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325;
};

/// Returns middle + spread * units, rounded to float32.
Tensor numbers(const std::string& name, const Shape& shape, double middle = 0, double spread = 1) {
  Formula formula(name);
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  for (float& v : values) v = static_cast<float>(middle + spread * formula.unit());
  return Tensor::from(values, shape);
}

std::vector<std::int64_t> indices(const std::string& name, std::int64_t count, std::int64_t bound) {
  Formula formula(name);
  std::vector<std::int64_t> values(static_cast<std::size_t>(count));
  for (std::int64_t& v : values)
    v = static_cast<std::int64_t>(formula.bits() % static_cast<std::uint64_t>(bound));
  return values;
}

/// Converts the model to `dtype` and sets all parameters to their initial values.
void fill(nn::Module& model, DType dtype) {
  nn::to(model, dtype);
  nn::StateDict dict;
  for (const auto& [name, tensor] : model.parameters()) {
    const Shape& shape = tensor.shape();
    const auto fan = static_cast<double>(shape.numel() / shape[0]);
    dict.push_back({name, tensor.dim() > 1 ? numbers(name, shape, 0, 1 / std::sqrt(fan))
                                           : numbers(name, shape, name.ends_with("weight"), 0.25)});
  }
  nn::load_state_dict(model, dict, false);  // leaves buffers unchanged
}

/// A model and how it is trained.
struct Subject {
  std::shared_ptr<nn::Module> model;
  std::function<Tensor(std::int64_t batch)> loss;
  JobOptions options;
  std::vector<std::unique_ptr<optim::Optimizer>> optimizers;
  optim::Schedule schedule;
};

Subject resnet18(DType dtype, std::int64_t size, std::int64_t count) {
  Subject s;
  s.model = make_model("resnet18", {{3, size, size}, 10});
  fill(*s.model, dtype);
  s.options.set_lr(1e-4);
  s.options.set_weight_decay(0.01);
  s.schedule.peak = s.options.lr();
  s.loss = [model = s.model.get(), dtype, size, count](std::int64_t batch) {
    const Tensor images = numbers(fmt::format("images{}", batch), {count, 3, size, size});
    const Tensor labels = Tensor::from(indices(fmt::format("labels{}", batch), count, 10), {count});
    return cross_entropy((*model)(to_dtype(images, dtype)), labels);
  };
  s.optimizers.push_back(make_optimizer(s.options, s.model->parameters()));
  return s;
}

JobOptions adamw(double lr, double weight_decay) {
  JobOptions o;
  o.set_optimizer("adamw");
  o.set_lr(lr);
  o.set_weight_decay(weight_decay);
  o.set_clip_norm(1);
  return o;
}

/// Returns the subject of train_gpt, with AdamW and weight decay of matrices only.
Subject gpt(DType dtype) {
  Subject s;
  const auto model = std::make_shared<Gpt>(parse_gpt("nano"));
  fill(*model, dtype);
  s.options = adamw(1e-3, 0.1);
  s.schedule = {optim::Schedule::Kind::kCosine, s.options.lr(), 5, 20};
  s.model = model;
  s.loss = [&model = *model](std::int64_t batch) {
    const Tensor tokens = Tensor::from(indices(fmt::format("tokens{}", batch), 2 * 65, 40), {2, 65});
    return cross_entropy(flatten(model(narrow(tokens, 1, 0, 64)), 0, 1), flatten(narrow(tokens, 1, 1, 64)));
  };
  ParameterList matrices, others;
  for (const NamedTensor& p : model->parameters())
    (p.tensor.dim() > 1 ? matrices : others).items.push_back(p);
  s.optimizers.push_back(make_optimizer(s.options, matrices, {.beta2 = 0.95}));
  s.optimizers.push_back(make_optimizer(adamw(1e-3, 0), others, {.beta2 = 0.95}));
  return s;
}

struct Sentence {
  Tensor source, lengths, read, answer;
};

Sentence sentences(std::int64_t batch) {
  constexpr std::int64_t kWords = 20, kLength = 8, kCount = 16;
  const auto drawn = [&](const char* name, std::int64_t count, std::int64_t bound, std::int64_t least) {
    std::vector<std::int64_t> values = indices(fmt::format("{}{}", name, batch), count, bound);
    for (std::int64_t& v : values) v += least;
    return Tensor::from(values, {kCount, count / kCount});
  };
  Sentence s{drawn("source", kCount * kLength, kWords, kFirstWord),
             flatten(drawn("lengths", kCount, kLength / 2 + 1, kLength / 2)),
             Tensor::full({kCount, kLength + 1}, kPad, DType::kInt64),
             drawn("answer", kCount * (kLength + 1), kWords, kFirstWord)};
  for (std::int64_t n = 0; n < kCount; ++n) {
    const std::int64_t length = s.lengths.data<std::int64_t>()[n];
    const auto row = [n](const Tensor& t) { return t.data<std::int64_t>() + n * t.size(1); };
    std::fill(row(s.source) + length, row(s.source) + kLength, kPad);
    row(s.read)[0] = kBegin;
    std::copy_n(row(s.answer), length, row(s.read) + 1);
    row(s.answer)[length] = kEnd;
    std::fill(row(s.answer) + length + 1, row(s.answer) + kLength + 1, kIgnore);
  }
  return s;
}

/// Returns the subject of train_gnmt, with a loss per sentence.
Subject gnmt(DType dtype) {
  Subject s;
  GnmtOptions options = parse_gnmt("gnmt:4,64");
  options.vocabulary = TaskOptions().vocabulary();
  const auto model = std::make_shared<Gnmt>(options);
  fill(*model, dtype);
  s.options = adamw(5e-3, 0);
  s.schedule = {optim::Schedule::Kind::kCosine, s.options.lr(), 0, 20};
  s.model = model;
  s.loss = [&model = *model](std::int64_t batch) {
    const Sentence b = sentences(batch);
    const Tensor logits = model(b.source, b.lengths, b.read);
    return cross_entropy(flatten(logits, 0, 1), flatten(b.answer),
                         {.ignore_index = kIgnore, .reduction = LossReduction::kSum}) /
           static_cast<double>(b.source.size(0));
  };
  s.optimizers.push_back(make_optimizer(s.options, model->parameters()));
  return s;
}

struct Outcome {
  Doubles losses;
  std::map<std::string, Doubles> gradients;  ///< gradients of step 0 before clipping
  std::map<std::string, Doubles> state;      ///< parameters and buffers after the last step
};

Outcome train(const Subject& s, std::size_t steps) {
  set_threads(1);
  Outcome out;
  const ParameterList parameters = s.model->parameters();
  for (std::int64_t step = 0; step < static_cast<std::int64_t>(steps); ++step) {
    nn::zero_grad(*s.model);
    const Tensor loss = s.loss(step % kBatches);
    loss.backward();
    out.losses.push_back(loss.item());
    if (step == 0)
      for (const auto& [name, tensor] : parameters.items)
        out.gradients[name] = tensor.grad().to_vector<double>();
    if (s.options.clip_norm() > 0) optim::clip_grad_norm(parameters, s.options.clip_norm());
    for (const auto& optimizer : s.optimizers) {
      optimizer->set_lr(optim::learning_rate(s.schedule, step));
      optimizer->step();
    }
  }
  for (const auto& [name, tensor] : nn::state_dict(*s.model)) out.state[name] = tensor.to_vector<double>();
  return out;
}

/// Compares our numbers with PyTorch's in float64. The tolerance is tiny in float64. In float32 it is a few
/// times the largest error of PyTorch's own float32.
class Comparison {
 public:
  Comparison(const Json& wanted, DType dtype) : wanted_(wanted), exact_(dtype == DType::kFloat64) {}

  void losses(const Doubles& ours) {
    const Doubles theirs = wanted_.at("losses");
    EXPECT_EQ(theirs.size(), ours.size());
    for (std::size_t step = 0; step < theirs.size(); ++step)
      number("losses", std::to_string(step), ours[step], theirs[step], theirs[step]);
  }

  /// Compares the norms of tensors, and their products with a probe of noise of at most 1. The norms of two
  /// tensors differ by at most the norm of the tensors' difference. Except by rare luck, so do the products.
  void tensors(const std::string& kind, const std::map<std::string, Doubles>& ours) {
    EXPECT_EQ(wanted_.at(kind).size(), ours.size());
    for (const auto& [name, values] : ours) {
      double squares = 0, product = 0;
      Formula probe("probe " + name);
      for (const double v : values) {
        squares += v * v;
        product += v * probe.unit();
      }
      const Doubles theirs = wanted_.at(kind).at(name);
      number(kind, "norm of " + name, std::sqrt(squares), theirs[0], theirs[0]);
      number(kind, "probe of " + name, product, theirs[1], theirs[0]);
    }
  }

  /// Returns a line for each number whose error is too large.
  const std::string& lines() const { return lines_; }
  std::string furthest() const { return fmt::format("{}, at {:.1e} of what is allowed", where_, furthest_); }

 private:
  void number(const std::string& kind, const std::string& name, double ours, double theirs, double size) {
    const double float32_off = wanted_.at("float32_off").at(kind);
    const double limit = size * (exact_ ? 1e-9 : 4 * float32_off + 1e-6), apart = std::fabs(ours - theirs);
    if (!(apart / limit <= furthest_)) {
      furthest_ = apart / limit;
      where_ = kind + ": " + name;
    }
    if (!(apart <= limit))
      lines_ += fmt::format("{}: {} is {} for {}, may be off by {:.1e}\n", kind, name, ours, theirs, limit);
  }

  const Json& wanted_;
  bool exact_;
  double furthest_ = -1;
  std::string where_, lines_;
};

/// Returns a line for each number in which this training differs from PyTorch's.
std::string differences(const std::string& curve, const Subject& subject, DType dtype) {
  const Json wanted = Json::parse(std::ifstream(source_dir() + "/tests/golden/curves.json")).at(curve);
  const Outcome ours = train(subject, wanted.at("losses").size());
  Comparison comparison(wanted, dtype);
  comparison.losses(ours.losses);
  comparison.tensors("gradients", ours.gradients);
  comparison.tensors("state", ours.state);
  fmt::print("{} {}: furthest off is {}\n", curve, name_of(dtype), comparison.furthest());
  return comparison.lines();
}

constexpr DType kF32 = DType::kFloat32, kF64 = DType::kFloat64;

TEST(Curves, ResNet18) { EXPECT_EQ(differences("resnet18", resnet18(kF32, 32, 4), kF32), ""); }

/// Uses few small images, because convolutions in float64 are slow.
TEST(Curves, ResNet18ForFewSmallImages) {
  EXPECT_EQ(differences("resnet18_small", resnet18(kF64, 8, 6), kF64), "");
}

TEST(Curves, Gpt) {
  EXPECT_EQ(differences("gpt", gpt(kF32), kF32), "");
  EXPECT_EQ(differences("gpt", gpt(kF64), kF64), "");
}

TEST(Curves, Gnmt) {
  EXPECT_EQ(differences("gnmt", gnmt(kF32), kF32), "");
  EXPECT_EQ(differences("gnmt", gnmt(kF64), kF64), "");
}

/// Calls fn(layer) for all layers of one kind.
template <class Layer, class Fn>
void each(Subject& s, const Fn& fn) {
  nn::for_each_module(*s.model, [&](const std::string&, nn::Module& m) {
    if (auto* const layer = dynamic_cast<Layer*>(&m)) fn(*layer);
  });
}

/// Gives the subject one optimizer for all parameters, with these options.
void optimize_with(Subject& s, const JobOptions& options, AdamWOptions adamw_options = {}) {
  s.optimizers.clear();
  s.optimizers.push_back(make_optimizer(options, s.model->parameters(), adamw_options));
}

using Fault = std::function<void(Subject&)>;

void expect_noticed(const std::string& curve, Subject (*make)(DType),
                    const std::map<std::string, Fault>& faults) {
  for (const auto& [name, plant] : faults) {
    Subject subject = make(kF32);
    plant(subject);
    EXPECT_NE(differences(curve, subject, kF32), "") << name;
  }
}

TEST(Curves, NoticeFaultsInResNet18) {
  expect_noticed("resnet18_small", [](DType dtype) { return resnet18(dtype, 8, 6); },
                 {{"no weight decay",
                   [](Subject& s) {
                     s.options.set_weight_decay(0);
                     optimize_with(s, s.options);
                   }},
                  {"a larger epsilon",
                   [](Subject& s) { each<nn::BatchNorm2d>(s, [](auto& norm) { norm.options.eps = 1e-4; }); }},
                  {"running statistics forget faster", [](Subject& s) {
                     each<nn::BatchNorm2d>(s, [](auto& norm) { norm.options.momentum = 0.11; });
                   }}});
}

TEST(Curves, NoticeFaultsInGpt) {
  expect_noticed(
      "gpt", gpt,
      {{"all parameters decay", [](Subject& s) { optimize_with(s, s.options, {.beta2 = 0.95}); }},
       {"nothing decays", [](Subject& s) { optimize_with(s, adamw(1e-3, 0), {.beta2 = 0.95}); }},
       {"no clipping", [](Subject& s) { s.options.set_clip_norm(0); }},
       {"a shorter warmup", [](Subject& s) { s.schedule.warmup = 4; }},
       {"a larger epsilon",
        [](Subject& s) { each<nn::LayerNorm>(s, [](auto& norm) { norm.options.eps = 2e-5; }); }},
       {"half the heads", [](Subject& s) { each<CausalSelfAttention>(s, [](auto& a) { a.heads /= 2; }); }}});
}

TEST(Curves, NoticeFaultsInGnmt) {
  expect_noticed("gnmt", gnmt,
                 {{"no clipping", [](Subject& s) { s.options.set_clip_norm(0); }},
                  {"no schedule", [](Subject& s) { s.schedule.kind = optim::Schedule::Kind::kConstant; }},
                  {"another epsilon", [](Subject& s) { optimize_with(s, s.options, {.eps = 1e-7}); }}});
}

}  // namespace
}  // namespace trireme::test
