// The backward pass: runs nodes from the newest to the oldest, each when all its gradients have arrived.
#include <algorithm>
#include <atomic>
#include <unordered_map>

#include "core/autograd/meta.h"
#include "core/base/progress.h"
#include "core/tensor/observer.h"

namespace trireme {

Tensor sum_of_gradients(const Tensor& a, const Tensor& b) {
  TRIREME_CHECK(a.shape() == b.shape() && a.dtype() == b.dtype(),
                "backward: gradients of {} {} and {} {} meet", name_of(a.dtype()), a.shape().to_string(),
                name_of(b.dtype()), b.shape().to_string());
  const Tensor out = is_scratch(a) ? a : Tensor::empty_like(a);
  kernels_for(a.device()).binary(BinaryOp::add, out.view(), a.view(), b.view());
  return record("sum_of_gradients", out, {&a, &b}, [](Backward& backward) {
    backward.set(0, backward.grad);
    backward.set(1, backward.grad);
  });
}

/// The root of a backward pass. Its inputs are the tensors that the pass starts from.
class RootNode final : public Node {
 public:
  RootNode(const std::vector<Tensor>& roots, std::vector<Tensor> seeds)
      : Node("backward"), seeds_(std::move(seeds)) {
    for (const Tensor& root : roots) inputs.push_back(gradient_edge(root));
  }
  void release_saved() override {}
  void apply(Backward& backward) override {
    for (std::size_t i = 0; i < seeds_.size(); ++i) backward.set(static_cast<int>(i), seeds_[i]);
  }

 private:
  std::vector<Tensor> seeds_;
};

Tensor renamed(const Tensor& t) {
  return record("input", t.detach(), {&t}, [](Backward& g) { g.set(0, g.grad); });
}

/// Tells the observer which node runs during the lifetime of this object.
class Observed {
 public:
  explicit Observed(const char* op) : by_(observer) {
    if (by_) by_->backward_begins(op);
  }
  ~Observed() {
    if (by_ && by_ == observer) by_->backward_ends();
  }
  Observed(const Observed&) = delete;
  Observed& operator=(const Observed&) = delete;

