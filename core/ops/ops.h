// Differentiable operations. Names, arguments and defaults follow PyTorch's functional interface.
//
// Every op checks its arguments and throws an Error that names the op, both shapes (or dtypes) and the rule.
// Tensors of one call share the device, and the dtype unless the op says otherwise. Results are new tensors
// unless the op says "view".
// One file per family beside this header holds forward and backward side by side.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor/tensor.h"
#include "kernels/rng.h"

namespace trireme {

// --- unary.cpp: elementwise; integers become float32 where results are fractions; `op_` changes its argument
Tensor neg(const Tensor& x);
Tensor abs(const Tensor& x);
Tensor sign(const Tensor& x);
Tensor square(const Tensor& x);
Tensor relu(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor exp2(const Tensor& x);
Tensor expm1(const Tensor& x);
Tensor log(const Tensor& x);
Tensor log2(const Tensor& x);
Tensor log10(const Tensor& x);
Tensor log1p(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor rsqrt(const Tensor& x);
Tensor reciprocal(const Tensor& x);
Tensor sin(const Tensor& x);
Tensor cos(const Tensor& x);
Tensor tan(const Tensor& x);
Tensor asin(const Tensor& x);
Tensor acos(const Tensor& x);
Tensor atan(const Tensor& x);
Tensor sinh(const Tensor& x);
Tensor cosh(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor erf(const Tensor& x);
Tensor erfc(const Tensor& x);
Tensor floor(const Tensor& x);
Tensor ceil(const Tensor& x);
Tensor round(const Tensor& x);
Tensor trunc(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor log_sigmoid(const Tensor& x);
Tensor softplus(const Tensor& x);
Tensor silu(const Tensor& x);
/// kNone: x * Phi(x); kTanh: its approximation. D. Hendrycks, K. Gimpel, "Gaussian error linear units", 2016.
enum class Gelu { kNone, kTanh };
Tensor gelu(const Tensor& x, Gelu approximate = Gelu::kNone);
Tensor leaky_relu(const Tensor& x, double negative_slope = 0.01);
Tensor elu(const Tensor& x, double alpha = 1);
Tensor relu6(const Tensor& x);
Tensor hardtanh(const Tensor& x, double low = -1, double high = 1);
/// At least one bound must be given.
Tensor clamp(const Tensor& x, std::optional<double> low, std::optional<double> high = {});
/// NaN becomes `nan`, infinities the largest finite numbers.
Tensor nan_to_num(const Tensor& x, double nan = 0);
Tensor add(const Tensor& x, double value);
Tensor sub(const Tensor& x, double value);
Tensor rsub(const Tensor& x, double value);  ///< value - x
Tensor mul(const Tensor& x, double value);
Tensor div(const Tensor& x, double value);
Tensor pow(const Tensor& x, double exponent);
Tensor pow(double base, const Tensor& x);

const Tensor& neg_(const Tensor& t);
const Tensor& abs_(const Tensor& t);
const Tensor& sign_(const Tensor& t);
const Tensor& square_(const Tensor& t);
const Tensor& relu_(const Tensor& t);
const Tensor& exp_(const Tensor& t);
const Tensor& exp2_(const Tensor& t);
const Tensor& expm1_(const Tensor& t);
const Tensor& log_(const Tensor& t);
const Tensor& log2_(const Tensor& t);
const Tensor& log10_(const Tensor& t);
const Tensor& log1p_(const Tensor& t);
const Tensor& sqrt_(const Tensor& t);
const Tensor& rsqrt_(const Tensor& t);
const Tensor& reciprocal_(const Tensor& t);
const Tensor& sin_(const Tensor& t);
const Tensor& cos_(const Tensor& t);
const Tensor& tan_(const Tensor& t);
const Tensor& asin_(const Tensor& t);
const Tensor& acos_(const Tensor& t);
const Tensor& atan_(const Tensor& t);
const Tensor& sinh_(const Tensor& t);
const Tensor& cosh_(const Tensor& t);
const Tensor& tanh_(const Tensor& t);
const Tensor& erf_(const Tensor& t);
const Tensor& erfc_(const Tensor& t);
const Tensor& floor_(const Tensor& t);
const Tensor& ceil_(const Tensor& t);
const Tensor& round_(const Tensor& t);
const Tensor& trunc_(const Tensor& t);
const Tensor& sigmoid_(const Tensor& t);
const Tensor& log_sigmoid_(const Tensor& t);
const Tensor& softplus_(const Tensor& t);
const Tensor& silu_(const Tensor& t);

// --- binary.cpp: elementwise; inputs broadcast and are promoted to a common dtype by PyTorch's rule
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);  ///< of integers: float32
Tensor pow(const Tensor& a, const Tensor& b);
Tensor atan2(const Tensor& y, const Tensor& x);
Tensor remainder(const Tensor& a, const Tensor& b);  ///< has the sign of b
Tensor fmod(const Tensor& a, const Tensor& b);       ///< has the sign of a
Tensor maximum(const Tensor& a, const Tensor& b);    ///< where a == b the gradient goes to both by halves
Tensor minimum(const Tensor& a, const Tensor& b);
/// start + weight * (end - start)
Tensor lerp(const Tensor& start, const Tensor& end, double weight);
Tensor lerp(const Tensor& start, const Tensor& end, const Tensor& weight);
/// x + value * a * b, x + value * a / b
Tensor addcmul(const Tensor& x, const Tensor& a, const Tensor& b, double value = 1);
Tensor addcdiv(const Tensor& x, const Tensor& a, const Tensor& b, double value = 1);
/// x where the condition (bool) holds, else y.
Tensor where(const Tensor& condition, const Tensor& x, const Tensor& y);
Tensor masked_fill(const Tensor& x, const Tensor& mask, double value);
inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator+(const Tensor& x, double value) { return add(x, value); }
inline Tensor operator-(const Tensor& x, double value) { return sub(x, value); }
inline Tensor operator*(const Tensor& x, double value) { return mul(x, value); }
inline Tensor operator/(const Tensor& x, double value) { return div(x, value); }
inline Tensor operator+(double value, const Tensor& x) { return add(x, value); }
inline Tensor operator-(double value, const Tensor& x) { return rsub(x, value); }
inline Tensor operator*(double value, const Tensor& x) { return mul(x, value); }
inline Tensor operator/(double value, const Tensor& x) { return mul(reciprocal(x), value); }
inline Tensor operator-(const Tensor& x) { return neg(x); }

/// Comparisons and tests give bool and have no gradient.
Tensor eq(const Tensor& a, const Tensor& b);
Tensor ne(const Tensor& a, const Tensor& b);
Tensor lt(const Tensor& a, const Tensor& b);
Tensor le(const Tensor& a, const Tensor& b);
Tensor gt(const Tensor& a, const Tensor& b);
Tensor ge(const Tensor& a, const Tensor& b);
Tensor eq(const Tensor& x, double value);
Tensor ne(const Tensor& x, double value);
Tensor lt(const Tensor& x, double value);
Tensor le(const Tensor& x, double value);
Tensor gt(const Tensor& x, double value);
Tensor ge(const Tensor& x, double value);
Tensor logical_and(const Tensor& a, const Tensor& b);
Tensor logical_or(const Tensor& a, const Tensor& b);
Tensor logical_xor(const Tensor& a, const Tensor& b);
Tensor logical_not(const Tensor& x);
Tensor isnan(const Tensor& x);
Tensor isinf(const Tensor& x);
Tensor isfinite(const Tensor& x);
/// t in another dtype; gradients flow between floating point dtypes.
Tensor to(const Tensor& t, DType dtype);

// --- in_place.cpp: other inputs broadcast to t and take its dtype; t's version rises
const Tensor& add_(const Tensor& t, const Tensor& other);
const Tensor& sub_(const Tensor& t, const Tensor& other);
const Tensor& mul_(const Tensor& t, const Tensor& other);
const Tensor& div_(const Tensor& t, const Tensor& other);
const Tensor& add_(const Tensor& t, double value);
const Tensor& mul_(const Tensor& t, double value);
const Tensor& clamp_(const Tensor& t, std::optional<double> low, std::optional<double> high = {});
const Tensor& masked_fill_(const Tensor& t, const Tensor& mask, double value);
const Tensor& fill_(const Tensor& t, double value);
const Tensor& zero_(const Tensor& t);
const Tensor& copy_(const Tensor& t, const Tensor& other);

// --- reduce.cpp: over `dims` (negative count from the end), or over all of them if `dims` is empty
Tensor sum(const Tensor& x, const std::vector<int>& dims = {},
           bool keepdim = false);  ///< of integers, bool: int64
Tensor prod(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
Tensor mean(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
/// Largest and smallest; equal ones share the gradient.
Tensor amax(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
Tensor amin(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
/// Divided by (count - correction).
Tensor var(const Tensor& x, const std::vector<int>& dims = {}, double correction = 1, bool keepdim = false);
Tensor std(const Tensor& x, const std::vector<int>& dims = {}, double correction = 1, bool keepdim = false);
/// (sum |x|^p)^(1/p); p may be infinite.
Tensor norm(const Tensor& x, double p = 2, const std::vector<int>& dims = {}, bool keepdim = false);
Tensor logsumexp(const Tensor& x, const std::vector<int>& dims, bool keepdim = false);
Tensor any(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);  ///< bool
Tensor all(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);  ///< bool
/// Index of the first largest or smallest element along `dim`: int64.
Tensor argmax(const Tensor& x, int dim = -1, bool keepdim = false);
Tensor argmin(const Tensor& x, int dim = -1, bool keepdim = false);
/// Running sum along `dim`.
Tensor cumsum(const Tensor& x, int dim);
/// Sums a broadcast result back to `shape`.
Tensor sum_to(const Tensor& x, const Shape& shape);

// --- shape.cpp: views where said
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

// --- arrange.cpp: cut, repeat, turn, pad
Tensor select(const Tensor& x, int dim, std::int64_t index);  ///< view; a negative index counts from the end
Tensor stack(const std::vector<Tensor>& parts, int dim = 0);
/// Views of parts of `size` (the last may be smaller), or of `sizes`, or of about equal size.
std::vector<Tensor> split(const Tensor& x, std::int64_t size, int dim = 0);
std::vector<Tensor> split(const Tensor& x, const std::vector<std::int64_t>& sizes, int dim = 0);
std::vector<Tensor> chunk(const Tensor& x, std::int64_t count, int dim = 0);
Tensor repeat(const Tensor& x, const Shape& times);
Tensor flip(const Tensor& x, const std::vector<int>& dims);
Tensor roll(const Tensor& x, std::int64_t shift, int dim);
/// Two sizes (before, after) for each of the last dimensions, from the last one back; negative ones cut off.
Tensor pad(const Tensor& x, const std::vector<std::int64_t>& sizes, double value = 0);
/// View of windows along `dim`: they become that dimension, their elements a new last one.
Tensor unfold(const Tensor& x, int dim, std::int64_t size, std::int64_t step);
Tensor tril(const Tensor& x, std::int64_t diagonal = 0);  ///< the rest becomes zero
Tensor triu(const Tensor& x, std::int64_t diagonal = 0);
Tensor diagonal(const Tensor& x, std::int64_t offset = 0, int a = 0,
                int b = 1);                      ///< view, as the last dimension
Tensor outer(const Tensor& a, const Tensor& b);  ///< (N), (M) -> (N,M)

// --- index.cpp: indices are int64; sums over equal indices go in their order, so bits are fixed
/// out[i][j] = x[index[i][j]][j] along `dim`.
Tensor gather(const Tensor& x, int dim, const Tensor& index);
/// x with out[index[i][j]][j] = src[i][j] along `dim`; of equal indices the last stays.
Tensor scatter(const Tensor& x, int dim, const Tensor& index, const Tensor& src);
Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src);
Tensor index_select(const Tensor& x, int dim, const Tensor& index);
Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src);
/// gather with broadcast
Tensor take_along_dim(const Tensor& x, const Tensor& index, int dim);
/// Rows of weight (rows, width); the row `padding_index` gets no gradient.
Tensor embedding(const Tensor& weight, const Tensor& index, std::optional<std::int64_t> padding_index = {});
/// x[indices[0], indices[1], ...]; negative ones count from the end.
Tensor index(const Tensor& x, const std::vector<Tensor>& indices);
/// x with values (broadcast) there, or added there.
Tensor index_put(const Tensor& x, const std::vector<Tensor>& indices, const Tensor& values,
                 bool accumulate = false);
Tensor nonzero(const Tensor& x);  ///< (found, dimensions)
Tensor masked_select(const Tensor& x, const Tensor& mask);
/// Stable; NaN is the largest.
Tensor argsort(const Tensor& x, int dim = -1, bool descending = false);
struct Found {
  Tensor values;
  Tensor indices;
};
Found sort(const Tensor& x, int dim = -1, bool descending = false);
Found topk(const Tensor& x, std::int64_t k, int dim = -1, bool largest = true);
Found max(const Tensor& x, int dim, bool keepdim = false);
Found min(const Tensor& x, int dim, bool keepdim = false);
/// (...) -> (..., classes) int64; classes < 0: the largest index + 1.
Tensor one_hot(const Tensor& index, std::int64_t classes = -1);

// --- create.cpp
Tensor arange(double start, double end, double step = 1, DType dtype = DType::kFloat32, Device device = kCpu);
Tensor linspace(double start, double end, std::int64_t steps, DType dtype = DType::kFloat32,
                Device device = kCpu);
Tensor eye(std::int64_t rows, std::int64_t columns, DType dtype = DType::kFloat32, Device device = kCpu);

// --- linear.cpp
/// (B,M,K) @ (B,K,N)
Tensor bmm(const Tensor& a, const Tensor& b);
/// (..., M,K) @ (..., K,N), leading dimensions broadcast; a vector is a row on the left, a column on the
/// right.
Tensor matmul(const Tensor& a, const Tensor& b);
/// x (..., in) @ w (out, in)^T + b (out); b may be undefined.
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b = {});
/// Sums products over letters that the result lacks: einsum("bij,bjk->bik", {a, b}).
Tensor einsum(const std::string& equation, const std::vector<Tensor>& operands);

// --- conv.cpp: x (N,C,H,W); results are channels-last in memory
struct Conv2dOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t groups = 1;
  std::int64_t dilation = 1;
};
/// w (O, C/groups, kh, kw), b (O) or undefined -> (N, O, (H + 2p - d(kh - 1) - 1)/s + 1, the same of W).
Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& b = {}, const Conv2dOptions& options = {});
/// x (N,C,L), w (O, C/groups, k).
Tensor conv1d(const Tensor& x, const Tensor& w, const Tensor& b = {}, const Conv2dOptions& options = {});
struct ConvTransposeOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t output_padding = 0;
  std::int64_t groups = 1;
  std::int64_t dilation = 1;
};
/// The gradient of conv2d's input: w (C, O/groups, kh, kw) -> (N, O, (H - 1)s - 2p + d(kh - 1) + op + 1,
/// ...).
Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& b = {},
                        const ConvTransposeOptions& options = {});

// --- pool.cpp
struct PoolOptions {
  std::int64_t kernel = 2;
  std::int64_t stride = 0;  ///< 0: the kernel's size
  std::int64_t padding = 0;
};
Tensor max_pool2d(const Tensor& x, const PoolOptions& options = {});
/// Padding counts as zeros.
Tensor avg_pool2d(const Tensor& x, const PoolOptions& options = {});
/// (N,C,H,W) -> (N,C,height,width), windows as equal as can be.
Tensor adaptive_avg_pool2d(const Tensor& x, std::int64_t height, std::int64_t width);
/// (N,C,H,W) -> (N,C): the mean of each channel.
Tensor global_avg_pool2d(const Tensor& x);

// --- norm.cpp
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

// --- row_norm.cpp: over the last dimensions, as many as gamma has (1 without it); gamma, beta may be
// undefined
/// J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016.
Tensor layer_norm(const Tensor& x, const Tensor& gamma = {}, const Tensor& beta = {}, double eps = 1e-5);
/// B. Zhang, R. Sennrich, "Root mean square layer normalization", 2019.
Tensor rms_norm(const Tensor& x, const Tensor& gamma = {}, double eps = 1e-6);
/// x (N,C,...), gamma and beta (C). Y. Wu, K. He, "Group normalization", 2018.
Tensor group_norm(const Tensor& x, std::int64_t groups, const Tensor& gamma = {}, const Tensor& beta = {},
                  double eps = 1e-5);

// --- loss.cpp
Tensor log_softmax(const Tensor& x, int dim = -1);
Tensor softmax(const Tensor& x, int dim = -1);

enum class LossReduction { kMean, kSum, kNone };
struct CrossEntropyOptions {
  /// Mixes in the uniform distribution. C. Szegedy et al., "Rethinking the Inception architecture", 2016.
  double label_smoothing = 0;
  Tensor weight = {};                ///< (C), of each class; the mean is then weighted, too
  std::int64_t ignore_index = -100;  ///< rows with this label count for nothing
  LossReduction reduction = LossReduction::kMean;
};
/// logits (N,C,...) with labels (N,...) int64 in 0..C-1.
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& options = {});
/// The same from log-probabilities.
Tensor nll_loss(const Tensor& log_probabilities, const Tensor& labels,
                const CrossEntropyOptions& options = {});
