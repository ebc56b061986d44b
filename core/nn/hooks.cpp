// The hooks around a module's call.
#include <memory>
#include <utility>

#include "core/autograd/autograd.h"
#include "core/nn/module.h"

namespace trireme::nn {

namespace {

using Tensors = std::vector<Tensor>;

void replace(const char* kind, Tensors& tensors, Tensors by) {
  if (by.empty()) return;
  TRIREME_CHECK(by.size() == tensors.size(), "module: a {} hook returns {} tensors to replace {}", kind,
                by.size(), tensors.size());
  tensors = std::move(by);
}

Tensors gradients_of(const Backward& backward, std::size_t count) {
  Tensors gradients;
  for (std::size_t i = 0; i < count; ++i) gradients.push_back(backward.gradient(static_cast<int>(i)));
  return gradients;
}

/// The same tensors as results of one recorded op that does nothing: fn runs in backward when all their
/// gradients are known. Those that want no gradient are handed through. False if none wants one.
template <class Fn>
bool pass_through(const char* name, Tensors& tensors, Fn&& fn) {
  const Tensors in = tensors;
  const Tensor none;
  std::vector<const Tensor*> inputs, outs;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const bool wanted = in[i].requires_grad();
    if (wanted) {
      tensors[i] = in[i].detach();
      detail::mark_view(tensors[i], in[i]);
    }
    inputs.push_back(&in[i]);
    outs.push_back(wanted ? &tensors[i] : &none);
  }
  if (!recording(inputs)) return false;
  detail::attach(outs, inputs, detail::closure(name, std::forward<Fn>(fn)));
  return true;
}

/// One call of a module with backward hooks.
struct Call {
  Hooks<BackwardHook> hooks;
  Tensors output_gradients;

  Tensors run(Tensors input_gradients) {
    const Tensors outputs = std::exchange(output_gradients, {});
    hooks.each(
        [&](const auto& hook) { replace("backward", input_gradients, hook(input_gradients, outputs)); });
    return input_gradients;
  }
};

}  // namespace

Tensors Module::with_hooks(Tensors inputs, const std::function<Tensors(const Tensors&)>& run) const {
  pre_hooks_.each([&](const auto& hook) { replace("forward pre-", inputs, hook(inputs)); });
  const bool watched = !backward_hooks_.empty() && grad_enabled();
  const auto call = watched ? std::make_shared<Call>(Call{backward_hooks_, {}}) : nullptr;
  const std::size_t count = inputs.size();
  const bool reaches_inputs = watched && pass_through("module inputs", inputs, [call, count](Backward& b) {
                                const Tensors gradients = call->run(gradients_of(b, count));
                                for (std::size_t i = 0; i < count; ++i)
                                  b.set(static_cast<int>(i), gradients[i]);
                              });
  Tensors outputs = run(inputs);
  hooks_.each([&](const auto& hook) { replace("forward", outputs, hook(inputs, outputs)); });
  if (!watched) return outputs;
  pass_through("module outputs", outputs,
               [call, count, reaches_inputs, results = outputs.size()](Backward& b) {
                 call->output_gradients = gradients_of(b, results);
                 for (std::size_t i = 0; i < results; ++i)
                   b.set(static_cast<int>(i), call->output_gradients[i]);
                 if (!reaches_inputs) call->run(Tensors(count));
               });
  return outputs;
}

}  // namespace trireme::nn
