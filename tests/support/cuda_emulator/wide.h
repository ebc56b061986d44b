// The emulator runs CPU kernels in place of CUDA's libraries. Where a library takes 16-bit numbers, a CPU
// kernel may need float32; this file converts.
#pragma once

#include <vector>

#include "kernels/cpu/kernels.h"

namespace trireme::cuda::emulator {

/// A float32 copy of a view of 16-bit numbers, with the same strides. Views of other dtypes are used
/// unchanged.
class Wide {
 public:
  explicit Wide(const View& v) : original_(v), view_(v) {
    if (!is_low_precision(v.dtype)) return;
    std::int64_t extent = 1;
    for (int d = 0; d < v.dims; ++d) extent += (v.shape[d] - 1) * v.strides[d];
    memory_.resize(static_cast<std::size_t>(extent));
    view_.dtype = DType::kFloat32;
    view_.data = memory_.data();
    cpu::copy(view_, original_);
  }
  const View& view() const { return view_; }
  /// Rounds the copy and writes it to the original view.
  void store() const {
    if (!memory_.empty()) cpu::copy(original_, view_);
  }

 private:
  View original_, view_;
  std::vector<float> memory_;
};

}  // namespace trireme::cuda::emulator
