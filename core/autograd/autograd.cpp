#include "core/autograd/autograd.h"

#include <algorithm>
#include <atomic>

#include "core/autograd/meta.h"

namespace trireme {

namespace {

thread_local bool grad_mode = true;

std::uint64_t next_sequence() {
  thread_local std::uint64_t sequence = 0;
  return ++sequence;
}

/// Releases nodes one by one instead of recursively, so that a graph of a million nodes needs no deep stack.
void release_later(std::span<Edge> edges) {
  // A plain pointer, so that tensors with static storage may still come here after a thread's own variables
  // are gone.
  thread_local std::vector<Ref<Node>>* waiting = nullptr;
  std::vector<Ref<Node>> mine;
  const bool outermost = waiting == nullptr;
  for (Edge& edge : edges) {
    if (!edge.node) continue;
    if (edge.node->use_count() > 1)
      edge.node = nullptr;  // others keep it: nothing will be destroyed
    else
      (outermost ? mine : *waiting).push_back(std::move(edge.node));
  }
  if (!outermost || mine.empty()) return;
  waiting = &mine;
  while (!mine.empty()) {
    const Ref<Node> last = std::move(mine.back());
    mine.pop_back();
  }
  waiting = nullptr;
}

AutogradMeta& meta_of(const Tensor& t) {
  if (!t.impl()->autograd) t.impl()->autograd = new AutogradMeta;
  return *t.impl()->autograd;
}

/// Gathers gradients into a leaf's grad.
class LeafNode final : public Node {
 public:
  explicit LeafNode(Tensor leaf) : Node("leaf"), leaf_(std::move(leaf)) { is_leaf = true; }
  ~LeafNode() override { leaf_.impl()->autograd->leaf_node = nullptr; }
  void release_saved() override {}
  const std::vector<std::function<Tensor(const Tensor&)>>& gradient_hooks() const override {
    return leaf_.impl()->autograd->hooks;
  }
  void apply(Backward& backward) override {
    AutogradMeta& meta = *leaf_.impl()->autograd;
    const Tensor& gradient = backward.grad;
    TRIREME_CHECK(gradient.shape() == leaf_.shape() && gradient.dtype() == leaf_.dtype(),
                  "backward: a leaf of {} {} got a gradient of {} {}", name_of(leaf_.dtype()),
                  leaf_.shape().to_string(), name_of(gradient.dtype()), gradient.shape().to_string());
    if (meta.grad.defined())
      meta.grad = sum_of_gradients(meta.grad, gradient);
    else
      meta.grad = grad_enabled() ? gradient : own(gradient);
    for (const auto& hook : meta.post_accumulate_hooks) hook(leaf_);
  }

 private:
  /// The gradient in memory that nothing else shares, laid out as the leaf, so that it may be changed in
  /// place.
  Tensor own(const Tensor& gradient) const {
    const bool alone = gradient.impl()->use_count() == 1 && gradient.impl()->storage->use_count() == 1;
    const bool alike =
        gradient.strides() == leaf_.strides() || (gradient.is_contiguous() && leaf_.is_contiguous());
    if (alone && alike) return gradient.detach();
    const Tensor copy = Tensor::empty_like(leaf_);
    copy_into(copy, gradient);
    return copy;
  }

