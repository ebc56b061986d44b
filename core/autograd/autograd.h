// Reverse-mode differentiation, recorded while the program runs.
//
// A differentiable op calls record() with a closure that maps the gradients of its outputs to gradients of
// its inputs; the closure stands next to the op's forward code. Ops that return views call make_view().
// In-place ops end with record_in_place(). Recording and backward are per thread: build a graph and run its
// backward pass on the same thread.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/autograd/node.h"
#include "core/tensor/observer.h"
#include "core/tensor/tensor.h"

namespace trireme {

/// Turns recording off on this thread during its lifetime.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

/// Turns recording on on this thread during its lifetime, also inside the scope of a NoGrad.
class EnableGrad {
 public:
  EnableGrad();
  ~EnableGrad();
  EnableGrad(const EnableGrad&) = delete;
  EnableGrad& operator=(const EnableGrad&) = delete;

 private:
  bool before_;
};

bool grad_enabled();

/// Turns anomaly mode on on this thread during its lifetime. In this mode the results of each recorded op and
/// of each backward step are searched for NaN. The first one that makes a NaN from inputs without NaN throws
/// an Error(kNonFinite) that names it. The mode is slow and meant for debugging.
class DetectAnomaly {
 public:
  DetectAnomaly();
  ~DetectAnomaly();
  DetectAnomaly(const DetectAnomaly&) = delete;
  DetectAnomaly& operator=(const DetectAnomaly&) = delete;

 private:
  bool before_;
};

/// Returns true if an op over these inputs must be recorded.
bool recording(std::span<const Tensor* const> inputs);
inline bool recording(std::initializer_list<const Tensor*> inputs) {
  return recording(std::span(inputs.begin(), inputs.size()));
}

namespace detail {

template <class Fn>
class ClosureNode final : public Node {
 public:
  ClosureNode(const char* name, Fn fn) : Node(name), fn_(std::move(fn)) {}
  void apply(Backward& b) override {
    TRIREME_CHECK(fn_, "backward: {} ran before and freed what it saved; ask for retain_graph the first time",
                  op);
    (*fn_)(b);
  }
  void release_saved() override { fn_.reset(); }