 private:
  Observer* by_;  // the observer at the start: a hook may begin or end a profile
};

class Engine {
 public:
  Engine(Ref<Node> root, BackwardOptions options)
      : root_(std::move(root)), options_(options), visit_(next_visit()) {
    running_.push_back(visit_);
  }
  ~Engine() {
    for (Displaced& d : displaced_) {
      d.node->visit_ = d.visit;
      d.node->pending_ = d.pending;
      d.node->wanted_ = d.wanted;
      for (int i = 0; i < d.node->outputs(); ++i)
        d.node->output(i).incoming = std::move(d.incoming[static_cast<std::size_t>(i)]);
    }
    running_.pop_back();
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Keeps the gradient that reaches an output of a node instead of gathering any into leaves, and runs
  /// only what that needs. Keep the node alive.
  void capture(const Edge& edge) { captures_[edge.node.get()].emplace(edge.output, Tensor()); }
  Tensor captured(const Edge& edge) const { return captures_.at(edge.node.get()).at(edge.output); }

  void run() {
    count_uses();
    root_->output(0).incoming = Tensor::scalar(1);
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

  /// Orders ready nodes: leaves first, so that their gradients can be reduced while the rest runs, then the
  /// newest operation.
  static bool runs_later(const Node* a, const Node* b) {
    if (a->is_leaf != b->is_leaf) return b->is_leaf;
    return a->sequence < b->sequence;
  }

  /// Counts how many gradients each node waits for. It walks depth first with an explicit stack, because a
  /// graph may be a million nodes deep.
  void count_uses() {
    struct Frame {
      Node* node;
      std::size_t next;
    };
    std::vector<Frame> stack;
    const auto visit = [&](Node& node) {
      enter(node);
      stack.push_back({&node, 0});
    };
    visit(*root_);
    while (!stack.empty()) {
      Frame& top = stack.back();
      const bool stops = options_.partial && captures_.contains(top.node);
      if (!stops && top.next < top.node->inputs.size()) {
        Node* input = top.node->inputs[top.next++].node.get();
        if (!input) continue;
        const bool is_new = input->visit_ != visit_;
        if (is_new) visit(*input);  // invalidates `top`
        ++input->pending_;
        continue;
      }
      Node& node = *top.node;
      node.wanted_ = captures_.empty() || captures_.contains(&node) || leads_on(node);
      stack.pop_back();
    }
  }

  /// Returns true if the pass needs the gradient of an input of the node.
  static bool leads_on(const Node& node) {
    return std::any_of(node.inputs.begin(), node.inputs.end(),
                       [](const Edge& edge) { return edge.node && edge.node->wanted_; });
  }

  void enter(Node& node) {
    // A hook or closure may run a backward pass over nodes of a pass that has not ended.
    const bool displaces =
        running_.size() > 1 && std::find(running_.begin(), running_.end(), node.visit_) != running_.end();
    Displaced before{Ref<Node>(&node), node.visit_, node.pending_, node.wanted_, {}};
    for (int i = 0; i < node.outputs(); ++i) {
      if (displaces) before.incoming.push_back(std::move(node.output(i).incoming));
      node.output(i).incoming = Tensor();
    }
    if (displaces) displaced_.push_back(std::move(before));
    node.visit_ = visit_;
    node.pending_ = 0;
  }

  void run_node(Node& node) {
    note_progress();
    const Observed observed(node.op);
    Backward backward = take_incoming(node);
    if (node.is_leaf && !captures_.empty()) return;
    // A node that no gradient reached does not run, but it still counts as done for its inputs.
    if (options_.partial && captures_.contains(&node)) return;
    const bool reached = backward.grad.defined() || !backward.others_.empty();
    if (reached && (node.is_leaf || leads_on(node))) {
      const bool may_blame = detecting_anomaly() && &node != root_.get() && !has_nan(backward.grad) &&
                             std::ranges::none_of(backward.others_, has_nan);
      node.apply(backward);
      if (may_blame)
        for (const Tensor& gradient : backward.gradients_)
          if (gradient.defined()) check_no_nan(gradient, node.op, "its backward");
      if (!options_.retain_graph && !options_.create_graph) node.release_saved();
    }
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const Edge& edge = node.inputs[i];
      if (!edge.node) continue;
      if (i < backward.gradients_.size() && backward.gradients_[i].defined())
        deliver(edge, std::move(backward.gradients_[i]), node.op);
      if (--edge.node->pending_ == 0) {
        ready_.push_back(edge.node.get());
        std::push_heap(ready_.begin(), ready_.end(), runs_later);
      }
    }
  }

  /// Takes the gradients of a node's outputs, runs their hooks, and stores those that retain_grad() or grad()
  /// asked for.
  Backward take_incoming(Node& node) {
    std::vector<Tensor> gradients(static_cast<std::size_t>(node.outputs()));
    const auto wanted = captures_.find(&node);
    bool any = false;
    for (int i = 0; i < node.outputs(); ++i) {
      Tensor& gradient = gradients[static_cast<std::size_t>(i)];
      gradient = std::exchange(node.output(i).incoming, Tensor());
      if (gradient.defined() && !node.hooks(i).empty()) {
        gradient = run_hooks(node.hooks(i), std::move(gradient));
        check(node, i, gradient, "a hook");
      }
      if (gradient.defined() && node.output(i).retained && captures_.empty())
        retain(*node.output(i).retained, gradient);
      any = any || gradient.defined();
      if (wanted == captures_.end()) continue;
      if (const auto found = wanted->second.find(i); found != wanted->second.end()) found->second = gradient;
    }
    Backward backward(node, std::move(gradients[0]));
    backward.into_leaves_ = captures_.empty();
    if (any && gradients.size() > 1) {
      gradients.erase(gradients.begin());
      backward.others_ = std::move(gradients);
    }
    return backward;
  }

  static void retain(Tensor& grad, const Tensor& gradient) {
    grad = grad.defined() ? sum_of_gradients(grad, gradient) : gradient.clone();
  }

  static void check(Node& to, int output, const Tensor& gradient, const char* from) {
    const NodeOutput& made = to.output(output);
    TRIREME_CHECK(gradient.shape() == made.shape && gradient.dtype() == made.dtype,
                  "backward: {} hands a gradient of {} {} to {}, whose result is {} {}", from,
                  name_of(gradient.dtype()), gradient.shape().to_string(), to.op, name_of(made.dtype),
                  made.shape.to_string());
  }

  static void deliver(const Edge& edge, Tensor gradient, const char* from) {
    check(*edge.node, edge.output, gradient, from);
    Tensor& incoming = edge.node->output(edge.output).incoming;
    if (!incoming.defined()) {
      incoming = std::move(gradient);
      return;
    }
    const bool may_blame = detecting_anomaly() && !has_nan(incoming) && !has_nan(gradient);
    incoming = sum_of_gradients(incoming, gradient);
    if (may_blame) check_no_nan(incoming, from, "the sum of its gradient and another op's");
  }

  /// The state of a node in an outer pass, which is restored when this pass ends.
  struct Displaced {
    Ref<Node> node;
    std::uint64_t visit;
    int pending;
    bool wanted;
    std::vector<Tensor> incoming;
  };
  static thread_local std::vector<std::uint64_t>
      running_;  // passes that have not ended on this thread, outermost first

  Ref<Node> root_;
  BackwardOptions options_;
  std::vector<Displaced> displaced_;
  std::uint64_t visit_;
  std::vector<Node*> ready_;
  std::unordered_map<Node*, std::unordered_map<int, Tensor>> captures_;
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

std::vector<Tensor> seeds_of(const std::vector<Tensor>& roots, const std::vector<Tensor>& gradients) {
  TRIREME_CHECK(!roots.empty(), "backward: no roots");
  TRIREME_CHECK(gradients.empty() || gradients.size() == roots.size(), "backward: {} roots, {} gradients",
                roots.size(), gradients.size());
  std::vector<Tensor> seeds;
  for (std::size_t i = 0; i < roots.size(); ++i)
    seeds.push_back(seed_of(roots[i], gradients.empty() ? Tensor() : gradients[i]));
  return seeds;
}

template <class Run>
void with_mode(BackwardOptions options, const Run& run) {
  const AutocastScope as_they_are({});
  if (options.create_graph) {
    const EnableGrad on;
    run();
  } else {
    const NoGrad off;
    run();
  }
}

}  // namespace

void backward(const std::vector<Tensor>& roots, const std::vector<Tensor>& gradients,
              BackwardOptions options) {
  const Ref<Node> root(new RootNode(roots, seeds_of(roots, gradients)));
  with_mode(options, [&] { Engine(root, options).run(); });
}

void backward(const Tensor& root, const Tensor& gradient, BackwardOptions options) {
  backward(std::vector{root}, std::vector{gradient}, options);
}

std::vector<Tensor> grad(const std::vector<Tensor>& roots, const std::vector<Tensor>& inputs,
                         const std::vector<Tensor>& gradients, BackwardOptions options) {
  if (inputs.empty()) return {};
  const Ref<Node> root(new RootNode(roots, seeds_of(roots, gradients)));
  std::vector<Tensor> result;
  with_mode(options, [&] {
    std::vector<Edge> edges;
    Engine engine(root, options);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      TRIREME_CHECK(inputs[i].requires_grad(), "grad: input {} wants no gradient", i);
      edges.push_back(gradient_edge(inputs[i]));
      engine.capture(edges.back());
    }
    engine.run();
    for (const Edge& edge : edges) result.push_back(engine.captured(edge));
  });
  return result;
}

std::vector<Tensor> grad(const Tensor& root, const std::vector<Tensor>& inputs, const Tensor& gradient,
                         BackwardOptions options) {
  return grad(std::vector{root}, inputs, std::vector{gradient}, options);
}

void differentiate_unfused(Backward& backward, const std::vector<Tensor>& inputs,
                           const std::function<Tensor(const std::vector<Tensor>&)>& unfused) {
  // Each input gets a tensor of its own, so that a tensor given as two inputs gets each gradient once.
  std::vector<Tensor> own, wanted;
  std::vector<int> numbers;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& in = inputs[i];
    own.push_back(in.defined() ? in.detach() : in);
    if (!in.defined() || !backward.needs(static_cast<int>(i))) continue;
    if (in.requires_grad())
      own.back() = renamed(in);
    else
      own.back().set_requires_grad(true);  // its value does not matter for the gradient
    wanted.push_back(own.back());
    numbers.push_back(static_cast<int>(i));
  }
  const auto gradients = grad(unfused(own), wanted, backward.grad, {.create_graph = true, .partial = true});
  for (std::size_t i = 0; i < numbers.size(); ++i) backward.set(numbers[i], gradients[i]);
}

namespace {

/// Returns the index of the first NaN in row-major order, or -1.
std::int64_t first_nan(const Tensor& t) {
  if (!t.defined() || !is_floating(t.dtype())) return -1;
  const std::vector<double> values = t.to_vector<double>();
  const auto found = std::ranges::find_if(values, [](double v) { return v != v; });
  return found == values.end() ? -1 : found - values.begin();
}

}  // namespace

bool has_nan(const Tensor& t) { return first_nan(t) >= 0; }

void check_no_nan(const Tensor& t, const char* op, const char* what) {
  if (const std::int64_t at = first_nan(t); at >= 0)
    fail(ExitCode::kNonFinite, "{}: {} (shape {}) has a NaN at element {}", op, what, t.shape().to_string(),
         at);
}

}  // namespace trireme
