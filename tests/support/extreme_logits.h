// Tests with rows of logits that are hard for sums of exponentials: very large, infinite, NaN, rising and
// falling.
#pragma once

#include "core/tensor/tensor.h"

namespace trireme::test {

/// Fails the running test unless the cross entropy of each row, and its gradient, agree with the definition.
void expect_right_cross_entropy(Device device, DType dtype);

}  // namespace trireme::test
