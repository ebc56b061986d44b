#include "core/autograd/autograd.h"

#include <algorithm>
#include <atomic>

#include "core/autograd/meta.h"
#include "core/base/progress.h"

namespace trireme {

/// Releases nodes one by one instead of recursively, so that a graph of a million nodes needs no deep stack.
void release_later(std::span<Edge> edges) {
  thread_local constinit Node* waiting = nullptr;
  thread_local constinit bool releasing = false;
  for (Edge& edge : edges)
    if (Node* const node = edge.node.detach(); node && node->release())
      node->next_released_ = std::exchange(waiting, node);
  if (releasing) return;
  releasing = true;
  while (waiting) delete std::exchange(waiting, waiting->next_released_);
  releasing = false;
}

namespace {

thread_local bool grad_mode = true;
thread_local bool anomaly_mode = false;

std::uint64_t next_sequence() {
  thread_local std::uint64_t sequence = 0;
  return ++sequence;
}

/// Accumulates gradients into a leaf's grad.
class LeafNode final : public Node {
 public:
  explicit LeafNode(Tensor leaf) : Node("leaf"), leaf_(std::move(leaf)) {
    is_leaf = true;
    output(0).shape = leaf_.shape();
    output(0).dtype = leaf_.dtype();
  }
  ~LeafNode() override { leaf_.impl()->autograd->leaf_node = nullptr; }
  void release_saved() override {}
  const GradientHooks& hooks(int) override { return leaf_.impl()->autograd->hooks; }
  Tensor take_memory() override {
    AutogradMeta& meta = *leaf_.impl()->autograd;
    if (meta.grad.defined() || !meta.requires_grad) return {};
    return lent_ = std::exchange(meta.grad_memory, Tensor());
  }
  void apply(Backward& backward) override {
    AutogradMeta& meta = *leaf_.impl()->autograd;
    if (!meta.requires_grad) return;  // The leaf was frozen after the op was recorded.
    const Tensor& gradient = backward.grad;
    if (meta.grad.defined())
      meta.grad = sum_of_gradients(meta.grad, gradient);
    else
      meta.grad = grad_enabled() ? gradient : own(gradient);
    meta.post_accumulate_hooks.each([this](const auto& hook) { hook(leaf_); });
  }

 private:
  /// Returns the gradient in memory that nothing else shares, with the leaf's layout, so that later passes
  /// may change it in place.
  Tensor own(const Tensor& gradient) {
    const Tensor lent = std::exchange(lent_, Tensor());
    if (lent.defined() && lent.raw() == gradient.raw()) return lent;
    const bool alike =
        gradient.strides() == leaf_.strides() || (gradient.is_contiguous() && leaf_.is_contiguous());
    if (is_scratch(gradient) && alike) return gradient.detach();
    const Tensor copy = Tensor::empty_like(leaf_);
    copy_into(copy, gradient);
    return copy;
  }

