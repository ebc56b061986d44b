// Reverse-mode differentiation, recorded while the program runs.
//
// An op that wants a gradient calls record() with a closure that maps the gradient of its output to
// gradients of its inputs; the closure stands next to the op's forward code. Recording and backward
// are per thread: build a graph and run it on one thread.
#pragma once

#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

#include "core/tensor/tensor.h"

namespace trireme {

class Node;

/// A tensor kept for backward, with the version it had. Reading it after an in-place change is an error that
/// names the op that saved it and the op that changed it.
class Saved {
 public:
  Saved() = default;
  /// An input of the op.
  Saved(const Tensor& tensor) : tensor_(tensor), version_(tensor.version()) {}
  /// The op's own output: kept without its history, so that no cycle arises.
  static Saved output(const Tensor& out) {
    Saved saved(out.detach());
    saved.is_output_ = true;
    return saved;
  }

 private:
  friend class Backward;
  Tensor tensor_;
  std::uint32_t version_ = 0;
  bool is_output_ = false;
};

/// What a backward closure works with.
class Backward {
 public:
  Backward(Node& node, Tensor gradient) : grad(std::move(gradient)), node_(node) {}
  const Tensor grad;  ///< d(loss)/d(output), shape of the output
  /// Whether input i wants a gradient.
  bool needs(int i) const;
  /// Hands over the gradient of input i (its shape); skip it to contribute nothing.
  void set(int i, Tensor gradient);
  /// The tensor that was saved; throws if it was changed in place since.
  Tensor get(const Saved& saved) const;
  /// For ops whose backward is no composition of ops: throws if the backward pass itself is being recorded.
  void once_only() const;

 private:
  friend class Engine;
  Node& node_;
  std::vector<Tensor> gradients_;
};

struct Edge {
  Ref<Node> node;  ///< null where no gradient is wanted
};

/// One recorded operation with one output.
class Node : public RefCounted {
 public:
  explicit Node(const char* op);
  virtual ~Node();
  /// Computes the gradients of the inputs. Called at most once unless the graph is retained.
  virtual void apply(Backward& backward) = 0;
  /// Frees what was saved.
  virtual void release_saved() = 0;
  /// What sees and may replace the output's gradient first.
  virtual const std::vector<std::function<Tensor(const Tensor&)>>& gradient_hooks() const { return hooks; }

  const char* const op;
  const std::uint64_t sequence;  ///< later operations have larger numbers
  std::vector<Edge> inputs;
  std::vector<std::function<Tensor(const Tensor&)>> hooks;  ///< of the output's gradient, in order
  bool is_leaf = false;                                     ///< gathers into a leaf's grad

 private:
  friend class Engine;
  std::uint64_t visit_ = 0;  // the backward pass that the two below belong to
  int pending_ = 0;
  Tensor incoming_;
};

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

void attach(const Tensor& out, std::span<const Tensor* const> inputs, Ref<Node> node);

}  // namespace detail

/// Makes `out` the recorded result of `op` over `inputs`, if recording(inputs). `op` must be a string
/// literal. fn(Backward&) computes the inputs' gradients from ops, so that it can itself be differentiated.
template <class Fn>
Tensor record(const char* op, Tensor out, std::span<const Tensor* const> inputs, Fn&& fn) {
  if (recording(inputs))
    detail::attach(out, inputs,
                   Ref<Node>(new detail::ClosureNode<std::decay_t<Fn>>(op, std::forward<Fn>(fn))));
  return out;
}

template <class Fn>
Tensor record(const char* op, Tensor out, std::initializer_list<const Tensor*> inputs, Fn&& fn) {
  return record(op, std::move(out), std::span(inputs.begin(), inputs.size()), std::forward<Fn>(fn));
}

/// Guards an in-place op over `target` with other inputs: throws if it would lose a gradient (a leaf that
/// wants one, or a view while recording). Call before the write; bump the version after it.
void check_in_place(const char* op, const Tensor& target, std::initializer_list<const Tensor*> others);

struct BackwardOptions {
  bool retain_graph = false;  ///< keep what was saved, so that backward can run again
  bool create_graph = false;  ///< record the backward pass itself; implies retain_graph
};

/// Adds gradients of `root` to the grad of every leaf it depends on. `gradient` has root's shape; undefined
/// means 1 for a root of one element.
void backward(const Tensor& root, const Tensor& gradient = {}, BackwardOptions options = {});

/// d(root)/d(input) for each input, undefined where root does not depend on it; leaves' grads stay as they
/// are.
std::vector<Tensor> grad(const Tensor& root, const std::vector<Tensor>& inputs, const Tensor& gradient = {},
                         BackwardOptions options = {});

/// Calls `hook` with each gradient of t as it is known; a defined result replaces it.
void register_hook(const Tensor& t, std::function<Tensor(const Tensor&)> hook);
/// Calls `hook` each time a backward pass has finished leaf t's grad. Once per pass, even if t is used
/// several times.
void register_post_accumulate_hook(const Tensor& t, std::function<void(const Tensor&)> hook);

}  // namespace trireme
