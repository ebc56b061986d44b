// What a device can do: a table of plain functions, one entry per kernel.
//
// Kernels know no ownership and no autograd. Shapes are checked by the caller (core/ops); a kernel
// trusts its arguments. Results do not depend on the number of threads unless an entry says so.
// x (N,C,H,W) views named "channels-last" have strides (H*W*C, 1, W*C, C).
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

/// Window of a 2-D convolution or pooling; padding is the same on both sides.
struct Window {
  std::int64_t kernel_h = 1, kernel_w = 1;
  std::int64_t stride_h = 1, stride_w = 1;
  std::int64_t padding_h = 0, padding_w = 0;
  std::int64_t dilation_h = 1, dilation_w = 1;
  /// Pooling of maxima only: window i of `count` covers i * size / count up to (i + 1) * size / count,
  /// rounded outwards; all other members are not looked at.
  bool adaptive = false;
  bool operator==(const Window&) const = default;
};

/// What each place of a resized axis is made of: the elements first[i] and, weighted by weight[i], the next
/// one (the rest of 1 is first's). Where weight[i] is 0 there need not be a next one.
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

/// Elements whose squares are summed one after the other: see KernelTable::chunk_squares.
inline constexpr std::int64_t kSquaresChunk = 8192;
constexpr std::int64_t squares_chunks(std::int64_t elements) {
  return (elements + kSquaresChunk - 1) / kSquaresChunk;
}

/// One parameter of an optimizer's step, or a part of one: dense views of one shape, float32 or float64.
struct OptimizerSlice {
  View parameter, gradient;
  View first, second;     ///< what the optimizer keeps, as it calls for them
  std::int64_t step = 1;  ///< of this parameter, counts from 1
  /// On the device: nothing is done if it is not 0. Null: it is.
  const std::int64_t* halted = nullptr;
};

/// Running statistics, and what a step brings: the sums of weighted values, of weights, and of weights times
/// momentum. Float32, dense, of one shape.
struct RunningSlice {
  View running, values;
  const float *weight, *momentum;  ///< on the device
};

/// Attention, apart from its tensors.
struct AttentionRule {
  double scale = 1;
  bool causal = false;  ///< query i looks at keys 0..i
  /// Weight e of sample s is dropped by number (key, first_sample + s, e). A sample is
  /// `matrices_per_sample` matrices (L,S).
  double dropout_p = 0;
  RandomKey key = {};
  std::int64_t first_sample = 0, matrices_per_sample = 1;
};

/// The scalars of a unary or binary op.
struct Scalars {
  Scalar a, b;
};

/// What became of recorded work, in all rounds of this thread.
struct RecordingStatistics {
  std::int64_t rounds = 0;
  std::int64_t graphs = 0;   ///< started
  std::int64_t made = 0;     ///< of these, anew
  std::int64_t work = 0;     ///< kernels and calls of libraries, in graphs or not
  std::int64_t changed = 0;  ///< of these, kernels in a graph that were given other parameters
};

/// Maps each operation to the library engine that computes it. Keys and values are one line of text each.
using EngineChoices = std::map<std::string, std::string>;

struct KernelTable {
  const char* device;
  /// Whether matmul, convolution and attention take 16-bit numbers, too; their sums are float32.
  bool multiplies_16_bits;

  /// From here on this thread's work may be gathered and started as a whole, before anything waits for it or
  /// hands it on. Each round is compared with the one before: call it where a step begins. Results are the
  /// same.
  void (*begin_recording)();
  void (*end_recording)();
  /// Starts what was gathered: before the host waits for anything else.
  void (*submit_recorded)();
  RecordingStatistics (*recording_statistics)();
  /// Versions of the libraries behind the kernels, and the kind of processor they found.
  const std::string& (*libraries)();
  /// Returns the engines that libraries have chosen in this process so far. Bits depend on them. Empty on
  /// CPUs. Any thread may call, like take_notices().
  EngineChoices (*engine_choices)();
  /// Returns the lines for the user about how this process computes that no call has returned yet, such as
  /// why attention is not fused. Each line comes once.
  std::vector<std::string> (*take_notices)();

  // Bytes between the host's memory and the device's, in the order of the kernels; they are there on return.
  void (*copy_from_host)(void* device, const void* host, std::size_t bytes);
  void (*copy_to_host)(void* host, const void* device, std::size_t bytes);
  /// The same of a few words of 4 bytes, enqueued; `host` is from allocate_host() and holds them when the
  /// stream has come so far.
  void (*enqueue_copy_to_host)(void* host, const void* device, std::size_t bytes);

