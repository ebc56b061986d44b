// The backward pass: runs nodes from the newest to the oldest, each when all its gradients have arrived.
#include <algorithm>
#include <atomic>
#include <unordered_map>

#include "core/autograd/meta.h"
#include "kernels/table.h"

namespace trireme {

Tensor sum_of_gradients(const Tensor& a, const Tensor& b) {
  TRIREME_CHECK(a.shape() == b.shape() && a.dtype() == b.dtype(),
                "backward: gradients of {} {} and {} {} meet", name_of(a.dtype()), a.shape().to_string(),
                name_of(b.dtype()), b.shape().to_string());
  const Tensor out = Tensor::empty_like(a);
  kernels_of(a.device()).binary(BinaryOp::add, out.view(), a.view(), b.view());
  return record("sum_of_gradients", out, {&a, &b}, [](Backward& backward) {
    backward.set(0, backward.grad);
    backward.set(1, backward.grad);
  });
}

class Engine {
 public:
  Engine(Ref<Node> root, Tensor gradient, BackwardOptions options)
      : root_(std::move(root)), options_(options), visit_(next_visit()) {
    running_.push_back(visit_);
    count_uses();
    root_->incoming_ = std::move(gradient);
  }
  ~Engine() {
    for (Displaced& d : displaced_) {
      d.node->visit_ = d.visit;
      d.node->pending_ = d.pending;
      d.node->incoming_ = std::move(d.incoming);
    }
    running_.pop_back();
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Keeps the gradient that reaches `node`. Keep the node alive.
  void capture(Node* node) { captures_.emplace(node, Tensor()); }
  /// Leaves stay as they are.
  void gather_nothing() { gathers_ = false; }
  Tensor captured(Node* node) const { return captures_.at(node); }

  void run() {
    ready_.push_back(root_.get());
    while (!ready_.empty()) {
      std::pop_heap(ready_.begin(), ready_.end(), runs_later);
      Node* node = ready_.back();
      ready_.pop_back();
      run_node(*node);
    }
  }

 private:
  static std::uint64_t next_visit() {
    static std::atomic<std::uint64_t> visits{0};
    return ++visits;
  }

  /// Leaves first (their gradients can travel while the rest runs), then the newest operation.
  static bool runs_later(const Node* a, const Node* b) {
    if (a->is_leaf != b->is_leaf) return b->is_leaf;
    return a->sequence < b->sequence;
  }

  void count_uses() {
    std::vector<Node*> stack{root_.get()};
    enter(*root_);
    while (!stack.empty()) {
      Node* node = stack.back();
      stack.pop_back();
      for (const Edge& edge : node->inputs) {
        if (!edge.node) continue;
        if (edge.node->visit_ != visit_) {
          enter(*edge.node);
          stack.push_back(edge.node.get());
        }
        ++edge.node->pending_;
      }
    }
  }

  void enter(Node& node) {
    // A hook or closure of a pass that is under way may run another one over the same nodes.
    if (running_.size() > 1 && std::find(running_.begin(), running_.end(), node.visit_) != running_.end())
      displaced_.push_back({Ref<Node>(&node), node.visit_, node.pending_, std::move(node.incoming_)});
    node.visit_ = visit_;
    node.pending_ = 0;
    node.incoming_ = Tensor();
  }

  void run_node(Node& node) {
    Tensor gradient = std::move(node.incoming_);
    node.incoming_ = Tensor();
    if (gradient.defined())
      for (const auto& hook : node.gradient_hooks())
        if (Tensor replaced = hook(gradient); replaced.defined()) gradient = std::move(replaced);
    if (const auto found = captures_.find(&node); found != captures_.end()) found->second = gradient;
    if (node.is_leaf && !gathers_) return;
    // A node that no gradient reached passes none on, but its inputs must not wait for it.
    Backward backward(node, std::move(gradient));
    if (backward.grad.defined()) node.apply(backward);
    if (!options_.retain_graph && !options_.create_graph) node.release_saved();
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      Node* input = node.inputs[i].node.get();
      if (!input) continue;
      if (i < backward.gradients_.size() && backward.gradients_[i].defined())
        deliver(*input, std::move(backward.gradients_[i]));
      if (--input->pending_ == 0) {
        ready_.push_back(input);
        std::push_heap(ready_.begin(), ready_.end(), runs_later);
      }
    }
  }

  static void deliver(Node& node, Tensor gradient) {
    node.incoming_ =
        node.incoming_.defined() ? sum_of_gradients(node.incoming_, gradient) : std::move(gradient);
  }

  /// The state that a node has in a pass that waits for this one.
  struct Displaced {
    Ref<Node> node;
    std::uint64_t visit;
    int pending;
    Tensor incoming;
  };
  static thread_local std::vector<std::uint64_t>
      running_;  // passes under way on this thread, outermost first

  Ref<Node> root_;
  BackwardOptions options_;
  bool gathers_ = true;  // into leaves
  std::vector<Displaced> displaced_;
  std::uint64_t visit_;
  std::vector<Node*> ready_;
  std::unordered_map<Node*, Tensor> captures_;
};

thread_local std::vector<std::uint64_t> Engine::running_;

namespace {

Tensor seed_of(const Tensor& root, const Tensor& gradient) {
  TRIREME_CHECK(root.requires_grad(), "backward: the tensor depends on nothing that wants a gradient");
  if (!gradient.defined()) {
    TRIREME_CHECK(root.numel() == 1,
                  "backward: a root of shape {} needs a gradient; only one element may go without",
                  root.shape().to_string());
    return Tensor::full(root.shape(), 1, root.dtype(), root.device());
  }
  TRIREME_CHECK(gradient.shape() == root.shape() && gradient.dtype() == root.dtype(),
                "backward: root is {} {}, gradient is {} {}", name_of(root.dtype()), root.shape().to_string(),
                name_of(gradient.dtype()), gradient.shape().to_string());
  return gradient;
}

template <class Run>
void with_mode(BackwardOptions options, const Run& run) {
  if (options.create_graph) {
    const EnableGrad on;
    run();
  } else {
    const NoGrad off;
    run();
  }
}

}  // namespace

void backward(const Tensor& root, const Tensor& gradient, BackwardOptions options) {
  const Tensor seed = seed_of(root, gradient);
  with_mode(options, [&] { Engine(gradient_node(root), seed, options).run(); });
}

std::vector<Tensor> grad(const Tensor& root, const std::vector<Tensor>& inputs, const Tensor& gradient,
                         BackwardOptions options) {
  const Tensor seed = seed_of(root, gradient);
  std::vector<Tensor> result(inputs.size());
  with_mode(options, [&] {
    std::vector<Ref<Node>> nodes;
    Engine engine(gradient_node(root), seed, options);
    engine.gather_nothing();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      TRIREME_CHECK(inputs[i].requires_grad(), "grad: input {} wants no gradient", i);
      nodes.push_back(gradient_node(inputs[i]));
      engine.capture(nodes.back().get());
    }
    engine.run();
    for (std::size_t i = 0; i < inputs.size(); ++i) result[i] = engine.captured(nodes[i].get());
  });
  return result;
}

}  // namespace trireme
