// The functions that golden cases of layers and optimizers call.
#pragma once

#include "core/nn/layers.h"
#include "core/optim/grad_scaler.h"
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
inline void members(Members m, nn::MultiheadAttentionOptions& o) {
  m("bias", o.bias)("batch_first", o.batch_first).end();
}
inline void members(Members m, nn::AttentionMask& o) {
  m("mask", o.mask)("key_padding_mask", o.key_padding_mask)("is_causal", o.is_causal).end();
}
inline void members(Members m, nn::TransformerOptions& o) {
  m("dim_feedforward", o.dim_feedforward)("dropout", o.dropout)("activation", o.activation);
  m("layer_norm_eps", o.layer_norm_eps)("batch_first", o.batch_first)("norm_first", o.norm_first);
  m("bias", o.bias).end();
}
inline void members(Members m, amp::GradScalerOptions& o) {
  m("initial_scale", o.initial_scale)("growth", o.growth)("growth_interval", o.growth_interval);
  m("backoff", o.backoff)("enabled", o.enabled).end();
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

/// Sets every parameter and buffer to the input that a case names for it. Buffers are copied, because layers
/// change them.
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

/// Runs a layer and returns its results. `given` holds the arguments of the case for this call.
template <class Layer>
using Run = Tensors (*)(Layer& layer, const Json& given, const Tensors& inputs);

/// Runs forward(x). Returns the result and the buffers after the call.
template <class Layer>
Tensors run_forward(Layer& layer, const Json& given, const Tensors& inputs) {
  Tensors out{layer.forward(decode<Tensor>(given.at(0), inputs))};
  for (const NamedTensor& buffer : layer.buffers()) out.push_back(buffer.tensor.clone());
  return out;
}

/// Runs a recurrent layer on x, h, c (null unless it is an LSTM) and lengths. Returns the output and the
/// final state.
template <class Layer>
Tensors run_sequence(Layer& layer, const Json& given, const Tensors& inputs) {
  const auto t = [&](std::size_t i) { return decode<Tensor>(given.at(i), inputs); };
  if constexpr (std::is_same_v<Layer, nn::LSTM>) {
    const nn::LstmOutput out = layer(t(0), {t(1), t(2)}, t(3));
    return {out.output, out.state.h, out.state.c};
  } else {
    const nn::RecurrentOutput out = layer(t(0), t(1), t(3));
    return {out.output, out.h};
  }
}

/// Runs a recurrent cell on x and the state. Returns the new state.
template <class Layer>
Tensors run_cell(Layer& layer, const Json& given, const Tensors& inputs) {
  const auto t = [&](std::size_t i) { return decode<Tensor>(given.at(i), inputs); };
  if constexpr (std::is_same_v<Layer, nn::LSTMCell>)
    return results(layer(t(0), {t(1), t(2)}));
  else
    return results(layer(t(0), t(1)));
}

/// Runs a layer whose arguments are `tensors` tensors followed by `masks` masks.
template <class Layer, int tensors, int masks>
Tensors run_masked(Layer& layer, const Json& given, const Tensors& inputs) {
  const auto t = [&](std::size_t i) { return decode<Tensor>(given.at(i), inputs); };
  const auto m = [&](std::size_t i) { return decode<nn::AttentionMask>(given.at(tensors + i), inputs); };
  if constexpr (tensors == 1)
    return {layer(t(0), m(0))};
  else if constexpr (tensors == 3)
    return {layer(t(0), t(1), t(2), m(0))};
  else if constexpr (masks == 3)
    return {layer(t(0), t(1), {m(0), m(1), m(2)})};
  else
    return {layer(t(0), t(1), m(0), m(1))};
}

/// Runs attention on query, key, value, a mask, and whether to average the weights over heads. Returns the
/// output and the weights.
inline Tensors run_with_weights(nn::MultiheadAttention& layer, const Json& given, const Tensors& inputs) {
  const auto t = [&](std::size_t i) { return decode<Tensor>(given.at(i), inputs); };
  const nn::Attended out = layer.with_weights(
      t(0), t(1), t(2), decode<nn::AttentionMask>(given.at(3), inputs), given.at(4).get<bool>());
  return {out.output, out.weights};
}

/// Returns a Call that makes a layer and runs it. The arguments of the case are {parameter: input}, whether
/// the layer trains, the `count` arguments of `run`, and the arguments of the constructor.
template <class Layer, class... T>
Call layer_of(Run<Layer> run = run_forward<Layer>, std::ptrdiff_t count = 1) {
  return [run, count](const Json& arguments, const Tensors& inputs) {
    const auto first = arguments.begin() + 2, last = first + count;
    const auto made = [&](const auto&... how) requires std::is_constructible_v<Layer, decltype(how)...> {
      Layer layer(how...);
      FromInputs visitor(arguments.at(0), inputs);
      layer.visit(visitor);
      layer.train(arguments.at(1).get<bool>());
      return run(layer, Json(first, last), inputs);
    };
    if constexpr (sizeof...(T) == 0)
      return made();
    else
      return call_of<T...>(made)(Json(last, arguments.end()), inputs);
  };
}

/// Runs an optimizer. The arguments are the parameters, the gradients of all steps, and the options. Returns
/// each parameter after every step.
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

/// Runs SGD with a GradScaler. The arguments are the parameters, the gradients of all steps before scaling,
/// which may be infinite, and the scaler's options. Returns the parameters and the scale after every step,
/// and whether the step was made.
inline Tensors golden_scaler(const Json& arguments, const Tensors& inputs) {
  ParameterList list;
  for (const Tensor& start : decode<Tensors>(arguments.at(0), inputs))
    list.items.push_back({std::to_string(list.items.size()), start.detach().clone().set_requires_grad(true)});
  const Tensors factors = decode<Tensors>(arguments.at(1), inputs);
  std::vector<Tensors> after(list.items.size() + 2);
  optim::SGD optimizer(list, {.lr = 0.1, .momentum = 0.9});
  amp::GradScaler scaler(decode<amp::GradScalerOptions>(arguments.at(2), inputs));
  for (std::int64_t step = 0; step < factors.at(0).size(0); ++step) {
    optimizer.zero_grad();
    Tensor loss;
    for (std::size_t i = 0; i < factors.size(); ++i) {
      const Tensor part = sum(list.items[i].tensor * select(factors[i], 0, step));
      loss = loss.defined() ? loss + part : part;
    }
    scaler.scale(loss).backward();
    const bool made = scaler.step(optimizer);
    scaler.update();
    for (std::size_t i = 0; i < factors.size(); ++i)
      after[i].push_back(list.items[i].tensor.detach().clone());
    after[factors.size()].push_back(Tensor::scalar(scaler.scale(), factors[0].dtype()));
    after.back().push_back(Tensor::scalar(made, DType::kBool));
  }
  Tensors out;
  for (const Tensors& one : after) out.push_back(stack(one));
  return out;
}

/// Clips gradients (first argument) to a norm (second argument). Returns the norm before, and the clipped
/// gradients.
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
    {"nn.MultiheadAttention",
     layer_of<nn::MultiheadAttention, std::int64_t, std::int64_t, nn::MultiheadAttentionOptions>(
         run_masked<nn::MultiheadAttention, 3, 1>, 4)},
    {"nn.MultiheadAttention.with_weights",
     layer_of<nn::MultiheadAttention, std::int64_t, std::int64_t, nn::MultiheadAttentionOptions>(
         run_with_weights, 5)},
    {"nn.TransformerEncoderLayer",
     layer_of<nn::TransformerEncoderLayer, std::int64_t, std::int64_t, nn::TransformerOptions>(
         run_masked<nn::TransformerEncoderLayer, 1, 1>, 2)},
    {"nn.TransformerDecoderLayer",
     layer_of<nn::TransformerDecoderLayer, std::int64_t, std::int64_t, nn::TransformerOptions>(
         run_masked<nn::TransformerDecoderLayer, 2, 2>, 4)},
    {"nn.TransformerEncoder",
     layer_of<nn::TransformerEncoder, std::int64_t, std::int64_t, std::int64_t, nn::TransformerOptions, bool>(
         run_masked<nn::TransformerEncoder, 1, 1>, 2)},
    {"nn.TransformerDecoder",
     layer_of<nn::TransformerDecoder, std::int64_t, std::int64_t, std::int64_t, nn::TransformerOptions, bool>(
         run_masked<nn::TransformerDecoder, 2, 2>, 4)},
    {"nn.Transformer", layer_of<nn::Transformer, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                                nn::TransformerOptions>(run_masked<nn::Transformer, 2, 3>, 5)},
    {"nn.RNN", layer_of<nn::RNN, std::int64_t, std::int64_t, nn::RecurrentOptions, nn::RNN::Nonlinearity>(
                   run_sequence<nn::RNN>, 4)},
    {"nn.LSTM",
     layer_of<nn::LSTM, std::int64_t, std::int64_t, nn::RecurrentOptions>(run_sequence<nn::LSTM>, 4)},
    {"nn.GRU", layer_of<nn::GRU, std::int64_t, std::int64_t, nn::RecurrentOptions>(run_sequence<nn::GRU>, 4)},
    {"nn.LSTMCell", layer_of<nn::LSTMCell, std::int64_t, std::int64_t, bool>(run_cell<nn::LSTMCell>, 3)},
    {"nn.GRUCell", layer_of<nn::GRUCell, std::int64_t, std::int64_t, bool>(run_cell<nn::GRUCell>, 2)},
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
    {"optim.GradScaler", golden_scaler},
    {"optim.clip_grad_norm", golden_clip},
    {"optim.learning_rate", golden_learning_rate},
};

}  // namespace trireme::test
