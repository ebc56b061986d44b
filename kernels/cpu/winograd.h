// 3x3 convolutions of stride 1 by minimal filtering, F(2x2,3x3): 16 multiplications where the definition has
// 36 (S. Winograd, "Arithmetic complexity of computations", 1980; A. Lavin, S. Gray, "Fast algorithms for
// convolutional neural networks", CVPR 2016). Include only from kernels/cpu.
//
// Float32; x, y channels-last, w (O,C,3,3) row-major. Bits do not depend on threads. Results are rounded
// relative to the largest element of a tile of 4x4 pixels, and an infinite pixel makes NaN of others near it.
#pragma once

#include "kernels/cpu/conv_shape.h"

namespace trireme::cpu {

/// Returns true if Winograd's algorithm supports the convolution and makes it faster. The result depends on
/// shapes only.
bool suits_winograd(const Conv&);

void winograd_forward(const Conv&, const View& y, const View& x, const View& w, const View* bias);
void winograd_backward_input(const Conv&, const View& dx, const View& dy, const View& w);
void winograd_backward_weight(const Conv&, const View& dw, const View& x, const View& dy);

}  // namespace trireme::cpu
