// Loss scaling, so that small gradients do not vanish in float16.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "core/optim/optimizer.h"

namespace trireme::amp {

/// Defaults are PyTorch's.
struct GradScalerOptions {
  double initial_scale = 65536;
  double growth = 2;                    ///< factor of the scale after growth_interval steps
  std::int64_t growth_interval = 2000;  ///< steps without overflow before the scale grows
  double backoff = 0.5;                 ///< factor of the scale after an overflow
  bool enabled = true;                  ///< if false, the scale is 1 and no step is skipped
};

/// Scales losses, skips the steps whose gradients overflowed, and adapts the scale (P. Micikevicius et al.,
/// "Mixed precision training", 2018).
///
///   scaler.scale(loss).backward();
///   scaler.unscale_(optimizer);        // needed only before reading or clipping gradients
///   scaler.step(optimizer);            // skips the step if a gradient is infinite or NaN
///   scaler.update();
///
/// In data parallel training the gradients are reduced before they are checked, so all ranks make the same
/// decision. Only one thread may use a GradScaler.
class GradScaler {
 public:
  explicit GradScaler(GradScalerOptions options = {});
  /// Returns loss * scale(), in float32 if the loss has 16 bits. Losses under autocast are float32. The
  /// gradient of a float16 loss is the scale itself, and the initial scale is too large for float16.
  Tensor scale(const Tensor& loss) const;
  /// Waits for the gradients and divides them by the scale. Throws if it is called twice for one optimizer
  /// between two calls of update().
  void unscale_(optim::Optimizer& optimizer);
  /// Makes one step of the optimizer, after unscale_() unless that has been called. Returns false if the step
  /// was skipped. Throws if it is called twice for one optimizer between two calls of update().
  bool step(optim::Optimizer& optimizer);
  /// Adapts the scale. Call it after the steps of all optimizers. Throws if no gradients have been unscaled
  /// since the last call.
  void update();
  double scale() const;
  /// Returns the scale and the number of steps since it changed, for checkpoints.
  std::vector<NamedTensor> state() const { return {{"scale", scale_}, {"steps", steps_}}; }

 private:
  GradScalerOptions options_;
  Tensor scale_;                                                       ///< float64, one element
  Tensor steps_;                                                       ///< int64, one element
  std::set<const optim::Optimizer*> unscaled_, overflowed_, stepped_;  ///< since the last update()
};

}  // namespace trireme::amp