// Of x and target of one shape.
Tensor mse_loss(const Tensor& x, const Tensor& target, LossReduction reduction = LossReduction::kMean);
Tensor l1_loss(const Tensor& x, const Tensor& target, LossReduction reduction = LossReduction::kMean);
/// Squared (by half) up to delta, then linear. P. Huber, "Robust estimation of a location parameter", 1964.
Tensor huber_loss(const Tensor& x, const Tensor& target, double delta = 1,
                  LossReduction reduction = LossReduction::kMean);
/// Binary cross entropy of sigmoid(x).
Tensor bce_with_logits(const Tensor& x, const Tensor& target, LossReduction reduction = LossReduction::kMean);
/// target * (log target - log_x)
Tensor kl_div(const Tensor& log_x, const Tensor& target, LossReduction reduction = LossReduction::kMean);

// --- random.cpp --------------------------------------------------------------------------------------------
/// Zeroes elements with probability p and scales the rest by 1/(1-p). x's dimension 0 is the sample; element
/// e of sample s depends on (key, first_sample + s, e) alone.
Tensor dropout(const Tensor& x, double p, RandomKey key, std::int64_t first_sample = 0);
Tensor uniform(const Shape& shape, RandomKey key, double low = 0, double high = 1,
               DType dtype = DType::kFloat32);
Tensor normal(const Shape& shape, RandomKey key, double mean = 0, double std = 1,
              DType dtype = DType::kFloat32);

}  // namespace trireme
