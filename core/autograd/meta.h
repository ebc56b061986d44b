// Internals that the recorder and the engine share. Not for other folders.
#pragma once

#include "core/autograd/autograd.h"

namespace trireme {

struct AutogradMeta {
  bool requires_grad = false;
  Ref<Node> node;             ///< what made this tensor; null for a leaf
  Node* leaf_node = nullptr;  ///< not owned: the graphs that reach this leaf own it, and it clears this
  Tensor grad;
  std::vector<std::function<Tensor(const Tensor&)>> hooks;
  std::vector<std::function<void(const Tensor&)>> post_accumulate_hooks;
};

/// The node that takes gradients for t; null if t wants none.
Ref<Node> gradient_node(const Tensor& t);

/// a + b of one shape, recorded if grad mode is on.
Tensor sum_of_gradients(const Tensor& a, const Tensor& b);

}  // namespace trireme
