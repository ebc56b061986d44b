// Internals that the recorder, the views and the engine share. Not for other folders.
#pragma once

#include "core/autograd/autograd.h"

namespace trireme {

struct AutogradMeta : Cached {
  bool requires_grad = false;
  bool is_watched = false;    ///< true for a view that must keep its own history
  Ref<Node> node;             ///< the op that computed this tensor; null for a leaf
  int output = 0;             ///< the index of this tensor among the node's outputs
  Node* leaf_node = nullptr;  ///< not owned: the graphs that reach this leaf own it, and it clears this
  Tensor grad;
  Tensor grad_memory;                ///< memory that set_grad_memory() lent for a leaf's next grad
  std::shared_ptr<Tensor> retained;  ///< the grad of an op's result, if retain_grad() was called for it
  GradientHooks hooks;               ///< hooks on a leaf's gradient; a node keeps those of its outputs
  Hooks<void(const Tensor&)> post_accumulate_hooks;  ///< are called with the leaf itself
};

AutogradMeta& meta_of(TensorImpl& t);

/// Makes the tensor output `output` of `node`.
void set_node(AutogradMeta& meta, Ref<Node> node, int output);

/// Returns the edge that gradients of t flow to. Its node is null if t does not require grad.
Edge gradient_edge(const Tensor& t);

/// Returns a node that applies an in-place op `fn` over `view` as an op over the view's base. The caller adds
/// the node's inputs.
Ref<Node> copy_slices(const Tensor& base, const Tensor& view, Ref<Node> fn);

/// Returns true if this handle is the only user of the tensor's memory, nobody lent the memory, and grad mode
/// is off. A backward pass may then change the tensor in place.
bool is_scratch(const Tensor& t);

/// Gives a view a new history, which starts from its base, if the base was changed in place after the view's
/// history was recorded. Throws if the view must keep its own history.
void follow_base(TensorImpl& view);

/// Returns a new handle on t's memory, recorded as the result of an op that does nothing.
Tensor renamed(const Tensor& t);

/// Returns a + b, recorded if grad mode is on. Both must have the same shape and dtype. It may add to a in
/// place.
Tensor sum_of_gradients(const Tensor& a, const Tensor& b);

bool detecting_anomaly();
/// Throws Error(kNonFinite) if t holds a NaN. The message names `op`, and `what` describes t.
void check_no_nan(const Tensor& t, const char* op, const char* what);
bool has_nan(const Tensor& t);
namespace detail {
/// Throws if a change in place of a view of `base` cannot be recorded.
void check_base(const char* op, const Tensor& base);
}  // namespace detail
/// True if the target of this thread's running in-place op held a NaN before the write. It is set in anomaly
/// mode only.
inline thread_local bool target_had_nan = false;

/// Calls the hooks in order, including hooks that are added during the call, and returns the gradient that
/// they leave.
Tensor run_hooks(const GradientHooks& hooks, Tensor gradient);

}  // namespace trireme
