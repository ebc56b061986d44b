// The graph that backward runs over: nodes (recorded operations) and edges to the nodes of their inputs.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/autograd/hooks.h"
#include "core/tensor/tensor.h"

namespace trireme {

class Node;

/// Tells whether ops choose their compute type themselves, and the 16-bit type that they choose (see
/// core/amp).
struct AutocastMode {
  bool on = false;
  DType low = DType::kBFloat16;
};
/// The autocast mode of this thread. Backward passes run with it off: a gradient has the dtype of its tensor.
inline thread_local constinit AutocastMode autocast_mode;

/// Sets this thread's autocast mode during its lifetime.
class AutocastScope {
 public:
  explicit AutocastScope(AutocastMode mode) : before_(std::exchange(autocast_mode, mode)) {}
  ~AutocastScope() { autocast_mode = before_; }
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  AutocastMode before_;
};

/// A function that is called with a gradient. If it returns a defined tensor, that replaces the gradient.
using GradientHook = std::function<Tensor(const Tensor&)>;
using GradientHooks = Hooks<Tensor(const Tensor&)>;

/// A reference to output `output` of `node`. The node is null if the tensor does not require grad.
struct Edge {
  Ref<Node> node;
  int output = 0;
};

/// The saved tensors of a part of the graph that recompute() made. They are computed again when backward
/// first reads one. The nodes of that part share ownership of the frame.
class SavedFrame : public RefCounted {
 public:
  SavedFrame(std::function<Tensor(const std::vector<Tensor>&)> fn, const std::vector<Tensor>& inputs);
  /// Returns the frame that tensors saved on this thread go to at present, or null.
  static SavedFrame* opened();
  Tensor run(const std::vector<Tensor>& inputs);
  /// Adds a tensor that an op saves and returns its index for get().
  std::size_t save(const Tensor& tensor);
  Tensor get(std::size_t index);
  /// Returns the version that tensor `index` had when it was saved.
  std::uint32_t version(std::size_t index) const { return saved_versions_[index]; }

 private:
  void compute_again();
  std::function<Tensor(const std::vector<Tensor>&)> fn_;
  std::vector<Tensor> inputs_, tensors_;
  std::vector<std::uint32_t> versions_, saved_versions_;
  std::vector<bool> wanted_;
  AutocastMode autocast_ = autocast_mode;         ///< the mode of the first run, used for the second, too
  std::vector<std::pair<Shape, DType>> layouts_;  ///< shapes and dtypes of what the first run saved
  bool computing_ = false;
};

/// A tensor that an op saves for backward, with its version. Reading it after an in-place change throws an
/// error that names the op that saved it and the op that changed it. An undefined tensor stays undefined.
class Saved {
 public:
  Saved() = default;
  /// Saves an input of the op. Its history is kept as an edge, because keeping the tensor itself would make a
  /// reference cycle if the op's result is later copied into it.
  Saved(const Tensor& tensor);
  /// Saves output `index` of the op, without its history, so that there is no reference cycle.
  static Saved output(const Tensor& out, int index = 0) {
    Saved saved(out.detach());
    saved.output_ = index;
    return saved;
  }

 private:
  friend class Backward;
  Tensor tensor_;
  Edge history_;
  Ref<SavedFrame> frame_;  ///< null, or the frame that holds the tensor instead, at `index_`
  std::size_t index_ = 0;
  std::uint32_t version_ = 0;
  int output_ = -1;  ///< the index of the op's output, or -1 for another tensor
};

/// The argument of a backward closure: it reads the gradients of the op's outputs and sets those of the
/// inputs.
class Backward {
 public:
  Backward(Node& node, Tensor gradient) : grad(std::move(gradient)), node_(node) {}
  /// d(loss)/d(output 0), of that output's shape. It can be undefined only if the op has several outputs.
  const Tensor grad;
  /// Returns d(loss)/d(output i), undefined if no gradient reached that output.
  Tensor gradient(int i) const;
  std::size_t inputs() const;
  /// Returns true if the pass needs the gradient of input i.
  bool needs(int i) const;
  /// Sets the gradient of input i, which must have the input's shape and dtype. A closure that does not call
  /// it contributes nothing to that input.
  void set(int i, Tensor gradient);
  /// Returns the sum of the gradients that other ops have set for input i so far, if this op may add to it in
  /// place, else null.
  const Tensor* gathered(int i) const;
  /// Returns the row-major memory that set_grad_memory() lent for the gradient of input i, or an undefined
  /// tensor if there is none or other ops contribute to that gradient. A closure that writes to it must pass
  /// the same tensor to set().
  Tensor memory_for(int i) const;
  /// Returns a saved tensor. Throws if it has been changed in place since it was saved.
  Tensor get(const Saved& saved) const;

 private:
  friend class Engine;
  friend class CopySlices;
  Node& node_;
  std::vector<Tensor> others_;  ///< gradients of outputs 1, 2, ...
  std::vector<Tensor> gradients_;
  bool into_leaves_ = false;  ///< true if the pass accumulates gradients into leaves
};

/// A node's data about one of its outputs.
struct NodeOutput {
  Shape shape;
  DType dtype = DType::kFloat32;
  GradientHooks hooks;
  std::shared_ptr<Tensor> retained;  ///< accumulates the gradient for Tensor::retain_grad(), or null
  Tensor incoming;                   ///< the gradient that the running pass has accumulated so far
};

/// One recorded operation.
class Node : public RefCounted {
 public:
  explicit Node(const char* op);
  virtual ~Node();
  /// Computes the gradients of the inputs. It is called at most once unless the graph is retained.
  virtual void apply(Backward& backward) = 0;
  /// Frees the saved tensors.
  virtual void release_saved() = 0;
  /// Returns the hooks that run on the gradient of output i before anything else uses it.
  virtual const GradientHooks& hooks(int i) { return output(i).hooks; }
  /// Returns the memory that set_grad_memory() lent for a leaf's gradient, and forgets it. Returns an
  /// undefined tensor for other nodes and if there is no such memory.
  virtual Tensor take_memory() { return {}; }

  NodeOutput& output(int i) { return i == 0 ? first_ : others_[static_cast<std::size_t>(i - 1)]; }
  int outputs() const { return 1 + static_cast<int>(others_.size()); }
  void set_outputs(int count) { others_.resize(static_cast<std::size_t>(count - 1)); }

  const char* const op;
  const std::uint64_t sequence;  ///< later operations have larger numbers
  std::vector<Edge, CachedAllocator<Edge>> inputs;
  bool is_leaf = false;  ///< true if the node accumulates into a leaf's grad

 private:
  friend class Engine;
  friend class Backward;
  friend void release_later(std::span<Edge> edges);
  Node* next_released_ = nullptr;
  NodeOutput first_;
  std::vector<NodeOutput> others_;
  // The members below belong to the backward pass with the number `visit_`.
  std::uint64_t visit_ = 0;
  int pending_ = 0;
  bool wanted_ = true;  ///< true if the pass needs gradients that reach this node
};

}  // namespace trireme
