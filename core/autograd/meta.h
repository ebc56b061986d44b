// Internals that the recorder, the views and the engine share. Not for other folders.
#pragma once

#include "core/autograd/autograd.h"

namespace trireme {

struct AutogradMeta : Cached {
  bool requires_grad = false;
  bool is_watched = false;    ///< a view that must keep its own history
  Ref<Node> node;             ///< what made this tensor; null for a leaf
  int output = 0;             ///< which output of the node it is
  Node* leaf_node = nullptr;  ///< not owned: the graphs that reach this leaf own it, and it clears this
  Tensor grad;
  Tensor grad_memory;                ///< waits for the next grad of a leaf
  std::shared_ptr<Tensor> retained;  ///< the grad of a result that retain_grad() was called for
  GradientHooks hooks;               ///< of a leaf
  Hooks<void(const Tensor&)> post_accumulate_hooks;  ///< given the leaf itself
};

AutogradMeta& meta_of(TensorImpl& t);

/// From now on the tensor is this output of `node`.
void set_node(AutogradMeta& meta, Ref<Node> node, int output);

/// Where gradients for t go; null if t wants none.
Edge gradient_edge(const Tensor& t);

/// The node of an in-place op `fn` over `view`, as an op over its base. Its inputs are the caller's to add.
Ref<Node> copy_slices(const Tensor& base, const Tensor& view, Ref<Node> fn);

/// Whether nobody else sees this tensor's memory and nobody lent it, so that a backward pass that is not
/// recorded may change it.
bool is_scratch(const Tensor& t);

/// A view whose base was changed in place since gets a history that starts from the base.
void follow_base(TensorImpl& view);

/// The same tensor as the result of an op that does nothing.
Tensor renamed(const Tensor& t);

/// a + b of one shape, recorded if grad mode is on.
Tensor sum_of_gradients(const Tensor& a, const Tensor& b);

bool detecting_anomaly();
/// Throws Error(kNonFinite) if t holds a NaN; `what` names it.
void check_no_nan(const Tensor& t, const char* op, const char* what);
bool has_nan(const Tensor& t);
namespace detail {
/// Throws if a change in place of a view of `base` cannot be recorded.
void check_base(const char* op, const Tensor& base);
}  // namespace detail
/// In anomaly mode: of the target of the in-place op that is under way on this thread, before its write.
inline thread_local bool target_had_nan = false;

/// Calls the hooks in order, those added meanwhile too.
Tensor run_hooks(const GradientHooks& hooks, Tensor gradient);

}  // namespace trireme