 private:
  std::optional<Fn> fn_;
};

template <class Fn>
Ref<Node> closure(const char* op, Fn&& fn) {
  return make_ref<ClosureNode<std::decay_t<Fn>>>(op, std::forward<Fn>(fn));
}

/// Tells this thread's observer, if any, that an op has computed `out`. Every op calls this.
inline void done(const char* op, const Tensor& out, std::span<const Tensor* const> inputs) {
  if (observer) [[unlikely]]
    observer->op_done(op, out, inputs);
}

void attach(std::span<const Tensor* const> outs, std::span<const Tensor* const> inputs, Ref<Node> node);
void attach_in_place(const Tensor& t, std::initializer_list<const Tensor*> others, Ref<Node> node);
void mark_view(const Tensor& view, const Tensor& of);
/// Marks `view` as a view that must keep its own history. After an in-place change of its memory has been
/// recorded, using the view throws.
void mark_watched_view(const Tensor& view, const Tensor& of);

}  // namespace detail

/// Makes `out` the recorded result of `op` over `inputs`, if recording(inputs). `op` must be a string
/// literal. fn(Backward&) computes the inputs' gradients from ops, so that it can itself be differentiated.
template <class Fn>
Tensor record(const char* op, Tensor out, std::span<const Tensor* const> inputs, Fn&& fn) {
  detail::done(op, out, inputs);
  const Tensor* outs[] = {&out};
  if (recording(inputs)) detail::attach(outs, inputs, detail::closure(op, std::forward<Fn>(fn)));
  return out;
}

template <class Fn>
Tensor record(const char* op, Tensor out, std::initializer_list<const Tensor*> inputs, Fn&& fn) {
  return record(op, std::move(out), std::span(inputs.begin(), inputs.size()), std::forward<Fn>(fn));
}

/// Makes `outs` the recorded results of an op that has several. Results that are not floating point get no
/// gradient. fn reads the gradients of the results with Backward::gradient(i).
template <class Fn>
std::vector<Tensor> record(const char* op, std::vector<Tensor> outs, std::span<const Tensor* const> inputs,
                           Fn&& fn) {
  if (!outs.empty()) detail::done(op, outs[0], inputs);
  if (!recording(inputs)) return outs;
  std::vector<const Tensor*> pointers;
  for (const Tensor& out : outs) pointers.push_back(&out);
  detail::attach(pointers, inputs, detail::closure(op, std::forward<Fn>(fn)));
  return outs;
}

/// Returns a recorded view of x's memory. An in-place op on the view, on x or on another view of x becomes
/// part of the history of all of them. `offset` counts elements from the start of the storage.
template <class Fn>
Tensor make_view(const char* op, const Tensor& x, const Shape& shape, const Shape& strides,
                 std::int64_t offset, Fn&& fn) {
  const Tensor view = x.alias(shape, strides, offset);
  detail::mark_view(view, x);
  return record(op, view, {&x}, std::forward<Fn>(fn));
}

/// The location of a part of a tensor in the tensor's memory. `offset` counts elements from the tensor's
/// first element.
struct Part {
  Shape shape, strides;
  std::int64_t offset = 0;
};

namespace detail {
/// Returns true if elements of x may share memory, as those of an expanded tensor do.
bool shares_elements(const Tensor& x);
/// Returns a recorded view of x. `part` is the view's location in x's memory, and `in_base` its location in
/// x's gradient, whose strides are `base_strides`.
Tensor view_of_part(const char* op, const Tensor& x, const Part& part, const Shape& base_strides,
                    const Part& in_base);
}  // namespace detail

/// Returns a recorded view of a part of x whose elements do not overlap. Its gradient is written to the same
/// part of x's gradient. part(strides) returns the part's location in a tensor of x's shape with those
/// strides.
template <class PartFn>
Tensor strided_view(const char* op, const Tensor& x, const PartFn& part) {
  const Part here = part(x.strides());
  if (!detail::shares_elements(x)) return detail::view_of_part(op, x, here, x.strides(), here);
  // Each element of x gets a gradient of its own. The backward of expand() sums those of shared elements.
  const Shape own = contiguous_strides(x.shape());
  return detail::view_of_part(op, x, here, own, part(own));
}

/// Throws if an in-place op must not write to `target`: its elements share memory, it is read-only, or grad
/// mode is on and it is a leaf, or a view of a leaf, that requires grad. Call this before the write, and
/// record_in_place() after it.
void check_in_place(const char* op, const Tensor& target);

/// Records an in-place op over `t`. Call it after the write and t.bump_version(op). Input 0 of `fn` is t as
/// it was before the op; `others` follow as inputs 1, 2, ...
template <class Fn>
void record_in_place(const char* op, const Tensor& t, std::initializer_list<const Tensor*> others, Fn&& fn) {
  if (recording({&t}) || recording(others))
    detail::attach_in_place(t, others, detail::closure(op, std::forward<Fn>(fn)));
}

struct BackwardOptions {
  bool retain_graph = false;  ///< keep what was saved, so that backward can run again
  bool create_graph = false;  ///< record the backward pass itself; implies retain_graph
  bool partial = false;       ///< for grad() only: no gradient flows through one input to another
};

/// Adds the gradients of `root` to the grad of every leaf that it depends on. `gradient` must have root's
/// shape. It may be undefined for a root of one element and is 1 then.
void backward(const Tensor& root, const Tensor& gradient = {}, BackwardOptions options = {});
/// Runs one backward pass from several roots. `gradients` has one gradient per root, or is empty if all of
/// them are 1.
void backward(const std::vector<Tensor>& roots, const std::vector<Tensor>& gradients = {},
              BackwardOptions options = {});

/// Returns d(root)/d(input) for each input, undefined for an input that root does not depend on. The grads of
/// leaves do not change. Only nodes between root and the inputs run.
std::vector<Tensor> grad(const Tensor& root, const std::vector<Tensor>& inputs, const Tensor& gradient = {},
                         BackwardOptions options = {});
/// Returns the sum of d(root)/d(input) over several roots, for each input.
std::vector<Tensor> grad(const std::vector<Tensor>& roots, const std::vector<Tensor>& inputs,
                         const std::vector<Tensor>& gradients = {}, BackwardOptions options = {});

/// Returns fn(inputs) with activation checkpointing: the tensors that backward needs are not kept. Backward
/// runs fn again to compute them, with the same bits. This saves memory and costs time (T. Chen et al.,
/// "Training deep nets with sublinear memory cost", 2016). fn must do the same each time; for modules with
/// dropout or running statistics use nn::recompute.
Tensor recompute(const std::function<Tensor(const std::vector<Tensor>&)>& fn,
                 const std::vector<Tensor>& inputs);

/// Sets the gradients of a fused op's inputs by differentiating `unfused`, the same function of the inputs
/// made of differentiable ops. A fused op's closure calls it when the backward pass is itself recorded.
void differentiate_unfused(Backward& backward, const std::vector<Tensor>& inputs,
                           const std::function<Tensor(const std::vector<Tensor>&)>& unfused);

/// Lends `memory` for leaf t's next grad, so that ops that can write their gradient to given memory need no
/// copy. `memory` must be row-major and have t's shape, dtype and device. It is used at most once. An
/// undefined tensor ends the loan. A grad in other memory is equally valid.
void set_grad_memory(const Tensor& t, Tensor memory);

/// Registers a hook that backward calls with each gradient of t. If the hook returns a defined tensor, it
/// replaces the gradient. Throws unless t requires grad.
HookHandle register_hook(const Tensor& t, GradientHook hook);
/// Registers a hook that is called when a backward pass has completed leaf t's grad: once per pass, even if t
/// is used several times. Throws unless t is a leaf that requires grad.
HookHandle register_post_accumulate_hook(const Tensor& t, std::function<void(const Tensor&)> hook);

}  // namespace trireme
