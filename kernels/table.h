// The kernels of a device: a table of function pointers, one entry per kernel.
//
// Kernels own no memory and know nothing of autograd. The caller (core/ops) checks shapes and dtypes; a
// kernel trusts its arguments. Results do not depend on the number of threads unless an entry says so. A view
// (N,C,H,W) is "channels-last" if its strides are (H*W*C, 1, W*C, C).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/rng.h"
#include "kernels/scalar.h"
#include "kernels/tree.h"
#include "kernels/view.h"

namespace trireme {

enum class ReduceOp { kSum, kProd, kMean, kMax, kMin, kAny, kAll };
enum class ScatterOp { kSet, kAdd };
enum class PoolOp { kMax, kAverage };

/// The window of a 2-D convolution or pooling. Padding is the same on both sides.
struct Window {
  std::int64_t kernel_h = 1, kernel_w = 1;
  std::int64_t stride_h = 1, stride_w = 1;
  std::int64_t padding_h = 0, padding_w = 0;
  std::int64_t dilation_h = 1, dilation_w = 1;
  /// For max pooling only. If true, window i of `count` covers the elements from i * size / count to
  /// (i + 1) * size / count, rounded outwards, and the other members are ignored.
  bool adaptive = false;
  bool operator==(const Window&) const = default;
};

/// The linear interpolation of a resized axis. Element i of the result is (1 - weight[i]) times element
/// first[i] plus weight[i] times the next element. If weight[i] is 0, there need not be a next element.
struct Resampling {
  std::vector<std::int64_t> first;
  std::vector<double> weight;
};

struct SgdOptions {
  double lr = 0.01, momentum = 0, weight_decay = 0;
  bool nesterov = false;
};

struct AdamWOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
};

/// The number of elements in a chunk of KernelTable::chunk_squares.
inline constexpr std::int64_t kSquaresChunk = 8192;
constexpr std::int64_t squares_chunks(std::int64_t elements) {
  return (elements + kSquaresChunk - 1) / kSquaresChunk;
}

/// One parameter of an optimizer's step, or a slice of one: dense views of the same shape, float32 or
/// float64.
struct OptimizerSlice {
  View parameter, gradient;
  View first, second;     ///< the optimizer's state; each optimizer kernel says what it is
  std::int64_t step = 1;  ///< the number of this parameter's step, from 1
  /// An optional flag on the device: the update is skipped if it is not 0. Null means that it is 0.
  const std::int64_t* halted = nullptr;
};

/// Running statistics and the sums over a step that update them: `values` is the sum of weight * value,
/// `weight` the sum of weights, and `momentum` the sum of weight * momentum. The views are dense float32 of
/// the same shape.
struct RunningSlice {
  View running, values;
  const float *weight, *momentum;  ///< on the device
};

/// The parameters of attention that are not tensors.
struct AttentionRule {
  double scale = 1;
  bool causal = false;  ///< if true, query i attends to keys 0..i only
  /// Dropout's probability. Random number (key, first_sample + s, e) decides whether weight e of sample s is
  /// dropped. A sample is `matrices_per_sample` matrices (L,S).
  double dropout_p = 0;
  RandomKey key = {};
  std::int64_t first_sample = 0, matrices_per_sample = 1;
};

/// The scalars of a unary or binary op.
struct Scalars {
  Scalar a, b;
};

/// Counts of the recorded work of this thread, over all rounds. A round is the work between two calls of
/// begin_recording().
struct RecordingStatistics {
  std::int64_t rounds = 0;
  std::int64_t graphs = 0;   ///< launches of graphs
  std::int64_t made = 0;     ///< graphs captured
  std::int64_t work = 0;     ///< kernels and library calls, in graphs or not
  std::int64_t changed = 0;  ///< kernels in a graph whose parameters were updated
};

/// Maps each operation to the library engine that computes it. Keys and values are one line of text each.
using EngineChoices = std::map<std::string, std::string>;

struct KernelTable {
  const char* device;
  /// True if matmul, convolution and attention accept 16-bit numbers, too. Their sums are float32.
  bool multiplies_16_bits;