  void (*fill)(const View& out, Scalar value);
  /// Converts dtypes; `in` may be broadcast by zero strides.
  void (*copy)(const View& out, const View& in);
  /// Same shape and dtype.
  void (*unary)(UnaryOp op, const View& out, const View& in, Scalars scalars);
  /// Same shape (broadcast by zero strides) and dtype.
  void (*binary)(BinaryOp op, const View& out, const View& a, const View& b);
  void (*binary_with_scalars)(BinaryOp op, const View& out, const View& a, const View& b, Scalars scalars);
  /// `out` is bool; a and b share a dtype.
  void (*compare)(CompareOp op, const View& out, const View& a, const View& b);
  /// out = condition (bool) ? a : b, broadcast by zero strides.
  void (*where)(const View& out, const View& condition, const View& a, const View& b);
  /// `out` has as many dimensions as `in`, of size 1 where reduced. Floating point is gathered in float64.
  /// `out` has in's dtype, but int64 for sums and products of integers and bool, bool for any and all. Means
  /// are of floating point only.
  void (*reduce)(ReduceOp op, const View& out, const View& in);
  /// Index of the first largest (kMax) or smallest (kMin) element of each row, NaN being both: in (R,C)
  /// row-major -> out (R) int64.
  void (*arg_extreme)(ReduceOp op, const View& out, const View& in);
  /// Running sums of the rows of in (R,C) row-major, gathered in float64 or int64; dtype of `out` as for
  /// sums.
  void (*cumsum)(const View& out, const View& in);

  // `index` is int64 and within range.
  /// out[o,i,j] = in[o, index[o,i,j], j], all with three dimensions of any strides.
  void (*gather)(const View& out, const View& in, const View& index);
  /// out[o, index[o,i,j], j] = or += in[o,i,j], in the order of i: the last one stays, sums have fixed bits.
  void (*scatter)(ScatterOp op, const View& out, const View& index, const View& in);
  /// The order (int64) that sorts each row of in (R,C), row-major. Stable; NaN is the largest.
  void (*argsort)(const View& out, const View& in, bool descending);
  /// Positions of true in mask (N), dense, to `out`, int64, which has just that many elements.
  void (*nonzero)(const View& out, const View& mask);
  /// out (N), dense: start, start + step, ... in int64 where both are whole, else in float64.
  void (*arange)(const View& out, Scalar start, Scalar step);
  /// out (N), dense: N numbers at equal distances. The first one is `start` and the last one `end`, exactly.
  void (*linspace)(const View& out, Scalar start, Scalar end);

  /// out (B,M,N) = a (B,M,K) @ b (B,K,N) + bias (N), dense, unless it is null; matrices of a and b row- or
  /// column-major. Bits may depend on threads.
  void (*matmul)(const View& out, const View& a, const View& b, const View* bias);

  // Convolution, channels-last x (N,C,H,W), w (O,C/groups,kh,kw) row-major, y (N,O,H',W') channels-last.
  // Bits may depend on threads (backward of weights).
  void (*conv2d_forward)(const View& y, const View& x, const View& w, const View* bias, const Window&,
                         std::int64_t groups);
  void (*conv2d_backward_input)(const View& dx, const View& dy, const View& w, const Window&,
                                std::int64_t groups);
  void (*conv2d_backward_weight)(const View& dw, const View& x, const View& dy, const Window&,
                                 std::int64_t groups);

  // Pooling of channels-last x. `indices` (int64, shape of y, channels-last) are h*W+w of the maxima; null
  // for average, which counts padding as zeros (PyTorch's default).
  void (*pool_forward)(PoolOp op, const View& y, const View* indices, const View& x, const Window&);
  void (*pool_backward)(PoolOp op, const View& dx, const View& dy, const View* indices, const Window&);

  // Images of another size: channels-last y (N,C,H',W') of x (N,C,H,W), and the transpose of that map.
  void (*resample_forward)(const View& y, const View& x, const Resampling& rows, const Resampling& columns);
  void (*resample_backward)(const View& dx, const View& dy, const Resampling& rows,
                            const Resampling& columns);

  // Batch normalization over channels-last x (N,C,H,W), optionally + residual and ReLU, in one pass. Vectors
  // are of x's dtype, or float32 beside images of 16 bits. mean, rstd, gamma, beta are (C). Training:
  // statistics of this batch; biased variance.
  void (*batch_norm_statistics)(const View& mean, const View& variance, const View& x);
  void (*batch_norm_apply)(const View& y, const View& x, const View& mean, const View& rstd,
                           const View& gamma, const View& beta, const View* residual, bool relu);
  /// dy is first masked by y > 0 if `y` is given (ReLU); the masked gradient goes to `dresidual` if given.
  void (*batch_norm_backward)(const View& dx, const View& dgamma, const View& dbeta, const View* dresidual,
                              const View& dy, const View& x, const View* y, const View& mean,
                              const View& rstd, const View& gamma);

  // Rows of x (R,C), row-major, to mean 0 (if centered) and mean square 1; then * gamma + beta (C), where
  // given.
  /// Also writes mean and 1/deviation (R).
  void (*row_norm_forward)(const View& y, const View& mean, const View& rstd, const View& x,
                           const View* gamma, const View* beta, double eps, bool centered);
  void (*row_norm_backward)(const View& dx, const View& dy, const View& x, const View& mean, const View& rstd,
                            const View* gamma, bool centered);
  void (*row_norm_parameters)(const View& dgamma, const View& dbeta, const View& dy, const View& x,
                              const View& mean, const View& rstd);

