// Views and in-place changes: makes a change through one tensor part of the history of all tensors that share
// its memory.
//
// A view keeps its root base, which is no view. An in-place op on a view becomes an op on the base
// (CopySlices) that replaces the view's window. It increments the base's generation. A view of an older
// generation gets a new history, as a window of the base, when it is next used. PyTorch does the same.
#include <algorithm>
#include <cmath>

#include "core/autograd/meta.h"
#include "core/tensor/observer.h"

namespace trireme {

namespace {

/// The location of a view in its base.
struct Slice {
  Shape base_shape, base_strides;
  Shape shape, strides;
  std::int64_t offset = 0;  ///< from the base's first element

  Slice(const Shape& of, const Shape& of_strides, const Part& part)
      : base_shape(of),
        base_strides(of_strides),
        shape(part.shape),
        strides(part.strides),
        offset(part.offset) {}
  Slice(const TensorImpl& base, const TensorImpl& view)
      : base_shape(base.shape),
        base_strides(base.strides),
        shape(view.shape),
        strides(view.strides),
        offset(view.offset - base.offset) {}
};

/// Returns false if every element certainly has memory of its own, else true.
bool overlaps(const Shape& shape, const Shape& strides) {
  std::vector<std::pair<std::int64_t, std::int64_t>>
      steps;  // stride and reach of each dimension, in ascending order
  for (int d = 0; d < shape.size(); ++d) {
    if (shape[d] == 0) return false;
    if (shape[d] > 1) steps.emplace_back(strides[d], strides[d] * (shape[d] - 1));
  }
  std::sort(steps.begin(), steps.end());
  std::int64_t reached = 0;
  for (const auto& [stride, reach] : steps) {
    if (stride <= reached) return true;
    reached += reach;
  }
  return false;
}

/// Returns new zeros with the base's strides, so that the slice's strides and offset apply to them.
Tensor memory_for(const Slice& w, DType dtype, Device device) {
  const Tensor out = Tensor::empty_strided(w.base_shape, w.base_strides, dtype, device);
  kernels_for(device).fill(out.view(), 0);
  return out;
}

Tensor in_base_layout(const Tensor& t, const Slice& w) {
  if (t.strides() == w.base_strides) return t;
  const Tensor out = memory_for(w, t.dtype(), t.device());
  copy_into(out, t);
  return out;
}

Tensor replace_window(const Tensor& base, const Tensor& part, const Slice& w);

/// Returns the window's elements of t in new memory. t has the base's shape.
Tensor take_window(const Tensor& t, const Slice& w) {
  const Tensor whole = in_base_layout(t, w);
  const Tensor out = Tensor::empty(w.shape, t.dtype(), t.device());
  copy_into(out, whole.alias(w.shape, w.strides, whole.offset() + w.offset));
  return record("take_window", out, {&t}, [w](Backward& g) { g.set(0, replace_window({}, g.grad, w)); });
}

/// Returns `part` with elements summed that share memory because they were expanded. Sets `kept` to the
/// result's shape. Throws if elements share memory in another way.
Tensor sum_expanded(const Tensor& part, const Slice& w, Shape& kept) {
  kept = w.shape;
  for (int d = 0; d < kept.size(); ++d)
    if (w.strides[d] == 0 && kept[d] > 1) kept[d] = 1;
  TRIREME_CHECK(!overlaps(kept, w.strides),
                "backward: elements of a view {} of strides {} share memory; clone the view before its base "
                "is changed in place",
                w.shape.to_string(), w.strides.to_string());
  if (kept == w.shape) return part;
  const Tensor out = Tensor::empty(kept, part.dtype(), part.device());
  kernels_for(part.device()).reduce(ReduceOp::kSum, out.view(), part.view());
  return out;
}

/// Returns `base` with the window's elements replaced by `part`, in new memory. An undefined `base` or `part`
/// stands for zeros.
Tensor replace_window(const Tensor& base, const Tensor& part, const Slice& w) {
  const Tensor& like = base.defined() ? base : part;
  const Tensor out = memory_for(w, like.dtype(), like.device());
  if (base.defined()) copy_into(out, base);
  Shape kept = w.shape;
  const Tensor filling = part.defined() ? sum_expanded(part, w, kept) : Tensor();
  const Tensor hole = out.alias(kept, w.strides, w.offset);
  if (filling.defined())
    copy_into(hole, filling);
  else
    kernels_for(out.device()).fill(hole.view(), 0);
  return record("replace_window", out, {&base, &part}, [w](Backward& g) {
    if (g.needs(0)) g.set(0, replace_window(g.grad, {}, w));
    if (g.needs(1)) g.set(1, take_window(g.grad, w));
  });
}

/// Sets the gradient of the base, input 0, from the gradient of its window.
void set_window(Backward& g, const Slice& w) {
  const Tensor* sum = g.gathered(0);
  if (!sum || sum->strides() != w.base_strides || overlaps(w.shape, w.strides))
    return g.set(0, replace_window({}, g.grad, w));
  const View window = sum->alias(w.shape, w.strides, sum->offset() + w.offset).view();
  kernels_for(g.grad.device()).binary(BinaryOp::add, window, window, g.grad.view());
}

}  // namespace

bool is_scratch(const Tensor& t) {
  return t.defined() && !grad_enabled() && !t.requires_grad() && t.impl()->use_count() == 1 &&
         t.impl()->storage->use_count() == 1 && !t.impl()->storage->give_back &&
         !overlaps(t.shape(), t.strides());
}

/// An in-place op on a view as an op on its base. `fn` is the op over the view's window.
class CopySlices final : public Node {
 public:
  CopySlices(Slice w, Ref<Node> fn) : Node(fn->op), w_(w), fn_(std::move(fn)) {}
  void release_saved() override { fn_->release_saved(); }
  void apply(Backward& b) override {
    Backward inner(*fn_, take_window(b.grad, w_));
    fn_->apply(inner);
    inner.gradients_.resize(fn_->inputs.size());
    b.set(0, replace_window(b.grad, inner.gradients_[0], w_));
    for (std::size_t i = 1; i < inner.gradients_.size(); ++i)
      b.set(static_cast<int>(i), std::move(inner.gradients_[i]));
  }

