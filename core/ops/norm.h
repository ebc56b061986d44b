// Normalization. See ops.h for the rules of all ops.
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace trireme {

// --- norm.cpp
/// The statistics that batch normalization measured. Both are (C), and autograd does not record them.
struct BatchStatistics {
  Tensor mean;
  Tensor variance;  ///< biased
};
/// relu?(gamma * (x - mean) / sqrt(var + eps) + beta + residual?) over x (N,C,H,W), one pass over memory.
/// 16-bit x may have float32 gamma, beta and statistics, and is measured in float32.
/// If `fixed` is given, uses those statistics (evaluation); otherwise this batch's, written to `measured`.
/// S. Ioffe, C. Szegedy, "Batch normalization", 2015.
struct BatchNormOptions {
  double eps = 1e-5;
  bool relu = false;
  const BatchStatistics* fixed = nullptr;
  BatchStatistics* measured = nullptr;
};
Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& residual,
                  const BatchNormOptions& options);

// --- row_norm.cpp: over the last dimensions, as many as gamma has (1 without it); gamma, beta may be
// undefined
/// J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016.
Tensor layer_norm(const Tensor& x, const Tensor& gamma = {}, const Tensor& beta = {}, double eps = 1e-5);
/// B. Zhang, R. Sennrich, "Root mean square layer normalization", 2019.
Tensor rms_norm(const Tensor& x, const Tensor& gamma = {}, double eps = 1e-6);
/// x (N,C,...), gamma and beta (C). Y. Wu, K. He, "Group normalization", 2018.
Tensor group_norm(const Tensor& x, std::int64_t groups, const Tensor& gamma = {}, const Tensor& beta = {},
                  double eps = 1e-5);

}  // namespace trireme
