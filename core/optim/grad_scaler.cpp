#include "core/optim/grad_scaler.h"

#include <algorithm>
#include <cmath>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"

namespace trireme::amp {

GradScaler::GradScaler(GradScalerOptions options)
    : options_(options),
      scale_(Tensor::full({1}, options.enabled ? options.initial_scale : 1, DType::kFloat64)),
      steps_(Tensor::zeros({1}, DType::kInt64)) {
  TRIREME_CHECK(options.initial_scale > 0 && options.growth >= 1 && options.backoff > 0 &&
                    options.backoff <= 1 && options.growth_interval >= 1,
                "grad_scaler: initial_scale {} must be positive, growth {} at least 1, backoff {} in 0..1, "
                "growth_interval {} at least 1",
                options.initial_scale, options.growth, options.backoff, options.growth_interval);
}

double GradScaler::scale() const { return *scale_.data<double>(); }

Tensor GradScaler::scale(const Tensor& loss) const {
  // The default scale, 65536, is larger than the largest float16.
  return mul(is_low_precision(loss.dtype()) ? to(loss, DType::kFloat32) : loss, scale());
}

void GradScaler::unscale_(optim::Optimizer& optimizer) {
  if (!options_.enabled) return;
  TRIREME_CHECK(unscaled_.insert(&optimizer).second,
                "grad_scaler: unscale_() was called twice for one optimizer since the last update()");
  const ParameterList& parameters = optimizer.parameters();
  bool finite = true;
  try {
    if (parameters.source) parameters.source->finish();
  } catch (const Error& error) {
    // The reducer throws the same error on all ranks if gradients are not finite. Here that is expected.
    if (error.code() != ExitCode::kNonFinite) throw;
    finite = false;
  }
  const NoGrad off;
  std::vector<std::size_t> which;
  std::vector<Tensor> dense;
  std::vector<View> views;
  for (std::size_t i = 0; i < parameters.items.size() && finite; ++i) {
    const Tensor gradient = parameters.gradient(i);
    if (!gradient.defined()) continue;
    mul_(gradient, 1 / scale());
    which.push_back(i);
    views.push_back(dense.emplace_back(gradient.row_major()).view());
  }
  // Squares of float32 numbers do not overflow in float64, and all ranks see the same sums.
  if (finite)
    finite = std::ranges::all_of(parameters.sums_of_squares(which, views),
                                 [](double sum) { return std::isfinite(sum); });
  if (!finite) overflowed_.insert(&optimizer);
}

bool GradScaler::step(optim::Optimizer& optimizer) {
  // A second step() would treat gradients that are still scaled as unscaled ones.
  TRIREME_CHECK(
      !stepped_.contains(&optimizer),
      "grad_scaler: step() was called twice for one optimizer; call update() after each round of steps");
  if (options_.enabled && !unscaled_.contains(&optimizer)) unscale_(optimizer);
  const bool steps = !overflowed_.contains(&optimizer);
  if (steps) optimizer.step();
  if (options_.enabled) stepped_.insert(&optimizer);
  return steps;
}

void GradScaler::update() {
  if (!options_.enabled) return;
  TRIREME_CHECK(!unscaled_.empty(), "grad_scaler: update() without a step since the last one");
  double& scale = *scale_.data<double>();
  std::int64_t& steps = *steps_.data<std::int64_t>();
  if (!overflowed_.empty()) {
    scale *= options_.backoff;
    steps = 0;
  } else if (++steps == options_.growth_interval) {
    scale *= options_.growth;
    steps = 0;
  }
  unscaled_.clear();
  overflowed_.clear();
  stepped_.clear();
}

}  // namespace trireme::amp