  Tensor leaf_;
};

/// The node that takes gradients for t; null if t wants none.
Ref<Node> node_of(const Tensor& t) {
  AutogradMeta* meta = t.impl()->autograd;
  if (!meta || !meta->requires_grad) return nullptr;
  if (meta->node) return meta->node;
  if (!meta->leaf_node) meta->leaf_node = new LeafNode(t);
  return Ref<Node>(meta->leaf_node);
}

}  // namespace

Node::Node(const char* name) : op(name), sequence(next_sequence()) {}
Node::~Node() { release_later(inputs); }

TensorImpl::~TensorImpl() {
  if (!autograd) return;
  Edge last{std::move(autograd->node)};
  delete autograd;
  autograd = nullptr;
  release_later({&last, 1});
}

bool Backward::needs(int i) const {
  return static_cast<bool>(node_.inputs[static_cast<std::size_t>(i)].node);
}

void Backward::set(int i, Tensor gradient) {
  if (!needs(i)) return;
  if (gradients_.empty()) gradients_.resize(node_.inputs.size());
  gradients_[static_cast<std::size_t>(i)] = std::move(gradient);
}

Tensor Backward::get(const Saved& saved) const {
  const Tensor& t = saved.tensor_;
  if (t.defined() && t.version() != saved.version_)
    fail(ExitCode::kInternal,
         "{}: a tensor of shape {} that it saved for backward was changed in place by {} (version {}, saved "
         "at version {}); "
         "use the out-of-place op, or clone first",
         node_.op, t.shape().to_string(), t.impl()->storage->changed_by.load(), t.version(), saved.version_);
  if (!saved.is_output_ || !grad_enabled()) return t;
  const Tensor with_history = t.detach();
  AutogradMeta& meta = meta_of(with_history);
  meta.requires_grad = true;
  meta.node = Ref<Node>(&node_);
  return with_history;
}

void Backward::once_only() const {
  TRIREME_CHECK(!grad_enabled(),
                "{}: second derivatives are not supported; call backward without create_graph", node_.op);
}

NoGrad::NoGrad() : before_(std::exchange(grad_mode, false)) {}
NoGrad::~NoGrad() { grad_mode = before_; }
EnableGrad::EnableGrad() : before_(std::exchange(grad_mode, true)) {}
EnableGrad::~EnableGrad() { grad_mode = before_; }
bool grad_enabled() { return grad_mode; }

bool recording(std::span<const Tensor* const> inputs) {
  if (!grad_mode) return false;
  return std::any_of(inputs.begin(), inputs.end(),
                     [](const Tensor* t) { return t->defined() && t->requires_grad(); });
}

void detail::attach(const Tensor& out, std::span<const Tensor* const> inputs, Ref<Node> node) {
  node->inputs.reserve(inputs.size());
  for (const Tensor* input : inputs) node->inputs.push_back({input->defined() ? node_of(*input) : nullptr});
  AutogradMeta& meta = meta_of(out);
  meta.requires_grad = true;
  meta.node = std::move(node);
}

void check_in_place(const char* op, const Tensor& target, std::initializer_list<const Tensor*> others) {
  if (!grad_mode) return;
  const bool wants = target.requires_grad();
  TRIREME_CHECK(!(wants && target.is_leaf()),
                "{}: a leaf that wants a gradient cannot be changed in place; do it under NoGrad", op);
  TRIREME_CHECK(!(target.impl()->is_view && (wants || recording(others))),
                "{}: a view cannot be changed in place while gradients are recorded; use the out-of-place op",
                op);
}

bool Tensor::requires_grad() const { return impl_ && impl_->autograd && impl_->autograd->requires_grad; }

bool Tensor::is_leaf() const { return !impl_->autograd || !impl_->autograd->node; }

Tensor& Tensor::set_requires_grad(bool on) {
  TRIREME_CHECK(is_leaf(), "set_requires_grad: only a leaf can be changed; use detach() to cut the graph");
  TRIREME_CHECK(!on || is_floating(dtype()), "set_requires_grad: needs a floating point tensor, got {}",
                name_of(dtype()));
  if (on || impl_->autograd) meta_of(*this).requires_grad = on;
  return *this;
}

Tensor Tensor::grad() const { return impl_->autograd ? impl_->autograd->grad : Tensor(); }
void Tensor::set_grad(Tensor grad) const { meta_of(*this).grad = std::move(grad); }
void Tensor::backward() const { trireme::backward(*this); }

void register_hook(const Tensor& t, std::function<Tensor(const Tensor&)> hook) {
  TRIREME_CHECK(t.requires_grad(), "register_hook: the tensor wants no gradient");
  if (t.is_leaf())
    meta_of(t).hooks.push_back(std::move(hook));
  else
    meta_of(t).node->hooks.push_back(std::move(hook));
}

void register_post_accumulate_hook(const Tensor& t, std::function<void(const Tensor&)> hook) {
  TRIREME_CHECK(t.requires_grad() && t.is_leaf(),
                "register_post_accumulate_hook: needs a leaf that wants a gradient");
  meta_of(t).post_accumulate_hooks.push_back(std::move(hook));
}

Ref<Node> gradient_node(const Tensor& t) { return node_of(t); }

}  // namespace trireme
