#include "core/optim/large_batch.h"

#include <cmath>
#include <utility>

#include "core/tensor/observer.h"

namespace trireme::optim {

namespace {

double norm_of(const KernelTable& kernels, const View& v) {
  return std::sqrt(kernels.sum_of_squares(std::span(&v, 1)));
}

/// to += factor * from; `spare` is overwritten.
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

Tensor Layerwise::scratch_like(std::size_t which) const {
  const Tensor& p = parameters().items[which].tensor;
  return Tensor::empty(p.shape(), p.dtype(), p.device());
}

LARS::LARS(ParameterList parameters, LayerwiseOptions options) : Layerwise(std::move(parameters), options) {
  if (options_.momentum != 0) add_state("momentum");
}

void LARS::update(std::span<const std::size_t> which, std::span<OptimizerSlice> slices) {
  const KernelTable& kernels = kernels_for(parameters().items[which[0]].tensor.device());
  std::vector<Tensor> scaled;  // gradients
  for (std::size_t i = 0; i < which.size(); ++i) {
    if (!is_adapted(which[i])) continue;
    const OptimizerSlice& s = slices[i];
    const double length = norm_of(kernels, s.parameter), slope = norm_of(kernels, s.gradient),
                 decay = options_.weight_decay;
    const double pull = slope + decay * length;
    const double trust = length > 0 && pull > 0 ? options_.trust * length / pull : 1;
    const Tensor gradient = scratch_like(which[i]), spare = scratch_like(which[i]);
    kernels.unary(UnaryOp::mul_scalar, gradient.view(), s.gradient, {trust});
    if (decay > 0) add_scaled(kernels, gradient.view(), s.parameter, trust * decay, spare.view());
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
  std::vector<Tensor> moves;
  std::vector<OptimizerSlice> from_zero(slices.begin(), slices.end());
  for (std::size_t i = 0; i < which.size(); ++i) {
    moves.push_back(scratch_like(which[i]));
    kernels.fill(moves.back().view(), 0);
    from_zero[i].parameter = moves.back().view();
    from_zero[i].step = ++steps_.data<std::int64_t>()[which[i]];
  }
  // What Adam would do to a parameter of zeros at a learning rate of 1 is its step alone.
  kernels.adamw(
      from_zero,
      {.lr = 1, .beta1 = options_.beta1, .beta2 = options_.beta2, .eps = options_.eps, .weight_decay = 0});
  for (std::size_t i = 0; i < which.size(); ++i) {
    const View &p = slices[i].parameter, move = moves[i].view();
    const Tensor spare = scratch_like(which[i]);
    double trust = 1;
    if (is_adapted(which[i])) {
      if (options_.weight_decay > 0) add_scaled(kernels, move, p, -options_.weight_decay, spare.view());
      const double length = norm_of(kernels, p), step = norm_of(kernels, move);
      if (length > 0 && step > 0) trust = length / step;
    }
    add_scaled(kernels, p, move, options_.lr * trust, spare.view());
  }
}

}  // namespace trireme::optim