  Tensor leaf_;
  Tensor lent_;  ///< the memory that take_memory() gave to an op of the running pass
};

void add_inputs(Node& node, std::span<const Tensor* const> inputs) {
  node.inputs.reserve(inputs.size());
  for (const Tensor* input : inputs) node.inputs.push_back(input->defined() ? gradient_edge(*input) : Edge{});
}

void set_history(const Tensor& t, const Ref<Node>& node, int output) {
  NodeOutput& info = node->output(output);
  info.shape = t.shape();
  info.dtype = t.dtype();
  AutogradMeta& meta = meta_of(*t.impl());
  meta.requires_grad = true;
  set_node(meta, node, output);
}

/// Throws Error(kNonFinite) if an output holds a NaN and no input does. An op that only passes a NaN on is
/// not reported. Only anomaly mode calls this.
void search_for_nan(std::span<const Tensor* const> outs, std::span<const Tensor* const> inputs,
                    const char* op) {
  for (const Tensor* input : inputs)
    if (has_nan(*input)) return;
  for (const Tensor* out : outs) check_no_nan(*out, op, "its result");
}

}  // namespace

AutogradMeta& meta_of(TensorImpl& t) {
  if (!t.autograd) t.autograd = new AutogradMeta;
  return *t.autograd;
}

void set_node(AutogradMeta& meta, Ref<Node> node, int output) {
  if (meta.retained) {
    meta.node->output(meta.output).retained = nullptr;
    node->output(output).retained = meta.retained;
  }
  meta.node = std::move(node);
  meta.output = output;
}

Edge gradient_edge(const Tensor& t) {
  follow_base(*t.impl());
  AutogradMeta* meta = t.impl()->autograd;
  if (!meta || !meta->requires_grad) return {};
  if (meta->node) return {meta->node, meta->output};
  if (!meta->leaf_node) meta->leaf_node = new LeafNode(t);
  return {Ref<Node>(meta->leaf_node), 0};
}

Saved::Saved(const Tensor& tensor) : tensor_(tensor) {
  if (!tensor.defined()) return;
  version_ = tensor.version();
  const bool wanted = tensor.requires_grad();
  if (!grad_mode || (wanted && tensor.is_leaf())) return;
  if (wanted) history_ = gradient_edge(tensor);
  if (SavedFrame* frame = SavedFrame::opened()) {
    frame_ = Ref<SavedFrame>(frame);
    index_ = frame->save(tensor);
    tensor_ = Tensor();
  } else {
    tensor_ = tensor.detach();
  }
}

Node::Node(const char* name) : op(name), sequence(next_sequence()) { note_progress(); }
Node::~Node() { release_later(inputs); }

TensorImpl::~TensorImpl() {
  if (!autograd) return;
  Edge last{std::move(autograd->node)};
  delete autograd;
  autograd = nullptr;
  release_later({&last, 1});
}

Tensor Backward::gradient(int i) const {
  if (i == 0) return grad;
  return i <= static_cast<int>(others_.size()) ? others_[static_cast<std::size_t>(i - 1)] : Tensor();
}

std::size_t Backward::inputs() const { return node_.inputs.size(); }

bool Backward::needs(int i) const {
  const Edge& edge = node_.inputs[static_cast<std::size_t>(i)];
  return edge.node && edge.node->wanted_;
}

void Backward::set(int i, Tensor gradient) {
  if (!needs(i)) return;
  if (gradients_.empty()) gradients_.resize(node_.inputs.size());
  gradients_[static_cast<std::size_t>(i)] = std::move(gradient);
}

const Tensor* Backward::gathered(int i) const {
  if (!needs(i)) return nullptr;
  const Edge& edge = node_.inputs[static_cast<std::size_t>(i)];
  const Tensor& incoming = edge.node->output(edge.output).incoming;
  return is_scratch(incoming) ? &incoming : nullptr;
}

Tensor Backward::memory_for(int i) const {
  if (!into_leaves_ || grad_enabled() || !needs(i)) return {};
  const Edge& edge = node_.inputs[static_cast<std::size_t>(i)];
  const bool is_all = edge.node->pending_ == 1 && !edge.node->output(edge.output).incoming.defined();
  return is_all ? edge.node->take_memory() : Tensor();
}

Tensor Backward::get(const Saved& saved) const {
  const Tensor t = saved.frame_ ? saved.frame_->get(saved.index_) : saved.tensor_;
  if (!t.defined()) return t;
  const std::uint32_t version = saved.frame_ ? saved.frame_->version(saved.index_) : saved.version_;
  if (t.version() != version)
    fail(ExitCode::kInternal,
         "{}: a tensor of shape {} that it saved for backward was changed in place by {} (version {}, saved "
         "at version {}); "
         "use the out-of-place op, or clone first",
         node_.op, t.shape().to_string(), t.impl()->storage->changed_by.load(), t.version(), version);
  const Edge history = saved.output_ < 0 ? saved.history_ : Edge{Ref<Node>(&node_), saved.output_};
  if (!history.node || !grad_enabled()) return t;
  const Tensor with_history = t.detach();
  AutogradMeta& meta = meta_of(*with_history.impl());
  meta.requires_grad = true;
  meta.node = history.node;
  meta.output = history.output;
  return with_history;
}

NoGrad::NoGrad() : before_(std::exchange(grad_mode, false)) {}
NoGrad::~NoGrad() { grad_mode = before_; }
EnableGrad::EnableGrad() : before_(std::exchange(grad_mode, true)) {}
EnableGrad::~EnableGrad() { grad_mode = before_; }
bool grad_enabled() { return grad_mode; }
DetectAnomaly::DetectAnomaly() : before_(std::exchange(anomaly_mode, true)) {}
DetectAnomaly::~DetectAnomaly() { anomaly_mode = before_; }
bool detecting_anomaly() { return anomaly_mode; }

bool recording(std::span<const Tensor* const> inputs) {
  if (!grad_mode) return false;
  return std::any_of(inputs.begin(), inputs.end(),
                     [](const Tensor* t) { return t->defined() && t->requires_grad(); });
}

void detail::attach(std::span<const Tensor* const> outs, std::span<const Tensor* const> inputs,
                    Ref<Node> node) {
  if (anomaly_mode) search_for_nan(outs, inputs, node->op);
  add_inputs(*node, inputs);
  node->set_outputs(static_cast<int>(outs.size()));
  for (std::size_t i = 0; i < outs.size(); ++i)
    if (outs[i]->defined() && is_floating(outs[i]->dtype())) set_history(*outs[i], node, static_cast<int>(i));
}

void detail::attach_in_place(const Tensor& t, std::initializer_list<const Tensor*> others, Ref<Node> node) {
  if (!is_floating(t.dtype())) return;
  if (anomaly_mode && !target_had_nan) {
    const Tensor* const result[] = {&t};
    std::vector<const Tensor*> apart;  // without tensors in t's memory, which the op has overwritten
    for (const Tensor* other : others)
      if (!other->defined() || other->impl()->storage != t.impl()->storage) apart.push_back(other);
    search_for_nan(result, apart, node->op);
  }
  std::vector<const Tensor*> inputs{&t};
  inputs.insert(inputs.end(), others.begin(), others.end());
  add_inputs(*node, inputs);
  TensorImpl* const base = t.impl()->base.get();
  if (!base) {
    set_history(t, node, 0);
    ++t.impl()->generation;  // views of t follow
    return;
  }
  node->output(0).shape = t.shape();
  node->output(0).dtype = t.dtype();
  const Tensor whole{Ref<TensorImpl>(base)};
  check_base(node->op, whole);
  Ref<Node> copy = copy_slices(whole, t, node);
  copy->inputs.push_back(gradient_edge(whole));
  node->inputs[0] = copy->inputs[0];  // the base before the change; t's own history starts from it
  for (std::size_t i = 1; i < node->inputs.size(); ++i) copy->inputs.push_back(node->inputs[i]);
  set_history(whole, copy, 0);
  ++base->generation;  // t itself follows, too, when it is next used
}

bool Tensor::requires_grad() const {
  if (!impl_) return false;
  follow_base(body());
  return body().autograd && body().autograd->requires_grad;
}

bool Tensor::is_leaf() const {
  follow_base(body());
  return !body().autograd || !body().autograd->node;
}

Tensor& Tensor::set_requires_grad(bool on) {
  TRIREME_CHECK(is_leaf(), "set_requires_grad: only a leaf can be changed; use detach() to cut the graph");
  TRIREME_CHECK(!on || is_floating(dtype()), "set_requires_grad: needs a floating point tensor, got {}",
                name_of(dtype()));
  if (on || body().autograd) meta_of(body()).requires_grad = on;
  return *this;
}

Tensor Tensor::grad() const {
  const AutogradMeta* meta = body().autograd;
  if (!meta) return {};
  return meta->retained ? *meta->retained : meta->grad;
}

void Tensor::set_grad(Tensor grad) const {
  if (grad.defined())
    TRIREME_CHECK(grad.shape() == shape() && grad.dtype() == dtype() && grad.device() == device(),
                  "set_grad: a gradient {} {} does not fit a tensor {} {}", name_of(grad.dtype()),
                  grad.shape().to_string(), name_of(dtype()), shape().to_string());
  AutogradMeta& meta = meta_of(body());
  (meta.retained ? *meta.retained : meta.grad) = std::move(grad);
}

void set_grad_memory(const Tensor& t, Tensor memory) {
  if (memory.defined())
    TRIREME_CHECK(t.is_leaf() && memory.shape() == t.shape() && memory.dtype() == t.dtype() &&
                      memory.device() == t.device() && t.is_contiguous() && memory.is_contiguous(),
                  "set_grad_memory: memory {} {} does not fit a leaf {} {}; both must be row-major",
                  name_of(memory.dtype()), memory.shape().to_string(), name_of(t.dtype()),
                  t.shape().to_string());
  meta_of(*t.impl()).grad_memory = std::move(memory);
}

void Tensor::retain_grad() const {
  TRIREME_CHECK(requires_grad(), "retain_grad: the tensor wants no gradient");
  AutogradMeta& meta = meta_of(body());
  if (is_leaf() || meta.retained) return;
  meta.retained = std::make_shared<Tensor>();
  meta.node->output(meta.output).retained = meta.retained;
}

void Tensor::backward() const { trireme::backward(*this); }

Tensor Tensor::clone() const {
  const Tensor out = empty_like(*this);
  copy_into(out, *this);
  return record("clone", out, {this}, [](Backward& g) { g.set(0, g.grad); });
}

HookHandle register_hook(const Tensor& t, GradientHook hook) {
  TRIREME_CHECK(t.requires_grad(), "register_hook: the tensor wants no gradient");
  AutogradMeta& meta = meta_of(*t.impl());
  return (t.is_leaf() ? meta.hooks : meta.node->output(meta.output).hooks).add(std::move(hook));
}

HookHandle register_post_accumulate_hook(const Tensor& t, std::function<void(const Tensor&)> hook) {
  TRIREME_CHECK(t.requires_grad() && t.is_leaf(),
                "register_post_accumulate_hook: needs a leaf that wants a gradient");
  return meta_of(*t.impl()).post_accumulate_hooks.add(std::move(hook));
}

Tensor run_hooks(const GradientHooks& hooks, Tensor gradient) {
  hooks.each([&](const GradientHook& hook) {
    if (Tensor replaced = hook(gradient); replaced.defined()) gradient = std::move(replaced);
  });
  return gradient;
}

}  // namespace trireme
