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

/// Whether ops choose the type they compute in by themselves, and the small one (see core/amp).
struct AutocastMode {
  bool on = false;
  DType low = DType::kBFloat16;
};
/// Of this thread. Backward runs without: gradients have the types of what they belong to.
inline thread_local constinit AutocastMode autocast_mode;

/// While alive, the mode is another one on this thread.
class AutocastScope {
 public:
  explicit AutocastScope(AutocastMode mode) : before_(std::exchange(autocast_mode, mode)) {}
  ~AutocastScope() { autocast_mode = before_; }
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  AutocastMode before_;
};

/// Sees a gradient; a defined result replaces it.
using GradientHook = std::function<Tensor(const Tensor&)>;
using GradientHooks = Hooks<Tensor(const Tensor&)>;

/// Output `output` of `node`; null where no gradient is wanted.
struct Edge {
  Ref<Node> node;
  int output = 0;
};

/// A stretch of the graph whose saved tensors are computed again when backward first asks for one. Its nodes
/// own it together.
class SavedFrame : public RefCounted {
 public:
  SavedFrame(std::function<Tensor(const std::vector<Tensor>&)> fn, const std::vector<Tensor>& inputs);
  /// The frame that takes what is saved on this thread now, or null.
  static SavedFrame* opened();
  Tensor run(const std::vector<Tensor>& inputs);
  /// The number that the tensor will be had under.
  std::size_t save(const Tensor& tensor);
  Tensor get(std::size_t index);
  /// Of tensor `index` when it was saved.
  std::uint32_t version(std::size_t index) const { return saved_versions_[index]; }

 private:
  void compute_again();
  std::function<Tensor(const std::vector<Tensor>&)> fn_;
  std::vector<Tensor> inputs_, tensors_;
  std::vector<std::uint32_t> versions_, saved_versions_;
  std::vector<bool> wanted_;
  AutocastMode autocast_ = autocast_mode;         ///< of the first run; the second must do the same
  std::vector<std::pair<Shape, DType>> layouts_;  ///< of what the first run saved
  bool computing_ = false;
};

/// A tensor kept for backward, with the version it had. Reading it after an in-place change is an error that
/// names the op that saved it and the op that changed it. An undefined tensor stays undefined.
class Saved {
 public:
  Saved() = default;
  /// An input of the op. Its history is kept as an edge: keeping the tensor would make a cycle when the op's
  /// result is later copied into it.
  Saved(const Tensor& tensor);
  /// The op's own output number `index`: kept without its history, so that no cycle arises.
  static Saved output(const Tensor& out, int index = 0) {
    Saved saved(out.detach());
    saved.output_ = index;
    return saved;
  }

 private:
  friend class Backward;
  Tensor tensor_;
  Edge history_;
  Ref<SavedFrame> frame_;  ///< has the tensor instead, under number `index_`
  std::size_t index_ = 0;
  std::uint32_t version_ = 0;
  int output_ = -1;  ///< >= 0: which output of the op this is
};

/// What a backward closure works with.
class Backward {
 public:
  Backward(Node& node, Tensor gradient) : grad(std::move(gradient)), node_(node) {}
  const Tensor grad;  ///< d(loss)/d(output 0), its shape; undefined only if the op has several outputs
  /// d(loss)/d(output i), undefined where none arrived.
  Tensor gradient(int i) const;
  std::size_t inputs() const;
  /// Whether input i wants a gradient.
  bool needs(int i) const;
  /// Hands over the gradient of input i (its shape and dtype); skip it to contribute nothing.
  void set(int i, Tensor gradient);
  /// What other ops have handed over for input i so far, if this op may add to it in place; else null.
  const Tensor* gathered(int i) const;
  /// Memory that waits for the gradient of input i (see set_grad_memory()), if this op's part is all of it;
  /// else undefined. It is row-major. Whoever writes there hands the same tensor to set().
  Tensor memory_for(int i) const;
  /// The tensor that was saved; throws if it was changed in place since.
  Tensor get(const Saved& saved) const;

 private:
  friend class Engine;
  friend class CopySlices;
  Node& node_;
  std::vector<Tensor> others_;  ///< gradients of outputs 1...
  std::vector<Tensor> gradients_;
  bool into_leaves_ = false;  ///< the pass gathers gradients into leaves
};

/// What a node knows of one of its outputs.
struct NodeOutput {
  Shape shape;
  DType dtype = DType::kFloat32;
  GradientHooks hooks;
  std::shared_ptr<Tensor> retained;  ///< gathers the gradient for Tensor::retain_grad()
  Tensor incoming;                   ///< the gradient gathered by the pass under way
};

/// One recorded operation.
class Node : public RefCounted {
 public:
  explicit Node(const char* op);
  virtual ~Node();
  /// Computes the gradients of the inputs. Called at most once unless the graph is retained.
  virtual void apply(Backward& backward) = 0;
  /// Frees what was saved.
  virtual void release_saved() = 0;
  /// What sees and may replace the gradient of output i first.
  virtual const GradientHooks& hooks(int i) { return output(i).hooks; }
  /// Of a leaf: the memory that waits for its gradient, once.
  virtual Tensor take_memory() { return {}; }

  NodeOutput& output(int i) { return i == 0 ? first_ : others_[static_cast<std::size_t>(i - 1)]; }
  int outputs() const { return 1 + static_cast<int>(others_.size()); }
  void set_outputs(int count) { others_.resize(static_cast<std::size_t>(count - 1)); }

  const char* const op;
  const std::uint64_t sequence;  ///< later operations have larger numbers
  std::vector<Edge, CachedAllocator<Edge>> inputs;
  bool is_leaf = false;  ///< gathers into a leaf's grad

 private:
  friend class Engine;
  friend class Backward;
  friend void release_later(std::span<Edge> edges);
  Node* next_released_ = nullptr;
  NodeOutput first_;
  std::vector<NodeOutput> others_;
  // What follows belongs to the backward pass `visit_`.
  std::uint64_t visit_ = 0;
  int pending_ = 0;
  bool wanted_ = true;  ///< lies on a way to what the pass asks for
};

}  // namespace trireme
