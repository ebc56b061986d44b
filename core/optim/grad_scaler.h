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
  double growth = 2;  ///< of the scale, after this many steps without overflow:
  std::int64_t growth_interval = 2000;
  double backoff = 0.5;  ///< of the scale, after an overflow
  bool enabled = true;   ///< false: scale 1, every step is made
};

/// Scales losses, leaves out the steps whose gradients overflowed, and adapts the scale (P. Micikevicius et
/// al., "Mixed precision training", 2018).
///
///   scaler.scale(loss).backward();
///   scaler.unscale_(optimizer);        // where gradients are looked at or clipped; else step() does it
///   scaler.step(optimizer);            // not if a gradient is infinite or NaN
///   scaler.update();
///
/// In data parallel training the gradients are reduced before they are looked at, so all ranks decide alike.
/// One thread.
class GradScaler {
 public:
  explicit GradScaler(GradScalerOptions options = {});
  /// loss * scale(), in float32 or more. Autocast's losses are float32; the gradient of a float16 one is the
  /// scale itself, which is more than float16 holds until it has come down.
  Tensor scale(const Tensor& loss) const;
  /// Waits for the gradients and divides them by the scale. Once per optimizer and update().
  void unscale_(optim::Optimizer& optimizer);
  /// One step of the optimizer; false if it was left out. Once per optimizer and update().
  bool step(optim::Optimizer& optimizer);
  /// After the steps of all optimizers.
  void update();
  double scale() const;
  /// The scale and the steps since it changed, for checkpoints.
  std::vector<NamedTensor> state() const { return {{"scale", scale_}, {"steps", steps_}}; }

 private:
  GradScalerOptions options_;
  Tensor scale_;                                                       ///< float64, one element
  Tensor steps_;                                                       ///< int64, one element
  std::set<const optim::Optimizer*> unscaled_, overflowed_, stepped_;  ///< since update()
};

}  // namespace trireme::amp
