#include "core/optim/large_batch.h"

#include <cmath>
#include <utility>

#include "core/tensor/observer.h"

namespace trireme::optim {

namespace {

/// Returns a row-major view as a view of one dimension.
View flat(View v) {
  v.shape[0] = v.numel();
  v.strides[0] = 1;
  v.dims = 1;
  return v;
}

/// Computes to += factor * from. Overwrites `spare`.
void add_scaled(const KernelTable& kernels, const View& to, const View& from, double factor,
                const View& spare) {
  kernels.unary(UnaryOp::mul_scalar, spare, from, {factor});
  kernels.binary(BinaryOp::add, to, to, spare);
}

}  // namespace

Layerwise::Layerwise(ParameterList parameters, LayerwiseOptions options)
    : Optimizer(std::move(parameters)), options_(options) {
  checked_lr(options_.lr);
}

Tensor Layerwise::scratch_like(const OptimizerSlice& slice) const {
  return Tensor::empty({slice.parameter.numel()}, slice.parameter.dtype,
                       parameters().items[0].tensor.device());
}

std::vector<double> Layerwise::norms(std::span<const std::size_t> which, std::span<const View> of) const {
  std::vector<double> all = parameters().sums_of_squares(which, of);
  for (double& norm : all) norm = std::sqrt(norm);
  return all;
}

LARS::LARS(ParameterList parameters, LayerwiseOptions options) : Layerwise(std::move(parameters), options) {
  if (options_.momentum != 0) add_state("momentum");
}

void LARS::update(std::span<const std::size_t> which, std::span<OptimizerSlice> slices) {
  const KernelTable& kernels = kernels_for(parameters().items[which[0]].tensor.device());
  std::vector<View> weights, gradients;
  for (const OptimizerSlice& s : slices)
    weights.push_back(flat(s.parameter)), gradients.push_back(flat(s.gradient));
  const std::vector<double> lengths = norms(which, weights), slopes = norms(which, gradients);
  std::vector<Tensor> scaled;
  for (std::size_t i = 0; i < which.size(); ++i) {
    if (!is_adapted(which[i])) continue;
    const double decay = options_.weight_decay, pull = slopes[i] + decay * lengths[i];
    const double trust = lengths[i] > 0 && pull > 0 ? options_.trust * lengths[i] / pull : 1;
    const Tensor gradient = scratch_like(slices[i]), spare = scratch_like(slices[i]);
    kernels.unary(UnaryOp::mul_scalar, gradient.view(), gradients[i], {trust});
    if (decay > 0) add_scaled(kernels, gradient.view(), weights[i], trust * decay, spare.view());
    slices[i].gradient = scaled.emplace_back(gradient).view();
  }
  kernels.sgd(slices, {.lr = options_.lr, .momentum = options_.momentum});
}

LAMB::LAMB(ParameterList parameters, LayerwiseOptions options) : Layerwise(std::move(parameters), options) {
  add_state("exp_avg");
  add_state("exp_avg_sq");
  steps_ = Tensor::zeros({static_cast<std::int64_t>(this->parameters().items.size())}, DType::kInt64);
  extra_state_.push_back({"step", steps_});
}

void LAMB::update(std::span<const std::size_t> which, std::span<OptimizerSlice> slices) {
  const KernelTable& kernels = kernels_for(parameters().items[which[0]].tensor.device());
  std::vector<Tensor> memory;
  std::vector<View> weights, moves;
  std::vector<OptimizerSlice> from_zero(slices.begin(), slices.end());
  for (std::size_t i = 0; i < which.size(); ++i) {
    weights.push_back(flat(slices[i].parameter));
    moves.push_back(memory.emplace_back(scratch_like(slices[i])).view());
    kernels.fill(moves[i], 0);
    from_zero[i].parameter = moves[i];
    from_zero[i].step = ++steps_.data<std::int64_t>()[which[i]];
  }
  // Adam's update of a parameter of zeros at a learning rate of 1 gives Adam's step alone.
  kernels.adamw(
      from_zero,
      {.lr = 1, .beta1 = options_.beta1, .beta2 = options_.beta2, .eps = options_.eps, .weight_decay = 0});
  for (std::size_t i = 0; i < which.size() && options_.weight_decay > 0; ++i)
    if (is_adapted(which[i]))
      add_scaled(kernels, moves[i], weights[i], -options_.weight_decay, scratch_like(slices[i]).view());
  const std::vector<double> lengths = norms(which, weights), steps = norms(which, moves);
  for (std::size_t i = 0; i < which.size(); ++i) {
    const bool scales = is_adapted(which[i]) && lengths[i] > 0 && steps[i] > 0;
    const double trust = scales ? lengths[i] / steps[i] : 1;
    add_scaled(kernels, weights[i], moves[i], options_.lr * trust, scratch_like(slices[i]).view());
  }
}

}  // namespace trireme::optim
