// Runs the hooks before and after a module's call.
#include <algorithm>
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

/// Replaces tensors by results of one recorded op that does nothing; fn runs in backward when all their
/// gradients are known. Tensors that do not require a gradient stay as they are. Results that share memory
/// with other tensors must not be changed in place, because such gradients would not pass through fn. Returns
/// false if no tensor requires a gradient or grad mode is off.
template <class IsShared, class Fn>
bool pass_through(const char* name, Tensors& tensors, IsShared&& is_shared, Fn&& fn) {
  const Tensors in = tensors;
  const Tensor none;
  std::vector<const Tensor*> inputs, outs;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const bool wanted = in[i].requires_grad();
    if (wanted) {
      tensors[i] = in[i].detach();
      if (is_shared(in[i])) detail::mark_watched_view(tensors[i], in[i]);
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
  explicit Call(const Hooks<BackwardHook>& of) : hooks(of) {}
  Hooks<BackwardHook> hooks;
  std::size_t results = 0;
  Tensors output_gradients;

  Tensors run(Tensors input_gradients) {
    Tensors outputs = std::exchange(output_gradients, {});
    outputs.resize(results);  // needed if no result was used
    hooks.each(
        [&](const auto& hook) { replace("backward", input_gradients, hook(input_gradients, outputs)); });
    return input_gradients;
  }
};

/// Returns true if a module's result shares memory with its inputs or a parameter, or has other users.
bool is_from_outside(const Tensor& t, const Tensors& inputs) {
  if (t.impl()->use_count() > 1) return true;
  if (t.is_leaf() || (t.impl()->base && Tensor(t.impl()->base).is_leaf())) return true;
  return std::ranges::any_of(inputs, [&](const Tensor& other) {
    return other.defined() && other.impl()->storage.get() == t.impl()->storage.get();
  });
}

}  // namespace

Tensors Module::with_hooks(Tensors inputs, const std::function<Tensors(const Tensors&)>& run) const {
  pre_hooks_.each([&](const auto& hook) { replace("forward pre-", inputs, hook(inputs)); });
  const bool watched = !backward_hooks_.empty() && grad_enabled();
  const auto call = watched ? std::make_shared<Call>(backward_hooks_) : nullptr;
  const std::size_t count = inputs.size();
  const auto always = [](const Tensor&) { return true; };  // the caller holds handles to them
  const bool reaches_inputs =
      watched && pass_through("module inputs", inputs, always, [call, count](Backward& b) {
        const Tensors gradients = call->run(gradients_of(b, count));
        for (std::size_t i = 0; i < count; ++i) b.set(static_cast<int>(i), gradients[i]);
      });
  Tensors outputs = run(inputs);
  hooks_.each([&](const auto& hook) { replace("forward", outputs, hook(inputs, outputs)); });
  if (!watched) return outputs;
  call->results = outputs.size();
  const auto from_outside = [&](const Tensor& t) { return is_from_outside(t, inputs); };
  pass_through("module outputs", outputs, from_outside, [call, count, reaches_inputs](Backward& b) {
    call->output_gradients = gradients_of(b, call->results);
    for (std::size_t i = 0; i < call->results; ++i) b.set(static_cast<int>(i), call->output_gradients[i]);
    if (!reaches_inputs) call->run(Tensors(count));
  });
  return outputs;
}

}  // namespace trireme::nn
