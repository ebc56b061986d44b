// The user's own differentiable functions, with a backward written by hand.
//
//   struct Cube : Function<Cube> {
//     static Tensor forward(Context& c, const Tensor& x) {  // runs unrecorded
//       c.save_for_backward({x});
//       return x * x * x;
//     }
//     static Tensors backward(Context& c, const Tensors& g) {  // one gradient for each tensor argument
//       const Tensor x = c.saved(0);
//       return {g[0] * x * x * 3.0};
//     }
//   };
//   const Tensor y = Cube::apply(x);
//
// A function keeps values that are not tensors in a context type of its own:
//
//   struct Scale : Function<Scale> {
//     struct Context : FunctionContext {
//       double factor;
//     };
//     static Tensor forward(Context& c, const Tensor& x, double factor) {  // any arguments
//       c.factor = factor;
//       return x * factor;
//     }
//     static Tensors backward(Context& c, const Tensors& g) { return {g[0] * c.factor}; }
//   };
//
// Arguments of the types Tensor and Tensors (a vector of them) get gradients; others do not. forward returns
// a Tensor or Tensors, and apply() returns the same type. A result that shares memory with an argument is
// copied. If backward is made of differentiable ops, its gradients can be differentiated again.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <vector>

#include "core/autograd/autograd.h"

namespace trireme {

using Tensors = std::vector<Tensor>;

/// The data that forward leaves for backward. It lives as long as the graph holds the call.
class FunctionContext {
 public:
  /// Saves tensors for backward: arguments, results or others. Call it in forward, at most once. saved()
  /// throws if one of them is changed in place before backward reads it.
  void save_for_backward(const Tensors& tensors) { to_save_ = tensors; }
  /// Makes these results get no gradient. Call it in forward.
  void mark_non_differentiable(const Tensors& results) { constant_ = results; }
  /// Returns tensor i of those given to save_for_backward(). Call it in backward; it throws elsewhere.
  Tensor saved(std::size_t i) const;
  /// Returns true if the pass needs the gradient of tensor argument i. Other gradients may be left undefined.
  /// Call it in backward; it throws elsewhere.
  bool needs_gradient(std::size_t i) const;

 private:
  friend Tensors record_function(const char* name, const std::shared_ptr<FunctionContext>& context,
                                 const Tensors& inputs, const std::vector<std::uint32_t>& versions,
                                 Tensors results, std::function<Tensors(const Tensors&)> backward);
  Tensors to_save_, constant_;
  std::vector<Saved> saved_;
  const char* name_ = "";
  const Backward* backward_ = nullptr;
};

/// Records a call of a user's function with these results and returns the recorded tensors. `versions` are
/// the versions of the inputs before the call. Function::apply() calls this.
Tensors record_function(const char* name, const std::shared_ptr<FunctionContext>& context,
                        const Tensors& inputs, const std::vector<std::uint32_t>& versions, Tensors results,
                        std::function<Tensors(const Tensors&)> backward);

namespace detail {

/// Returns the type's name without namespaces.
std::string name_of_type(const std::type_info& type);

template <class T>
void gather_tensors(Tensors& found, const T& argument) {
  if constexpr (std::is_same_v<T, Tensor>)
    found.push_back(argument);
  else if constexpr (std::is_same_v<T, Tensors>)
    found.insert(found.end(), argument.begin(), argument.end());
}

}  // namespace detail

/// The base of a user's function `Self`. The head of this file has examples.
template <class Self>
struct Function {
  using Context = FunctionContext;

  template <class... Arguments>
  static auto apply(const Arguments&... arguments) {
    static const std::string& name = *new std::string(detail::name_of_type(typeid(Self)));
    Tensors inputs;
    (detail::gather_tensors(inputs, arguments), ...);
    std::vector<std::uint32_t> versions;
    for (const Tensor& input : inputs) versions.push_back(input.defined() ? input.version() : 0);
    const auto context = std::make_shared<typename Self::Context>();
    const auto backward = [context](const Tensors& g) -> Tensors { return Self::backward(*context, g); };
    auto result = [&] {
      const NoGrad off;
      return Self::forward(*context, arguments...);
    }();
    if constexpr (std::is_same_v<decltype(result), Tensor>)
      return record_function(name.c_str(), context, inputs, versions, {result}, backward)[0];
    else
      return record_function(name.c_str(), context, inputs, versions, std::move(result), backward);
  }
};

}  // namespace trireme