  /// Row-wise, x (R,C) row-major.
  void (*log_softmax)(const View& y, const View& x);

  // Cross entropy of rows of logits (R,C), row-major, with labels (R) int64 in 0..C-1. Losses and normalizers
  // are of logits' dtype, or float32 beside 16 bits.
  /// losses (R). normalizers (R,2) hold each row's largest logit, and its sum of e^(logit - largest) without
  /// the largest logit's own term, which is 1. These are two numbers, since the logarithm of the whole sum
  /// would lose the second one's digits beside a large logit.
  void (*cross_entropy_forward)(const View& losses, const View& normalizers, const View& logits,
                                const View& labels, double smoothing);
  /// dx (R,C), of logits' dtype; dlosses (R).
  void (*cross_entropy_backward)(const View& dx, const View& dlosses, const View& logits,
                                 const View& normalizers, const View& labels, double smoothing);

  // dropout(softmax(scale q k^T + mask)) v of matrices q (...,L,E), k (...,S,E), v (...,S,Ev) with dense rows
  // and E > 0. mask (...,L,S) is bool (false: not looked at) or of log_sums' dtype, which is q's, or float32
  // for 16 bits.
  /// Also writes log_sums (...,L), row-major: the logarithm of each query's sum of exponentials. A query that
  /// may look at nothing gives zeros, and infinity there.
  void (*attention_forward)(const View& out, const View& log_sums, const View& q, const View& k,
                            const View& v, const View* mask, const AttentionRule&);
  void (*attention_backward)(const View& dq, const View& dk, const View& dv, const View& dout,
                             const View& out, const View& log_sums, const View& q, const View& k,
                             const View& v, const View* mask, const AttentionRule&);

  // Recurrent cells between their matrix products; all row-major, states (N,H).
  /// gates (N,4H) are input, forget, cell and output, before sigmoid and tanh:
  /// c_next = s(f) c + s(i) tanh(g), h_next = s(o) tanh(c_next).
  void (*lstm_forward)(const View& h_next, const View& c_next, const View& gates, const View& c);
  void (*lstm_backward)(const View& dgates, const View& dc, const View& gates, const View& c,
                        const View& dh_next, const View& dc_next);
  /// gi, gh (N,3H) are reset, update and new of input and state, before sigmoid and tanh:
  /// n = tanh(gi_n + s(r) gh_n), h_next = n + s(z) (h - n).
  void (*gru_forward)(const View& h_next, const View& gi, const View& gh, const View& h);
  void (*gru_backward)(const View& dgi, const View& dgh, const View& dh, const View& gi, const View& gh,
                       const View& h, const View& dh_next);

  /// Row-major out = in * mask / (1-p); element e of sample s (dimension 0) is dropped by number
  /// (key, first_sample + s, e).
  void (*dropout)(const View& out, const View& in, double p, RandomKey key, std::int64_t first_sample);
  /// Uniform in [low, high) / normal(mean, std): element e is number (key, e). Row-major.
  void (*uniform)(const View& out, RandomKey key, double low, double high);
  void (*normal)(const View& out, RandomKey key, double mean, double std);

  // Optimizers: all parameters in one pass.
  /// `first` is the momentum's velocity, unused without momentum.
  void (*sgd)(std::span<const OptimizerSlice> slices, const SgdOptions&);
  /// `first` and `second` are the moments.
  void (*adamw)(std::span<const OptimizerSlice> slices, const AdamWOptions&);
  /// The sum of squares of each run of kSquaresChunk elements, in float64, to the next number of `out`: of
  /// one tensor after the other, each one's last run may be shorter. The host waits once. Dense.
  void (*chunk_squares)(std::span<const View> tensors, std::span<double> out);

  // Reduction of gradients (distributed/comm/ordered_reduce.h). Dense.
  /// out (N) = scale * the sum, in tree order, of parts of N elements of its dtype, float32, bfloat16 or
  /// float16: parts[k] is the sum over nodes[k]; nodes cover `shards` shards once, in shard order. Every sum
  /// of two nodes is rounded to the dtype. The scale is one rounding more, at the root only. `out` may be one
  /// of the parts.
  void (*tree_sum)(const View& out, std::span<const TreeNode> nodes, std::span<const void* const> parts,
                   int shards, float scale);
  /// To out (2), float64: the index of the first element of in (N) that is infinite or NaN, and that element;
  /// N and 0 if there is none. If there is one, *halted, on the device, becomes 1, unless it is null.
  void (*first_not_finite)(const View& out, const View& in, std::int64_t* halted);
  /// With w the weight and t = momentum / w: running = (1 - t) * running + t * (values / w), in one pass.
  /// Nothing where w is not positive, or if *halted is not 0.
  void (*running_average)(std::span<const RunningSlice> slices, const std::int64_t* halted);
};

/// The table of a device. Throws Error(kUsage) if this build or machine has no such device.
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