  /// Begins a round of recording: this thread's work may be collected and launched as CUDA graphs, before
  /// anything waits for it or uses its results elsewhere. Each round is compared with the previous one, so
  /// call this at the beginning of a step. Recording does not change results.
  void (*begin_recording)();
  void (*end_recording)();
  /// Launches the recorded work. Call it before the CPU waits for anything other than the kernels' results.
  void (*submit_recorded)();
  RecordingStatistics (*recording_statistics)();
  /// Returns the versions of the libraries that the kernels use, and the kind of processor that they found.
  const std::string& (*libraries)();
  /// Returns the engines that libraries have chosen in this process so far. Bits depend on them. Empty on
  /// CPUs. Any thread may call, like take_notices().
  EngineChoices (*engine_choices)();
  /// Returns the lines for the user about how this process computes that no call has returned yet, such as
  /// why attention is not fused. Each line comes once.
  std::vector<std::string> (*take_notices)();

  // These copy bytes between CPU memory and the device, in order with the kernels. They return when the bytes
  // have arrived.
  void (*copy_from_host)(void* device, const void* host, std::size_t bytes);
  void (*copy_to_host)(void* host, const void* device, std::size_t bytes);
  /// Enqueues a copy of a few 4-byte words from the device and returns at once. `host` must be from
  /// allocate_host(). It holds the words once the stream has reached the copy.
  void (*enqueue_copy_to_host)(void* host, const void* device, std::size_t bytes);

  void (*fill)(const View& out, Scalar value);
  /// Copies `in` to `out` and converts the dtype. `in` may be broadcast by zero strides.
  void (*copy)(const View& out, const View& in);
  /// Computes out = op(in), elementwise. Both have the same shape and dtype.
  void (*unary)(UnaryOp op, const View& out, const View& in, Scalars scalars);
  /// Computes out = op(a, b), elementwise. All have the same dtype, and the same shape by zero strides.
  void (*binary)(BinaryOp op, const View& out, const View& a, const View& b);
  void (*binary_with_scalars)(BinaryOp op, const View& out, const View& a, const View& b, Scalars scalars);
  /// Computes out = op(a, b), elementwise. `out` is bool; a and b have the same dtype.
  void (*compare)(CompareOp op, const View& out, const View& a, const View& b);
  /// Computes out = condition ? a : b, elementwise. `condition` is bool. Inputs may be broadcast by zero
  /// strides.
  void (*where)(const View& out, const View& condition, const View& a, const View& b);
  /// Reduces the dimensions of `in` that have size 1 in `out`, which has as many dimensions as `in`. Floating
  /// point is accumulated in float64. `out` has in's dtype, except for int64 sums and products of integers
  /// and bool, and bool results of any and all. Means are defined for floating point only.
  void (*reduce)(ReduceOp op, const View& out, const View& in);
  /// Computes argmax (kMax) or argmin (kMin) of each row: in (R,C) row-major -> out (R) int64. The first of
  /// equal elements counts, and a NaN counts as both largest and smallest.
  void (*arg_extreme)(ReduceOp op, const View& out, const View& in);
  /// Computes cumulative sums along the rows of in (R,C), row-major, accumulated in float64 or int64. `out`
  /// has the dtype that reduce() gives sums.
  void (*cumsum)(const View& out, const View& in);

  // In the next two kernels `index` is int64 and within range.
  /// Computes out[o,i,j] = in[o, index[o,i,j], j]. All views have three dimensions of any strides.
  void (*gather)(const View& out, const View& in, const View& index);
  /// Computes out[o, index[o,i,j], j] = in[o,i,j] (kSet) or += (kAdd), in the order of i. With kSet the last
  /// element for a place stays; with kAdd the sums have fixed bits.
  void (*scatter)(ScatterOp op, const View& out, const View& index, const View& in);
  /// Computes the order (int64) that sorts each row of in (R,C), row-major. The sort is stable, and NaN is
  /// the largest number.
  void (*argsort)(const View& out, const View& in, bool descending);
  /// Writes the indices of the true elements of mask (N), dense, to `out`. `out` is int64 and has exactly as
  /// many elements.
  void (*nonzero)(const View& out, const View& mask);
  /// Writes start, start + step, ... to out (N), dense. It counts in int64 if both numbers are whole, else in
  /// float64.
  void (*arange)(const View& out, Scalar start, Scalar step);
  /// Writes N numbers at equal distances to out (N), dense. The first is exactly `start` and the last exactly
  /// `end`.
  void (*linspace)(const View& out, Scalar start, Scalar end);

  /// Computes out (B,M,N) = a (B,M,K) @ b (B,K,N) + bias (N). `bias` is dense, or null for none. The matrices
  /// of a and b are row-major or column-major. Bits may depend on the number of threads.
  void (*matmul)(const View& out, const View& a, const View& b, const View* bias);

