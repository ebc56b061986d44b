// The calls behind golden cases of layers and optimizers.
#pragma once

#include "core/nn/layers.h"
#include "core/optim/optimizer.h"
#include "tests/golden/arguments.h"

namespace trireme::test {

inline void members(Members m, nn::BatchNorm2dOptions& o) {
  m("eps", o.eps)("momentum", o.momentum)("relu", o.relu).end();
}
inline void members(Members m, nn::RecurrentOptions& o) {
  m("num_layers", o.num_layers)("bias", o.bias)("batch_first", o.batch_first);
  m("bidirectional", o.bidirectional).end();
}
inline void members(Members m, SgdOptions& o) {
  m("lr", o.lr)("momentum", o.momentum)("weight_decay", o.weight_decay)("nesterov", o.nesterov).end();
}
inline void members(Members m, AdamWOptions& o) {
  m("lr", o.lr)("beta1", o.beta1)("beta2", o.beta2)("eps", o.eps)("weight_decay", o.weight_decay).end();
}
inline void members(Members m, optim::Schedule& o) {
  std::string kind;
  m("kind", kind)("peak", o.peak)("warmup", o.warmup)("total", o.total).end();
  o.kind = named<optim::Schedule::Kind>(kind, {{"constant", optim::Schedule::Kind::kConstant},
                                               {"cosine", optim::Schedule::Kind::kCosine},
                                               {"one_cycle", optim::Schedule::Kind::kOneCycle},
                                               {"step", optim::Schedule::Kind::kStep}});
}

/// Gives every parameter and buffer the input that a case names for it; buffers are copied, as layers change
/// them.
class FromInputs : public nn::Visitor {
 public:
  FromInputs(const Json& names, const Tensors& inputs, const std::string& path = "")
      : names_(names), inputs_(inputs), path_(path) {}
  void parameter(const std::string& name, Tensor& tensor) override {
    if (tensor.defined()) tensor = decode<Tensor>(names_.at(path_ + name), inputs_);
  }
  void buffer(const std::string& name, Tensor& tensor) override {
    tensor = decode<Tensor>(names_.at(path_ + name), inputs_).clone();
  }
  void module(const std::string& name, nn::Module& module) override {
    FromInputs below(names_, inputs_, path_ + name + ".");
    module.visit(below);
  }

