// Activation checkpointing: the tensors that a part of the graph saves for backward are computed again when
// backward needs them.
#include "core/autograd/meta.h"

namespace trireme {

namespace {

thread_local SavedFrame* open_frame = nullptr;

/// Makes tensors saved on this thread go to the frame during its lifetime. With null they are kept as usual.
class Opened {
 public:
  explicit Opened(SavedFrame* frame) : before_(std::exchange(open_frame, frame)) {}
  ~Opened() { open_frame = before_; }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

 private:
  SavedFrame* before_;
};

}  // namespace

SavedFrame::SavedFrame(std::function<Tensor(const std::vector<Tensor>&)> fn,
                       const std::vector<Tensor>& inputs)
    : fn_(std::move(fn)) {
  for (const Tensor& input : inputs) {
    inputs_.emplace_back(input.defined() ? input.detach() : input);
    versions_.push_back(input.defined() ? input.version() : 0);
    wanted_.push_back(input.requires_grad());
  }
}

SavedFrame* SavedFrame::opened() { return open_frame; }

Tensor SavedFrame::run(const std::vector<Tensor>& inputs) {
  const Opened here(this);
  const AutocastScope as_before(autocast_);
  return fn_(inputs);
}

std::size_t SavedFrame::save(const Tensor& tensor) {
  if (!computing_) {
    layouts_.push_back({tensor.shape(), tensor.dtype()});
    return layouts_.size() - 1;
  }
  const std::size_t index = tensors_.size();
  if (index < layouts_.size()) {
    const auto& [shape, dtype] = layouts_[index];
    TRIREME_CHECK(
        tensor.shape() == shape && tensor.dtype() == dtype,
        "recompute: tensor {} that the function saves for backward was {} {} at first and is {} {} when "
        "it is run again; it must do the same each time",
        index, name_of(dtype), shape.to_string(), name_of(tensor.dtype()), tensor.shape().to_string());
  }
  tensors_.push_back(tensor.detach());
  saved_versions_.push_back(tensor.version());
  return tensors_.size() - 1;
}

Tensor SavedFrame::get(std::size_t index) {
  if (tensors_.empty()) compute_again();
  return tensors_[index];
}

void SavedFrame::compute_again() {
  const EnableGrad on;
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const Tensor& in = inputs_[i];
    TRIREME_CHECK(!in.defined() || in.version() == versions_[i],
                  "recompute: input {} of shape {} was changed in place by {} since the first run", i,
                  in.shape().to_string(), in.impl()->storage->changed_by.load());
    inputs.push_back(in.defined() ? in.detach() : in);
    if (wanted_[i]) inputs.back() = renamed(inputs.back().set_requires_grad(true));
  }
  computing_ = true;
  try {
    run(inputs);
    TRIREME_CHECK(tensors_.size() == layouts_.size(),
                  "recompute: the function saved {} tensors for backward at first and {} when it was run "
                  "again; it must "
                  "do the same each time",
                  layouts_.size(), tensors_.size());
  } catch (...) {
    computing_ = false;
    tensors_.clear();
    saved_versions_.clear();
    throw;
  }
  computing_ = false;
}

Tensor recompute(const std::function<Tensor(const std::vector<Tensor>&)>& fn,
                 const std::vector<Tensor>& inputs) {
  if (!grad_enabled()) return fn(inputs);
  const Ref<SavedFrame> frame = make_ref<SavedFrame>(fn, inputs);
  std::vector<Tensor>
      own;  // inputs are results of an op in both runs, so that both runs save the same tensors
  for (const Tensor& input : inputs) own.push_back(input.requires_grad() ? renamed(input) : input);
  return frame->run(own);
}

}  // namespace trireme