  // Convolution of channels-last x (N,C,H,W) with row-major w (O,C/groups,kh,kw), to channels-last
  // y (N,O,H',W'). The bits of the gradient of w may depend on the number of threads.
  void (*conv2d_forward)(const View& y, const View& x, const View& w, const View* bias, const Window&,
                         std::int64_t groups);
  void (*conv2d_backward_input)(const View& dx, const View& dy, const View& w, const Window&,
                                std::int64_t groups);
  void (*conv2d_backward_weight)(const View& dw, const View& x, const View& dy, const Window&,
                                 std::int64_t groups);

  // Pooling of channels-last x. `indices` (int64, channels-last, y's shape) holds h*W+w of each maximum. It
  // is null for averages, which count padding as zeros (PyTorch's default).
  void (*pool_forward)(PoolOp op, const View& y, const View* indices, const View& x, const Window&);
  void (*pool_backward)(PoolOp op, const View& dx, const View& dy, const View* indices, const Window&);

  // Resizing of channels-last images: x (N,C,H,W) to y (N,C,H',W'). Backward is the transpose of that map.
  void (*resample_forward)(const View& y, const View& x, const Resampling& rows, const Resampling& columns);
  void (*resample_backward)(const View& dx, const View& dy, const Resampling& rows,
                            const Resampling& columns);

  // Batch normalization over channels-last x (N,C,H,W), optionally with a residual added and ReLU, in one
  // pass. mean, rstd, gamma and beta are (C). They have x's dtype, or float32 if x has 16 bits.
  /// Computes the mean and the biased variance of each channel of x.
  void (*batch_norm_statistics)(const View& mean, const View& variance, const View& x);
  void (*batch_norm_apply)(const View& y, const View& x, const View& mean, const View& rstd,
                           const View& gamma, const View& beta, const View* residual, bool relu);
  /// Computes gradients for statistics of this batch. If `y` is given (ReLU), dy is first masked by y > 0. If
  /// `dresidual` is given, it receives the masked gradient.
  void (*batch_norm_backward)(const View& dx, const View& dgamma, const View& dbeta, const View* dresidual,
                              const View& dy, const View& x, const View* y, const View& mean,
                              const View& rstd, const View& gamma);

  // Layer norm (centered) and RMS norm (not centered) of the rows of x (R,C), row-major.
  /// Normalizes rows to mean 0, if centered, and mean square 1, and computes y = normalized * gamma + beta.
  /// gamma and beta (C) may be null. Also writes the mean and 1/deviation of each row (R).
  void (*row_norm_forward)(const View& y, const View& mean, const View& rstd, const View& x,
                           const View* gamma, const View* beta, double eps, bool centered);
  void (*row_norm_backward)(const View& dx, const View& dy, const View& x, const View& mean, const View& rstd,
                            const View* gamma, bool centered);
  void (*row_norm_parameters)(const View& dgamma, const View& dbeta, const View& dy, const View& x,
                              const View& mean, const View& rstd);

  /// Computes the logarithm of softmax of each row of x (R,C), row-major.
  void (*log_softmax)(const View& y, const View& x);

  // Cross entropy of rows of logits (R,C), row-major, with labels (R) int64 in 0..C-1. Losses and normalizers
  // have the dtype of the logits, or float32 if the logits have 16 bits.
  /// Computes losses (R) and normalizers (R,2). The normalizers hold each row's largest logit, and its sum of
  /// e^(logit - largest) without the largest logit's own term, which is 1. These are two numbers, since the
  /// logarithm of the whole sum would lose the second one's digits beside a large logit.
  void (*cross_entropy_forward)(const View& losses, const View& normalizers, const View& logits,
                                const View& labels, double smoothing);
  /// Computes dx (R,C), which has the dtype of the logits, from dlosses (R).
  void (*cross_entropy_backward)(const View& dx, const View& dlosses, const View& logits,
                                 const View& normalizers, const View& labels, double smoothing);

  // Attention: dropout(softmax(scale q k^T + mask)) v of matrices q (...,L,E), k (...,S,E), v (...,S,Ev) with
  // dense rows and E > 0. mask (...,L,S) is bool, where false excludes a key, or has the dtype of log_sums.
  // log_sums have q's dtype, or float32 if q has 16 bits.
  /// Computes `out`, and log_sums (...,L), row-major: the logarithm of each query's sum of exponentials. For
  /// a query without keys the outputs are zeros and its log_sum is infinity.
  void (*attention_forward)(const View& out, const View& log_sums, const View& q, const View& k,
                            const View& v, const View* mask, const AttentionRule&);
  void (*attention_backward)(const View& dq, const View& dk, const View& dv, const View& dout,
                             const View& out, const View& log_sums, const View& q, const View& k,
                             const View& v, const View* mask, const AttentionRule&);

