#include "core/autograd/function.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>

namespace trireme {

namespace {

/// Returns the index of t among the results, or -1.
int index_in(const Tensors& results, const Tensor& t) {
  for (std::size_t i = 0; i < results.size(); ++i)
    if (results[i].defined() && results[i].is_same(t)) return static_cast<int>(i);
  return -1;
}

/// Returns a new handle for each result. A result that shares memory with an argument is copied.
Tensors own_handles(const Tensors& results, const Tensors& inputs) {
  const NoGrad off;
  Tensors own;
  for (const Tensor& result : results) {
    const bool shares = result.defined() && std::any_of(inputs.begin(), inputs.end(), [&](const Tensor& in) {
                          return in.defined() && in.impl()->storage == result.impl()->storage;
                        });
    own.push_back(!result.defined() ? result : shares ? result.clone() : result.detach());
  }
  return own;
}

/// The shape, dtype and device of a tensor, for use after the tensor itself is gone.
struct Form {
  explicit Form(const Tensor& t)
      : defined(t.defined()),
        shape(defined ? t.shape() : Shape{}),
        dtype(defined ? t.dtype() : DType::kFloat32),
        device(defined ? t.device() : kCpu) {}
  bool defined;
  Shape shape;
  DType dtype;
  Device device;
};

std::vector<Form> forms_of(const Tensors& tensors) { return {tensors.begin(), tensors.end()}; }

void hand_over(Backward& backward, const char* name, const Tensors& gradients,
               const std::vector<Form>& inputs) {
  TRIREME_CHECK(gradients.size() == inputs.size(),
                "{}: its backward returned {} gradients for {} tensor arguments; an undefined one stands for "
                "none",
                name, gradients.size(), inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& g = gradients[i];
    if (!g.defined() || !backward.needs(static_cast<int>(i))) continue;
    TRIREME_CHECK(g.shape() == inputs[i].shape && g.dtype() == inputs[i].dtype,
                  "{}: its backward returned a gradient of {} {} for tensor argument {}, which is {} {}",
                  name, name_of(g.dtype()), g.shape().to_string(), i, name_of(inputs[i].dtype),
                  inputs[i].shape.to_string());
    backward.set(static_cast<int>(i), g);
  }
}

}  // namespace

Tensor FunctionContext::saved(std::size_t i) const {
  TRIREME_CHECK(backward_, "Function: saved() is for backward");
  TRIREME_CHECK(i < saved_.size(), "{}: its backward asks for saved tensor {} of {}", name_, i,
                saved_.size());
  return backward_->get(saved_[i]);
}

bool FunctionContext::needs_gradient(std::size_t i) const {
  TRIREME_CHECK(backward_, "Function: needs_gradient() is for backward");
  TRIREME_CHECK(i < backward_->inputs(), "{}: its backward asks about tensor argument {} of {}", name_, i,
                backward_->inputs());
  return backward_->needs(static_cast<int>(i));
}

Tensors record_function(const char* name, const std::shared_ptr<FunctionContext>& context,
                        const Tensors& inputs, const std::vector<std::uint32_t>& versions, Tensors results,
                        std::function<Tensors(const Tensors&)> backward) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    TRIREME_CHECK(
        !inputs[i].requires_grad() || inputs[i].version() == versions[i],
        "{}: its forward changed tensor argument {} in place, which wants a gradient; clone it first", name,
        i);
  const Tensors to_save = std::exchange(context->to_save_, {}),
                constant = std::exchange(context->constant_, {});
  const Tensors own = own_handles(results, inputs);
  std::vector<const Tensor*> from, to;
  for (const Tensor& input : inputs) from.push_back(&input);
  if (!recording(from)) return own;
  const Tensor none;
  for (std::size_t i = 0; i < own.size(); ++i) {
    const bool differentiable =
        own[i].defined() && is_floating(own[i].dtype()) && index_in(constant, results[i]) < 0;
    to.push_back(differentiable ? &own[i] : &none);
  }
  for (const Tensor& t : to_save) {
    const int i = t.defined() ? index_in(results, t) : -1;
    const bool has_gradient = i >= 0 && to[static_cast<std::size_t>(i)] != &none;
    context->saved_.push_back(has_gradient ? Saved::output(own[static_cast<std::size_t>(i)], i) : Saved(t));
  }
  context->name_ = name;
  detail::attach(
      to, from,
      detail::closure(name, [name, context, backward = std::move(backward), made = forms_of(own),
                             given = forms_of(inputs)](Backward& b) {
        Tensors gradients;
        for (std::size_t i = 0; i < made.size(); ++i) {
          const Tensor g = b.gradient(static_cast<int>(i));
          const bool missing = !g.defined() && made[i].defined;
          gradients.push_back(missing ? Tensor::zeros(made[i].shape, made[i].dtype, made[i].device) : g);
        }
        const struct Restore {
          FunctionContext& context;
          const Backward* before;
          ~Restore() { context.backward_ = before; }
        } restore{*context, std::exchange(context->backward_, &b)};
        hand_over(b, name, backward(gradients), given);
      }));
  return own;
}

std::string detail::name_of_type(const std::type_info& type) {
  const std::unique_ptr<char, void (*)(void*)> readable(
      abi::__cxa_demangle(type.name(), nullptr, nullptr, nullptr), std::free);
  const std::string name = readable ? readable.get() : type.name();
  const std::size_t last = name.rfind("::", name.find('<'));
  return last == std::string::npos ? name : name.substr(last + 2);
}

}  // namespace trireme