 private:
  const Json& names_;
  const Tensors& inputs_;
  std::string path_;
};

/// A layer made from the arguments after {parameter: input}, training and x; gives its result and its
/// buffers.
template <class Layer, class... T>
Call layer_of() {
  return [](const Json& arguments, const Tensors& inputs) {
    const Json rest(arguments.begin() + 3, arguments.end());
    const auto run = [&](const auto&... how) requires std::is_constructible_v<Layer, decltype(how)...> {
      Layer layer(how...);
      FromInputs visitor(arguments.at(0), inputs);
      layer.visit(visitor);
      layer.train(arguments.at(1).get<bool>());
      Tensors out{layer.forward(decode<Tensor>(arguments.at(2), inputs))};
      for (const NamedTensor& buffer : layer.buffers()) out.push_back(buffer.tensor.clone());
      return out;
    };
    if constexpr (sizeof...(T) == 0)
      return run();
    else
      return call_of<T...>(run)(rest, inputs);
  };
}

/// What the parameters (first argument) are after each of the steps whose gradients the second one holds.
template <class Optimizer, class Options>
Tensors golden_steps(const Json& arguments, const Tensors& inputs) {
  ParameterList list;
  for (const Tensor& start : decode<Tensors>(arguments.at(0), inputs))
    list.items.push_back({std::to_string(list.items.size()), start.detach().clone().set_requires_grad(true)});
  const Tensors gradients = decode<Tensors>(arguments.at(1), inputs);
  std::vector<Tensors> after(list.items.size());
  Optimizer optimizer(list, decode<Options>(arguments.at(2), inputs));
  for (std::int64_t step = 0; step < gradients.at(0).size(0); ++step) {
    for (std::size_t i = 0; i < after.size(); ++i)
      list.items[i].tensor.set_grad(select(gradients.at(i), 0, step).clone());
    optimizer.step();
    for (std::size_t i = 0; i < after.size(); ++i) after[i].push_back(list.items[i].tensor.detach().clone());
  }
  Tensors out;
  for (const Tensors& one : after) out.push_back(stack(one));
  return out;
}

/// Gradients (first argument), clipped to the norm (second): the norm before, and what they have become.
inline Tensors golden_clip(const Json& arguments, const Tensors& inputs) {
  ParameterList list;
  Tensors out;
  for (const Tensor& gradient : decode<Tensors>(arguments.at(0), inputs)) {
    list.items.push_back({std::to_string(list.items.size()),
                          Tensor::full(gradient.shape(), 0, gradient.dtype()).set_requires_grad(true)});
    list.items.back().tensor.set_grad(gradient.detach().clone());
  }
  out.push_back(Tensor::scalar(optim::clip_grad_norm(list, arguments.at(1).get<double>()), DType::kFloat64));
  for (const NamedTensor& one : list.items) out.push_back(one.tensor.grad());
  return out;
}

inline Tensors golden_learning_rate(const Json& arguments, const Tensors& inputs) {
  const auto schedule = decode<optim::Schedule>(arguments.at(0), inputs);
  std::vector<double> rates;
  for (std::int64_t step = 0; step < schedule.total; ++step)
    rates.push_back(optim::learning_rate(schedule, step));
  return {Tensor::from(rates, {schedule.total})};
}

inline const std::map<std::string, Call> kLayers = {
    {"nn.Linear", layer_of<nn::Linear, std::int64_t, std::int64_t, bool>()},
    {"nn.Conv2d", layer_of<nn::Conv2d, std::int64_t, std::int64_t, std::int64_t, Conv2dOptions, bool>()},
    {"nn.BatchNorm2d", layer_of<nn::BatchNorm2d, std::int64_t, nn::BatchNorm2dOptions>()},
    {"nn.Conv1d", layer_of<nn::Conv1d, std::int64_t, std::int64_t, std::int64_t, Conv2dOptions, bool>()},
    {"nn.ConvTranspose2d",
     layer_of<nn::ConvTranspose2d, std::int64_t, std::int64_t, std::int64_t, ConvTransposeOptions, bool>()},
    {"nn.Embedding", layer_of<nn::Embedding, std::int64_t, std::int64_t>()},
    {"nn.LayerNorm", layer_of<nn::LayerNorm, Shape>()},
    {"nn.RMSNorm", layer_of<nn::RMSNorm, Shape>()},
    {"nn.GroupNorm", layer_of<nn::GroupNorm, std::int64_t, std::int64_t>()},
    {"nn.MultiheadAttention", layer_of<nn::MultiheadAttention, std::int64_t, std::int64_t>()},
    {"nn.RNN", layer_of<nn::RNN, std::int64_t, std::int64_t, nn::RecurrentOptions>()},
    {"nn.LSTM", layer_of<nn::LSTM, std::int64_t, std::int64_t, nn::RecurrentOptions>()},
    {"nn.GRU", layer_of<nn::GRU, std::int64_t, std::int64_t, nn::RecurrentOptions>()},
    {"nn.GELU", layer_of<nn::GELU, Gelu>()},
    {"nn.Softmax", layer_of<nn::Softmax, int>()},
    {"nn.ReLU", layer_of<nn::ReLU>()},
    {"nn.Dropout", layer_of<nn::Dropout, double>()},
    {"nn.Flatten", layer_of<nn::Flatten>()},
    {"nn.MaxPool2d", layer_of<nn::MaxPool2d, PoolOptions>()},
    {"nn.AvgPool2d", layer_of<nn::AvgPool2d, PoolOptions>()},
    {"nn.GlobalAvgPool2d", layer_of<nn::GlobalAvgPool2d>()},
    {"nn.BasicBlock", layer_of<nn::BasicBlock, std::int64_t, std::int64_t, std::int64_t>()},
    {"optim.SGD", golden_steps<optim::SGD, SgdOptions>},
    {"optim.AdamW", golden_steps<optim::AdamW, AdamWOptions>},
    {"optim.clip_grad_norm", golden_clip},
    {"optim.learning_rate", golden_learning_rate},
};

}  // namespace trireme::test