  // The elementwise part of recurrent cells, between their matrix products. All views are row-major; states
  // are (N,H), and s is the sigmoid.
  /// Computes c_next = s(f) c + s(i) tanh(g) and h_next = s(o) tanh(c_next). gates (N,4H) holds i, f, g and o
  /// (input, forget, cell, output), before sigmoid and tanh.
  void (*lstm_forward)(const View& h_next, const View& c_next, const View& gates, const View& c);
  void (*lstm_backward)(const View& dgates, const View& dc, const View& gates, const View& c,
                        const View& dh_next, const View& dc_next);
  /// Computes n = tanh(gi_n + s(r) gh_n) and h_next = n + s(z) (h - n). gi and gh (N,3H) hold r, z and n
  /// (reset, update, new) of the input and of the state, before sigmoid and tanh.
  void (*gru_forward)(const View& h_next, const View& gi, const View& gh, const View& h);
  void (*gru_backward)(const View& dgi, const View& dgh, const View& dh, const View& gi, const View& gh,
                       const View& h, const View& dh_next);

  /// Computes out = in * mask / (1-p), both row-major. Random number (key, first_sample + s, e) decides
  /// whether element e of sample s (dimension 0) is dropped.
  void (*dropout)(const View& out, const View& in, double p, RandomKey key, std::int64_t first_sample);
  /// Fill a row-major view with numbers that are uniform in [low, high), or normal with this mean and
  /// deviation. Element e is random number (key, e).
  void (*uniform)(const View& out, RandomKey key, double low, double high);
  void (*normal)(const View& out, RandomKey key, double mean, double std);

  // Optimizers. Each call updates all parameters in one pass.
  /// Makes a step of SGD. `first` of a slice is the velocity, which is not used without momentum.
  void (*sgd)(std::span<const OptimizerSlice> slices, const SgdOptions&);
  /// Makes a step of AdamW. `first` and `second` of a slice are the first and second moments.
  void (*adamw)(std::span<const OptimizerSlice> slices, const AdamWOptions&);
  /// Computes the sum of squares of each chunk of kSquaresChunk elements, in float64. `out` holds the chunks
  /// of one tensor after the other; the last chunk of each tensor may be shorter. Tensors are dense. The CPU
  /// waits for the device once.
  void (*chunk_squares)(std::span<const View> tensors, std::span<double> out);

  // Reduction of gradients (distributed/comm/ordered_reduce.h). All views are dense.
  /// Computes out (N) = scale * the sum of `parts` in tree order. Each part has N elements of out's dtype:
  /// float32, bfloat16 or float16. parts[k] is the sum over nodes[k], and the nodes cover each of `shards`
  /// shards once, in shard order. Every sum of two nodes is rounded to the dtype. The scale adds one
  /// rounding, at the root only. `out` may be one of the parts.
  void (*tree_sum)(const View& out, std::span<const TreeNode> nodes, std::span<const void* const> parts,
                   int shards, float scale);
  /// Writes to out (2), float64, the index and value of the first element of in (N) that is infinite or NaN,
  /// or N and 0 if there is none. If there is one and `halted` is not null, sets *halted, on the device,
  /// to 1.
  void (*first_not_finite)(const View& out, const View& in, std::int64_t* halted);
  /// Computes running = (1 - t) * running + t * (values / w) in one pass, where w is the weight and
  /// t = momentum / w. Changes nothing if w is not positive or *halted is not 0.
  void (*running_average)(std::span<const RunningSlice> slices, const std::int64_t* halted);
};

/// Returns the table of a device. Throws Error(kUsage) if this build or machine has no such device.
const KernelTable& kernels_of(Device device);

/// Lets kernels that the calling thread runs use `threads` threads, this one included. Throws Error(kUsage)
/// where OpenMP provides another number: libraries that divide their work among `threads` threads would wait
/// for ever for those that are missing.
void set_threads(int threads);
/// Returns how many threads kernels that the calling thread runs may use.
int threads();

/// Throws Error(kUsage) if this CPU lacks the instruction set that the kernels were compiled for.
void check_cpu();

}  // namespace trireme
