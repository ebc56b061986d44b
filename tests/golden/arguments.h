// Decodes the arguments of a golden case from JSON. {"t": i} is input i, and {"t": [i, ...]} a list of
// inputs. null is an undefined tensor or an empty optional. Structs of options are objects.
#pragma once

#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/nn/recurrent.h"
#include "core/nn/transformer.h"
#include "core/ops/ops.h"

namespace trireme::test {

using Json = nlohmann::json;
using Tensors = std::vector<Tensor>;
/// Calls a function with the arguments of a golden case and returns its results.
using Call = std::function<Tensors(const Json& arguments, const Tensors& inputs)>;

template <class T>
T decode(const Json& json, const Tensors& inputs);

/// Fills a struct of options from an object. end() throws if the object has a key that is not an option.
class Members {
 public:
  Members(const Json& json, const Tensors& inputs) : json_(json), inputs_(inputs) {}
  template <class T>
  Members& operator()(const char* key, T& member) {
    if (json_.contains(key)) ++used_, member = decode<T>(json_.at(key), inputs_);
    return *this;
  }
  void end() const {
    TRIREME_CHECK(used_ == json_.size(), "golden case: unknown option in {}", json_.dump());
  }

 private:
  const Json& json_;
  const Tensors& inputs_;
  std::size_t used_ = 0;
};

inline void members(Members m, Conv2dOptions& o) {
  m("stride", o.stride)("padding", o.padding)("groups", o.groups)("dilation", o.dilation).end();
}
inline void members(Members m, ConvTransposeOptions& o) {
  m("stride", o.stride)("padding", o.padding)("output_padding", o.output_padding);
  m("groups", o.groups)("dilation", o.dilation).end();
}
inline void members(Members m, PoolOptions& o) {
  m("kernel", o.kernel)("stride", o.stride)("padding", o.padding);
  m("dilation", o.dilation)("ceil_mode", o.ceil_mode).end();
}
inline void members(Members m, InterpolateOptions& o) {
  m("size", o.size)("scale_factor", o.scale_factor)("mode", o.mode)("align_corners", o.align_corners).end();
}
inline void members(Members m, CrossEntropyOptions& o) {
  m("label_smoothing", o.label_smoothing)("weight", o.weight)("ignore_index", o.ignore_index);
  m("reduction", o.reduction).end();
}
inline void members(Members m, AttentionOptions& o) {
  m("attn_mask", o.attn_mask)("is_causal", o.is_causal)("scale", o.scale).end();
}

/// Returns the value that `names` gives for `text`. Throws if there is none.
template <class T>
T named(const std::string& text, std::initializer_list<std::pair<const char*, T>> names) {
  for (const auto& [name, value] : names)
    if (text == name) return value;
  fail(ExitCode::kInternal, "golden case: unknown name '{}'", text);
}
inline void choose(const std::string& text, LossReduction& out) {
  out = named<LossReduction>(
      text, {{"mean", LossReduction::kMean}, {"sum", LossReduction::kSum}, {"none", LossReduction::kNone}});
}
inline void choose(const std::string& text, Gelu& out) {
  out = named<Gelu>(text, {{"none", Gelu::kNone}, {"tanh", Gelu::kTanh}});
}
inline void choose(const std::string& text, Interpolation& out) {
  out = named<Interpolation>(text,
                             {{"nearest", Interpolation::kNearest}, {"bilinear", Interpolation::kBilinear}});
}
inline void choose(const std::string& text, DType& out) {
  out = named<DType>(text, {{"float64", DType::kFloat64},
                            {"float32", DType::kFloat32},
                            {"int64", DType::kInt64},
                            {"uint8", DType::kUInt8},
                            {"bool", DType::kBool}});
}
inline void choose(const std::string& text, nn::TransformerActivation& out) {
  out = named<nn::TransformerActivation>(
      text, {{"relu", nn::TransformerActivation::kRelu}, {"gelu", nn::TransformerActivation::kGelu}});
}
inline void choose(const std::string& text, nn::RNN::Nonlinearity& out) {
  out = named<nn::RNN::Nonlinearity>(
      text, {{"tanh", nn::RNN::Nonlinearity::kTanh}, {"relu", nn::RNN::Nonlinearity::kRelu}});
}

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

template <class T>
T decode(const Json& json, const Tensors& inputs) {
  if constexpr (std::is_same_v<T, Tensor>) {
    return json.is_null() ? Tensor() : inputs.at(json.at("t").get<std::size_t>());
  } else if constexpr (std::is_same_v<T, Tensors>) {
    Tensors list;
    for (const Json& i : json.at("t")) list.push_back(inputs.at(i.get<std::size_t>()));
    return list;
  } else if constexpr (std::is_same_v<T, Shape>) {
    return Shape(std::span<const std::int64_t>(json.get<std::vector<std::int64_t>>()));
  } else if constexpr (IsOptional<T>::value) {
    return json.is_null() ? T() : T(decode<typename T::value_type>(json, inputs));
  } else if constexpr (std::is_same_v<T, double>) {  // a string may hold infinity, which JSON lacks
    return json.is_string() ? std::strtod(json.get<std::string>().c_str(), nullptr) : json.get<double>();
  } else if constexpr (std::is_same_v<T, Scalar>) {
    return json.is_number_integer() ? Scalar(json.get<std::int64_t>()) : Scalar(decode<double>(json, inputs));
  } else if constexpr (std::is_same_v<T, Device>) {
    fail(ExitCode::kInternal, "golden case: devices are left to their default");
  } else if constexpr (requires(T & options) { members(Members(json, inputs), options); }) {
    T options;
    members(Members(json, inputs), options);
    return options;
  } else if constexpr (std::is_enum_v<T>) {
    T value;
    choose(json.get<std::string>(), value);
    return value;
  } else {
    return json.get<T>();
  }
}

inline Tensors results(const Tensor& t) { return {t}; }
inline Tensors results(Tensors list) { return list; }
inline Tensors results(const Found& found) { return {found.values, found.indices}; }
inline Tensors results(const LstmState& state) { return {state.h, state.c}; }

/// Calls fn with the arguments of the case. The case may have fewer arguments than T...; fn then uses its
/// defaults.
template <class... T, class Fn, std::size_t... i>
Tensors call_first(const Fn& fn, const Json& arguments, const Tensors& inputs, std::index_sequence<i...>) {
  using All = std::tuple<T...>;
  if constexpr (std::is_invocable_v<Fn, const std::tuple_element_t<i, All>&...>)
    if (arguments.size() == sizeof...(i))
      return results(fn(decode<std::tuple_element_t<i, All>>(arguments.at(i), inputs)...));
  if constexpr (sizeof...(i) < sizeof...(T))
    return call_first<T...>(fn, arguments, inputs, std::make_index_sequence<sizeof...(i) + 1>());
  fail(ExitCode::kInternal, "golden case: no call takes the {} arguments {}", arguments.size(),
       arguments.dump());
}

template <class... T, class Fn>
Call call_of(Fn fn) {
  return [fn](const Json& arguments, const Tensors& inputs) {
    return call_first<T...>(fn, arguments, inputs, std::index_sequence<>());
  };
}

}  // namespace trireme::test