 private:
  Slice w_;
  Ref<Node> fn_;
};

Ref<Node> copy_slices(const Tensor& base, const Tensor& view, Ref<Node> fn) {
  return Ref<Node>(new CopySlices(Slice(*base.impl(), *view.impl()), std::move(fn)));
}

void follow_base(TensorImpl& view) {
  if (!view.base || view.generation == view.base->generation) return;
  const Tensor base{view.base};
  const bool is_recorded = base.requires_grad();
  TRIREME_CHECK(!(is_recorded && view.autograd && view.autograd->is_watched),
                "module: memory of an input was changed in place through the module or its result, so the "
                "module's backward hooks could not see gradients; clone it first");
  view.generation = view.base->generation;
  if (!is_recorded) return;
  Ref<Node> node =
      detail::closure("as_strided", [w = Slice(*view.base, view)](Backward& g) { set_window(g, w); });
  node->inputs.push_back(gradient_edge(base));
  node->output(0).shape = view.shape;
  node->output(0).dtype = view.dtype;
  AutogradMeta& meta = meta_of(view);
  meta.requires_grad = true;
  set_node(meta, std::move(node), 0);
}

void detail::mark_view(const Tensor& view, const Tensor& of) {
  follow_base(*of.impl());
  view.impl()->base = of.impl()->base ? of.impl()->base : Ref<TensorImpl>(of.impl());
  view.impl()->generation = view.impl()->base->generation;
}

void detail::mark_watched_view(const Tensor& view, const Tensor& of) {
  mark_view(view, of);
  meta_of(*view.impl()).is_watched = true;
}

bool detail::shares_elements(const Tensor& x) {
  return !x.is_contiguous() && overlaps(x.shape(), x.strides());
}

Tensor detail::view_of_part(const char* op, const Tensor& x, const Part& part, const Shape& base_strides,
                            const Part& in_base) {
  const Tensor view = x.alias(part.shape, part.strides, x.offset() + part.offset);
  mark_view(view, x);
  return record(op, view, {&x},
                [w = Slice(x.shape(), base_strides, in_base)](Backward& g) { set_window(g, w); });
}

void check_in_place(const char* op, const Tensor& target) {
  TRIREME_CHECK(target.defined(), "{}: an argument is an undefined tensor", op);
  TRIREME_CHECK(!overlaps(target.shape(), target.strides()),
                "{}: elements of the target (shape {}, strides {}) share memory; clone it first", op,
                target.shape().to_string(), target.strides().to_string());
  target.check_writable(op);
  if (!grad_enabled()) return;
  if (detecting_anomaly()) target_had_nan = has_nan(target);
  const Tensor root = target.impl()->base ? Tensor(target.impl()->base) : target;
  TRIREME_CHECK(!(root.requires_grad() && root.is_leaf()),
                "{}: {} that wants a gradient cannot be changed in place; do it under NoGrad", op,
                root.is_same(target) ? "a leaf" : "a view of a leaf");
  TRIREME_CHECK(!(target.requires_grad() && target.is_leaf()),
                "{}: a leaf that wants a gradient cannot be changed in place; do it under NoGrad", op);
}

void detail::check_base(const char* op, const Tensor& base) {
  TRIREME_CHECK(
      !shares_elements(base),
      "{}: the target is a view of a tensor whose elements share memory (shape {}, strides {}), which "
      "takes no gradients; clone that first",
      op, base.shape().to_string(), base.strides().to_string());
}

}  // namespace trireme
