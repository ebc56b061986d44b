// Differentiable operations. Names, arguments and defaults follow PyTorch's functional interface.
//
// Every op checks its arguments and throws an Error that names the op, both shapes (or dtypes) and the rule.
// Tensors of one call share dtype and device. Results are new tensors unless the op says "view".
// One file per family beside this header holds forward and backward side by side.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor/tensor.h"
#include "kernels/rng.h"

namespace trireme {

// --- arithmetic.cpp: elementwise, inputs broadcast
// ---------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor add(const Tensor& x, double value);
Tensor mul(const Tensor& x, double value);
Tensor maximum(const Tensor& a, const Tensor& b);  ///< where a == b the gradient goes to both by halves
Tensor minimum(const Tensor& a, const Tensor& b);
Tensor neg(const Tensor& x);
Tensor abs(const Tensor& x);
Tensor sign(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor relu(const Tensor& x);
Tensor pow(const Tensor& x, double exponent);
inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator+(const Tensor& x, double value) { return add(x, value); }
inline Tensor operator-(const Tensor& x, double value) { return add(x, -value); }
inline Tensor operator*(const Tensor& x, double value) { return mul(x, value); }
inline Tensor operator/(const Tensor& x, double value) { return mul(x, 1 / value); }
inline Tensor operator-(const Tensor& x) { return neg(x); }

/// Comparisons give bool and have no gradient.
Tensor eq(const Tensor& a, const Tensor& b);
Tensor ne(const Tensor& a, const Tensor& b);
Tensor lt(const Tensor& a, const Tensor& b);
Tensor le(const Tensor& a, const Tensor& b);
Tensor gt(const Tensor& a, const Tensor& b);
Tensor ge(const Tensor& a, const Tensor& b);

/// In place; other inputs broadcast to t. Raise t's version.
const Tensor& add_(const Tensor& t, const Tensor& other);
const Tensor& mul_(const Tensor& t, const Tensor& other);
const Tensor& mul_(const Tensor& t, double value);
const Tensor& fill_(const Tensor& t, double value);
const Tensor& copy_(const Tensor& t, const Tensor& other);

/// t in another dtype; gradients flow between floating point dtypes.
Tensor to(const Tensor& t, DType dtype);

// --- reduce.cpp: over `dims` (negative count from the end), or over all of them if `dims` is empty
// ------------------
Tensor sum(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
Tensor mean(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
Tensor amax(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
/// Index of the first largest element along the last dimension: int64, that dimension removed.
Tensor argmax(const Tensor& x);
/// Sums a broadcast result back to `shape`.
Tensor sum_to(const Tensor& x, const Shape& shape);

// --- shape.cpp: views where said
// -----------------------------------------------------------------------------
/// View if the strides allow, else a copy. One size may be -1. Elements keep their row-major order.
Tensor reshape(const Tensor& x, Shape shape);
/// Merges dimensions first..last.
Tensor flatten(const Tensor& x, int first = 0, int last = -1);
Tensor permute(const Tensor& x, const std::vector<int>& order);                   ///< view
Tensor transpose(const Tensor& x, int a, int b);                                  ///< view
Tensor expand(const Tensor& x, const Shape& shape);                               ///< view with zero strides
Tensor narrow(const Tensor& x, int dim, std::int64_t first, std::int64_t count);  ///< view
Tensor squeeze(const Tensor& x, int dim);                                         ///< view
Tensor unsqueeze(const Tensor& x, int dim);                                       ///< view
Tensor cat(const std::vector<Tensor>& parts, int dim = 0);
Tensor contiguous(const Tensor& x);  ///< x itself if row-major
/// (N,C,H,W) with channels next to each other in memory; x itself if it is so already.
Tensor channels_last(const Tensor& x);

// --- linear.cpp
// ----------------------------------------------------------------------------------------------
/// (M,K) @ (K,N), or (B,M,K) @ (B,K,N).
Tensor matmul(const Tensor& a, const Tensor& b);
/// x (..., in) @ w (out, in)^T + b (out); b may be undefined.
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b = {});

// --- conv.cpp: x (N,C,H,W); results are channels-last in memory
// -------------------------------------------------------
struct Conv2dOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t groups = 1;
};
/// w (O, C/groups, kh, kw), b (O) or undefined -> (N, O, (H + 2p - kh)/s + 1, (W + 2p - kw)/s + 1).
Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& b = {}, const Conv2dOptions& options = {});
struct PoolOptions {
  std::int64_t kernel = 2;
  std::int64_t stride = 0;  ///< 0: the kernel's size
  std::int64_t padding = 0;
};
Tensor max_pool2d(const Tensor& x, const PoolOptions& options = {});
/// Padding counts as zeros.
Tensor avg_pool2d(const Tensor& x, const PoolOptions& options = {});
/// (N,C,H,W) -> (N,C): the mean of each channel.
Tensor global_avg_pool2d(const Tensor& x);

// --- norm.cpp
// --------------------------------------------------------------------------------------------------------
/// What batch normalization measured, for running statistics: both (C), not recorded.
struct BatchStatistics {
  Tensor mean;
  Tensor variance;  ///< biased
};
/// relu?(gamma * (x - mean) / sqrt(var + eps) + beta + residual?) over x (N,C,H,W), one pass over memory.
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

// --- loss.cpp
// -------------------------------------------------------------------------------------------------
/// Over the last dimension.
Tensor log_softmax(const Tensor& x);
Tensor softmax(const Tensor& x);
/// Mean over rows of logits (N,C) with labels (N) int64 in 0..C-1. Smoothing mixes in the uniform
/// distribution (Szegedy et al., "Rethinking the Inception architecture", 2016).
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, double label_smoothing = 0);
/// Mean of squared differences.
Tensor mse_loss(const Tensor& x, const Tensor& target);

// --- random.cpp --------------------------------------------------------------------------------------------
/// Zeroes elements with probability p and scales the rest by 1/(1-p). x's dimension 0 is the sample; element
/// e of sample s depends on (key, first_sample + s, e) alone.
Tensor dropout(const Tensor& x, double p, RandomKey key, std::int64_t first_sample = 0);
Tensor uniform(const Shape& shape, RandomKey key, double low = 0, double high = 1,
               DType dtype = DType::kFloat32);
Tensor normal(const Shape& shape, RandomKey key, double mean = 0, double std = 1,
              DType dtype = DType::kFloat32);

}  // namespace trireme
