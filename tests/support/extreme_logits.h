// Rows of logits on which exponentials and their sums go wrong: very large, infinite, NaN, rising and
// falling.
#pragma once

#include "core/tensor/tensor.h"

namespace trireme::test {

/// Fails the running test unless cross entropy of each such row, and its gradient, are what the definition
/// says.
void expect_right_cross_entropy(Device device, DType dtype);

}  // namespace trireme::test
