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
// What is no tensor is kept in a context of the function's own:
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
// Of the arguments, Tensor and Tensors (vectors of them) are those that get gradients. forward gives a Tensor
// or Tensors, and so does apply(). A result that shares memory with an argument is copied. backward may be
// made of differentiable ops: then its gradients can be differentiated again.
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

/// What forward leaves for backward. Lives as long as the graph holds the call.
class FunctionContext {
 public:
  /// In forward, at most once: arguments, results or others. Those must not be changed in place until
  /// backward: saved() throws then.
  void save_for_backward(const Tensors& tensors) { to_save_ = tensors; }
  /// In forward: these of its results get no gradient.
  void mark_non_differentiable(const Tensors& results) { constant_ = results; }
  /// In backward: what save_for_backward was given, number i.
  Tensor saved(std::size_t i) const;
  /// In backward: whether tensor argument i wants a gradient. Others may be left undefined.
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

/// Makes `results` those of a recorded call; `versions` are the inputs' before it. For Function::apply.
Tensors record_function(const char* name, const std::shared_ptr<FunctionContext>& context,
                        const Tensors& inputs, const std::vector<std::uint32_t>& versions, Tensors results,
                        std::function<Tensors(const Tensors&)> backward);

namespace detail {

/// The type's name without namespaces.
std::string name_of_type(const std::type_info& type);

template <class T>
void gather_tensors(Tensors& found, const T& argument) {
  if constexpr (std::is_same_v<T, Tensor>)
    found.push_back(argument);
  else if constexpr (std::is_same_v<T, Tensors>)
    found.insert(found.end(), argument.begin(), argument.end());
}

}  // namespace detail

/// Base of a user's function `Self`; see above.
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
