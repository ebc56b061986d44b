// Reverse-mode differentiation, recorded while the program runs.
//
// An op that wants a gradient calls record() with a closure that maps the gradients of its outputs to
// gradients of its inputs; the closure stands next to the op's forward code. Views are made by make_view(),
// in-place ops end with record_in_place(). Recording and backward are per thread: build a graph and run it
// on one thread.
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

/// While alive, nothing is recorded on this thread.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

/// While alive, operations are recorded on this thread, also inside NoGrad.
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

/// While alive, on this thread: each recorded op and each backward step is searched for NaN, and the first
/// one that makes a NaN from inputs without any throws Error(kNonFinite) that names it. Slow: for debugging.
class DetectAnomaly {
 public:
  DetectAnomaly();
  ~DetectAnomaly();
  DetectAnomaly(const DetectAnomaly&) = delete;
  DetectAnomaly& operator=(const DetectAnomaly&) = delete;

 private:
  bool before_;
};

/// True if an op over these inputs has to be recorded.
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

/// Every op comes here with its result.
inline void done(const char* op, const Tensor& out, std::span<const Tensor* const> inputs) {
  if (observer) [[unlikely]]
    observer->op_done(op, out, inputs);
}

void attach(std::span<const Tensor* const> outs, std::span<const Tensor* const> inputs, Ref<Node> node);
void attach_in_place(const Tensor& t, std::initializer_list<const Tensor*> others, Ref<Node> node);
void mark_view(const Tensor& view, const Tensor& of);
/// The same for a view whose own history must not be lost: to use it throws once a change of its memory in
/// place was recorded.
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

/// The same for an op with several results; those that are not floating point get no gradient.
/// fn reads their gradients with Backward::gradient(i).
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

/// A view of x's memory, recorded. An in-place op on it, on x or on another view of x reaches the history of
/// all of them. `offset` counts elements from the start of the storage.
template <class Fn>
Tensor make_view(const char* op, const Tensor& x, const Shape& shape, const Shape& strides,
                 std::int64_t offset, Fn&& fn) {
  const Tensor view = x.alias(shape, strides, offset);
  detail::mark_view(view, x);
  return record(op, view, {&x}, std::forward<Fn>(fn));
}

/// Where a part of a tensor lies in the tensor's memory; `offset` counts elements from the tensor's first.
struct Part {
  Shape shape, strides;
  std::int64_t offset = 0;
};

namespace detail {
/// Whether elements of x may share memory, as those of an expanded tensor do.
bool shares_elements(const Tensor& x);
/// `part` lies so in x's memory, and `in_base` so in x's gradient, whose strides are `base_strides`.
Tensor view_of_part(const char* op, const Tensor& x, const Part& part, const Shape& base_strides,
                    const Part& in_base);
}  // namespace detail

/// A view, recorded, of a part of x without overlap: its gradient goes back to where its elements lie.
/// part(strides) says where it lies in a tensor of x's shape with those strides.
template <class PartFn>
Tensor strided_view(const char* op, const Tensor& x, const PartFn& part) {
  const Part here = part(x.strides());
  if (!detail::shares_elements(x)) return detail::view_of_part(op, x, here, x.strides(), here);
  // Each element has a gradient of its own, so that the sum over those in one place is expand's business.
  const Shape own = contiguous_strides(x.shape());
  return detail::view_of_part(op, x, here, own, part(own));
}

/// Guards an in-place op over `target`: throws if elements of target share memory, if it is read-only, or if
/// it is (a view of) a leaf that wants a gradient while gradients are recorded. Call before the write, and
/// record_in_place() after it.
void check_in_place(const char* op, const Tensor& target);

/// Ends an in-place op: call t.bump_version(op) after the write, then this. Input 0 of `fn` is what t was
/// before, the others follow.
template <class Fn>
void record_in_place(const char* op, const Tensor& t, std::initializer_list<const Tensor*> others, Fn&& fn) {
  if (recording({&t}) || recording(others))
    detail::attach_in_place(t, others, detail::closure(op, std::forward<Fn>(fn)));
}

struct BackwardOptions {
  bool retain_graph = false;  ///< keep what was saved, so that backward can run again
  bool create_graph = false;  ///< record the backward pass itself; implies retain_graph
  bool partial = false;       ///< grad() only: no gradient flows through one input to another
};

/// Adds gradients of `root` to the grad of every leaf it depends on. `gradient` has root's shape; undefined
/// means 1 for a root of one element.
void backward(const Tensor& root, const Tensor& gradient = {}, BackwardOptions options = {});
/// The same for several roots at once. `gradients` may be empty: 1 for each.
void backward(const std::vector<Tensor>& roots, const std::vector<Tensor>& gradients = {},
              BackwardOptions options = {});

/// d(root)/d(input) for each input, undefined where root does not depend on it; leaves' grads stay as they
/// are. Only what lies between root and inputs is run.
std::vector<Tensor> grad(const Tensor& root, const std::vector<Tensor>& inputs, const Tensor& gradient = {},
                         BackwardOptions options = {});
/// The sum of that over several roots.
std::vector<Tensor> grad(const std::vector<Tensor>& roots, const std::vector<Tensor>& inputs,
                         const std::vector<Tensor>& gradients = {}, BackwardOptions options = {});

/// Activation checkpointing: fn(inputs), of which backward's needs are not kept but computed again, with the
/// same bits, when backward comes to it; memory for time (T. Chen et al., "Training deep nets with sublinear
/// memory cost", 2016). fn must do the same each time; for modules with dropout or statistics use
/// nn::recompute.
Tensor recompute(const std::function<Tensor(const std::vector<Tensor>&)>& fn,
                 const std::vector<Tensor>& inputs);

/// For the backward of a fused op while it is itself recorded: hands over the gradients of `unfused`, the
/// same function of the inputs made of differentiable ops.
void differentiate_unfused(Backward& backward, const std::vector<Tensor>& inputs,
                           const std::function<Tensor(const std::vector<Tensor>&)>& unfused);

/// Lends `memory` (row-major, of leaf t's shape and dtype) for t's next grad: ops that can write their
/// gradient there instead of into memory of their own, so that it need not be copied. Used at most once;
/// undefined takes it back. A grad that lies elsewhere is just as right.
void set_grad_memory(const Tensor& t, Tensor memory);

/// Calls `hook` with each gradient of t as it is known; a defined result replaces it.
HookHandle register_hook(const Tensor& t, GradientHook hook);
/// Calls `hook` each time a backward pass has finished leaf t's grad. Once per pass, even if t is used
/// several times.
HookHandle register_post_accumulate_hook(const Tensor& t, std::function<void(const Tensor&)> hook);

}  // namespace trireme
