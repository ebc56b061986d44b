#include "core/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "core/tensor/observer.h"

namespace trireme {

Tensor ParameterList::share(std::size_t i) const {
  const Tensor& parameter = items[i].tensor;
  const auto share = source ? source->share_of(parameter) : std::nullopt;
  return share ? parameter.alias({share->count}, {1}, parameter.offset() + share->first) : parameter;
}

Tensor ParameterList::gradient(std::size_t i) const {
  return source ? source->gradient_of(items[i].tensor) : items[i].tensor.grad();
}

namespace {

/// Returns the sums of squares of the chunks of all vectors, one vector after the other. The CPU waits once
/// for each run of vectors on the same device.
std::vector<double> chunk_squares(std::span<const View> of, std::span<const Device> devices) {
  std::vector<double> chunks;
  for (std::size_t begin = 0, end = 0; begin < of.size(); begin = end) {
    const std::size_t before = chunks.size();
    for (; end < of.size() && devices[end] == devices[begin]; ++end)
      chunks.resize(chunks.size() + static_cast<std::size_t>(squares_chunks(of[end].numel())));
    kernels_for(devices[begin])
        .chunk_squares(of.subspan(begin, end - begin), std::span(chunks).subspan(before));
  }
  return chunks;
}

}  // namespace

std::vector<double> ParameterList::sums_of_squares(std::span<const std::size_t> which,
                                                   std::span<const View> of) const {
  std::vector<Tensor> parameters;
  std::vector<Device> devices;
  for (const std::size_t i : which) devices.push_back(parameters.emplace_back(items[i].tensor).device());
  const std::vector<double> own = chunk_squares(of, devices);
  std::vector<double> chunks;
  std::vector<std::size_t> ends;  // the end of each parameter's entries in `chunks`
  for (std::size_t k = 0, at = 0; k < which.size(); ++k) {
    const auto share = source ? source->share_of(parameters[k]) : std::nullopt;
    // The boundaries of shares are also boundaries of chunks.
    const std::size_t first =
        chunks.size() + static_cast<std::size_t>(share ? share->first / kSquaresChunk : 0);
    chunks.resize(chunks.size() + static_cast<std::size_t>(squares_chunks(parameters[k].numel())));
    ends.push_back(chunks.size());
    const auto count = static_cast<std::size_t>(squares_chunks(of[k].numel()));
    std::copy_n(own.data() + at, count, chunks.data() + first);
    at += count;
  }
  if (source) source->complete_squares(parameters, chunks);
  std::vector<double> sums;
  std::size_t at = 0;
  for (const std::size_t end : ends)
    sums.push_back(std::accumulate(chunks.data() + at, chunks.data() + end, 0.0)), at = end;
  return sums;
}

namespace optim {

namespace {

/// Throws unless kernels can update the parameters: they read parameters, gradients and states in the same
/// order, on several threads.
void check_parameters(const std::vector<NamedTensor>& parameters) {
  std::unordered_map<const TensorImpl*, const std::string*> names;
  for (const auto& [name, tensor] : parameters) {
    TRIREME_CHECK(tensor.defined(), "optimizer: parameter {} is an undefined tensor", name);
    TRIREME_CHECK(tensor.is_leaf(),
                  "optimizer: parameter {} is the result of an op, which gathers no gradient; give it a leaf",
                  name);
    TRIREME_CHECK(tensor.dtype() == DType::kFloat32 || tensor.dtype() == DType::kFloat64,
                  "optimizer: parameter {} is {}; it needs float32 or float64 (use Autocast for 16 bits)",
                  name, name_of(tensor.dtype()));
    TRIREME_CHECK(tensor.is_contiguous(),
                  "optimizer: parameter {} (shape {}, strides {}) must be row-major in memory", name,
                  tensor.shape().to_string(), tensor.strides().to_string());
    TRIREME_CHECK(tensor.device() == parameters[0].tensor.device(),
                  "optimizer: parameters {} and {} are on different devices; give each device an optimizer",
                  parameters[0].name, name);
    const auto [first, is_new] = names.emplace(tensor.impl(), &name);
    TRIREME_CHECK(is_new, "optimizer: parameters {} and {} are one tensor; list it once", *first->second,
                  name);
    tensor.check_writable("optimizer");
  }
}

}  // namespace

double checked_lr(double lr) {
  TRIREME_CHECK(std::isfinite(lr) && lr >= 0, "optimizer: lr is {}; it must be a number that is not negative",
                lr);
  return lr;
}

Optimizer::Optimizer(ParameterList parameters) : parameters_(std::move(parameters)) {
  check_parameters(parameters_.items);
  if (parameters_.source) parameters_.source->attach(*this);
}

Optimizer::~Optimizer() {
  if (parameters_.source) parameters_.source->detach(*this);
}

void Optimizer::step() {
  last_lr_ = lr();
  const std::int64_t* halted = nullptr;
  if (parameters_.source) {
    if (heeds_halted())
      halted = parameters_.source->finish_later();
    else
      parameters_.source->finish();
  }
  std::vector<std::size_t> which;
  std::vector<OptimizerSlice> slices;
  std::vector<Tensor> gradients, updated;  // `gradients` keeps copies alive
  for (std::size_t i = 0; i < parameters_.items.size(); ++i) {
    const Tensor gradient = parameters_.gradient(i);
    if (!gradient.defined()) continue;
    const Tensor share = parameters_.share(i);
    // Kernels read parameter, gradient and state in the same order, so all need the same strides.
    gradients.push_back(gradient.strides() == share.strides() ? gradient : gradient.row_major());
    which.push_back(i);
    updated.push_back(parameters_.items[i].tensor);
    OptimizerSlice& slice = slices.emplace_back();
    slice.parameter = share.view();
    slice.gradient = gradients.back().view();
    slice.halted = halted;
    if (states_.size() > 0) slice.first = states_[0].tensors[i].view();
    if (states_.size() > 1) slice.second = states_[1].tensors[i].view();
  }
  if (!which.empty()) update(which, slices);
  for (const Tensor& parameter : updated) parameter.bump_version("the optimizer's step");
  if (parameters_.source) parameters_.source->updated(updated);
}

void Optimizer::zero_grad() {
  for (const NamedTensor& item : parameters_.items) item.tensor.set_grad({});
}

std::vector<StateTensor> Optimizer::state() const {
  std::vector<StateTensor> all;
  for (const NamedTensor& t : extra_state_) all.push_back({t, {}});
  for (const StateKind& state : states_)
    for (std::size_t i = 0; i < state.tensors.size(); ++i) {
      const NamedTensor& parameter = parameters_.items[i];
      StateTensor& t =
          all.emplace_back(StateTensor{{state.kind + "." + parameter.name, state.tensors[i]}, {}});
      if (!parameters_.source) continue;
      if (const auto share = parameters_.source->share_of(parameter.tensor))
        t.part = StateTensor::Part{parameter.tensor.shape(), share->first};
    }
  return all;
}

void Optimizer::add_state(const std::string& kind) {
  TRIREME_CHECK(states_.size() < 2, "optimizer: {} would be a third kind of state; kernels take two", kind);
  StateKind& state = states_.emplace_back(StateKind{kind, {}});
  for (std::size_t i = 0; i < parameters_.items.size(); ++i) {
    const Tensor share = parameters_.share(i);
    state.tensors.push_back(Tensor::zeros(share.shape(), share.dtype(), share.device()));
  }
}

SGD::SGD(ParameterList parameters, SgdOptions options) : Optimizer(std::move(parameters)), options_(options) {
  checked_lr(options_.lr);
  if (options_.momentum != 0) add_state("momentum");
}

void SGD::update(std::span<const std::size_t> which, std::span<OptimizerSlice> slices) {
  kernels_for(parameters().items[which[0]].tensor.device()).sgd(slices, options_);
}

AdamW::AdamW(ParameterList parameters, AdamWOptions options)
    : Optimizer(std::move(parameters)), options_(options) {
  checked_lr(options_.lr);
  add_state("exp_avg");
  add_state("exp_avg_sq");
  steps_ = Tensor::zeros({static_cast<std::int64_t>(this->parameters().items.size())}, DType::kInt64);
  extra_state_.push_back({"step", steps_});
}

void AdamW::update(std::span<const std::size_t> which, std::span<OptimizerSlice> slices) {
  for (std::size_t i = 0; i < which.size(); ++i) slices[i].step = ++steps_.data<std::int64_t>()[which[i]];
  kernels_for(parameters().items[which[0]].tensor.device()).adamw(slices, options_);
}

double clip_grad_norm(const ParameterList& parameters, double max_norm) {
  if (parameters.source) parameters.source->finish();
  std::vector<std::size_t> which;
  std::vector<Tensor> gradients, dense;  // `dense` keeps copies alive
  std::vector<View> views;
  for (std::size_t i = 0; i < parameters.items.size(); ++i) {
    const Tensor gradient = parameters.gradient(i);
    if (!gradient.defined()) continue;
    which.push_back(i);
    gradients.push_back(gradient);
    views.push_back(dense.emplace_back(gradient.row_major()).view());
  }
  double squares = 0;
  for (const double of_one : parameters.sums_of_squares(which, views)) squares += of_one;
  const double norm = std::sqrt(squares);
  if (max_norm <= 0 || !std::isfinite(norm) || norm <= max_norm) return norm;
  for (const Tensor& gradient : gradients) {
    kernels_for(gradient.device())
        .unary(UnaryOp::mul_scalar, gradient.view(), gradient.view(), {max_norm / (norm + 1e-6)});
    gradient.bump_version("clip_grad_norm");
  }
  return norm;
}

double learning_rate(const Schedule& s, std::int64_t step) {
  const double at = static_cast<double>(step),
               total = static_cast<double>(std::max<std::int64_t>(1, s.total));
  const auto cosine = [](double from, double to, double part) {
    return to + (from - to) * 0.5 * (1 + std::cos(std::numbers::pi * std::clamp(part, 0.0, 1.0)));
  };
  if (s.kind == Schedule::Kind::kOneCycle) {
    const double rise = std::max(1.0, 0.3 * total - 1), low = s.peak / 25;
    return at < rise ? cosine(low, s.peak, at / rise)
                     : cosine(s.peak, low / 1e4, (at - rise) / std::max(1.0, total - rise - 1));
  }
  const double warmup = static_cast<double>(s.warmup);
  if (at < warmup) return s.peak * (at + 1) / warmup;
  if (s.kind == Schedule::Kind::kCosine)
    return cosine(s.peak, 0, (at - warmup) / std::max(1.0, total - warmup));
  if (s.kind == Schedule::Kind::kStep) return s.peak * (at < total / 2 ? 1 : at < 0.75 * total ? 0.1 : 0.01);
  return s.peak;
}

}  // namespace optim
}  // namespace trireme
