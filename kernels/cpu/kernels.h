// The CPU's kernels, as table.h describes them. One file per family.
#pragma once

#include "kernels/table.h"

namespace trireme::cpu {

const std::string& libraries();
void copy_from_host(void* device, const void* host, std::size_t bytes);
void copy_to_host(void* host, const void* device, std::size_t bytes);
void enqueue_copy_to_host(void* host, const void* device, std::size_t bytes);
void fill(const View& out, Scalar value);
void copy(const View& out, const View& in);
void unary(UnaryOp op, const View& out, const View& in, Scalars scalars);
void binary(BinaryOp op, const View& out, const View& a, const View& b);
void binary_with_scalars(BinaryOp op, const View& out, const View& a, const View& b, Scalars scalars);
void compare(CompareOp op, const View& out, const View& a, const View& b);
void where(const View& out, const View& condition, const View& a, const View& b);
void reduce(ReduceOp op, const View& out, const View& in);
void arg_extreme(ReduceOp op, const View& out, const View& in);
void cumsum(const View& out, const View& in);
void gather(const View& out, const View& in, const View& index);
void scatter(ScatterOp op, const View& out, const View& index, const View& in);
void argsort(const View& out, const View& in, bool descending);
void nonzero(const View& out, const View& mask);
void arange(const View& out, Scalar start, Scalar step);
void linspace(const View& out, Scalar start, Scalar end);
void matmul(const View& out, const View& a, const View& b, const View* bias);
void conv2d_forward(const View& y, const View& x, const View& w, const View* bias, const Window&,
                    std::int64_t groups);
void conv2d_backward_input(const View& dx, const View& dy, const View& w, const Window&, std::int64_t groups);
void conv2d_backward_weight(const View& dw, const View& x, const View& dy, const Window&,
                            std::int64_t groups);
void pool_forward(PoolOp op, const View& y, const View* indices, const View& x, const Window&);
void pool_backward(PoolOp op, const View& dx, const View& dy, const View* indices, const Window&);
void resample_forward(const View& y, const View& x, const Resampling& rows, const Resampling& columns);
void resample_backward(const View& dx, const View& dy, const Resampling& rows, const Resampling& columns);
void batch_norm_statistics(const View& mean, const View& variance, const View& x);
void batch_norm_apply(const View& y, const View& x, const View& mean, const View& rstd, const View& gamma,
                      const View& beta, const View* residual, bool relu);
void batch_norm_backward(const View& dx, const View& dgamma, const View& dbeta, const View* dresidual,
                         const View& dy, const View& x, const View* y, const View& mean, const View& rstd,
                         const View& gamma);
void row_norm_forward(const View& y, const View& mean, const View& rstd, const View& x, const View* gamma,
                      const View* beta, double eps, bool centered);
void row_norm_backward(const View& dx, const View& dy, const View& x, const View& mean, const View& rstd,
                       const View* gamma, bool centered);
void row_norm_parameters(const View& dgamma, const View& dbeta, const View& dy, const View& x,
                         const View& mean, const View& rstd);
void log_softmax(const View& y, const View& x);
void cross_entropy_forward(const View& losses, const View& normalizers, const View& logits,
                           const View& labels, double smoothing);
void cross_entropy_backward(const View& dx, const View& dlosses, const View& logits, const View& normalizers,
                            const View& labels, double smoothing);
void attention_forward(const View& out, const View& log_sums, const View& q, const View& k, const View& v,
                       const View* mask, const AttentionRule&);
void attention_backward(const View& dq, const View& dk, const View& dv, const View& dout, const View& out,
                        const View& log_sums, const View& q, const View& k, const View& v, const View* mask,
                        const AttentionRule&);
void lstm_forward(const View& h_next, const View& c_next, const View& gates, const View& c);
void lstm_backward(const View& dgates, const View& dc, const View& gates, const View& c, const View& dh_next,
                   const View& dc_next);
void gru_forward(const View& h_next, const View& gi, const View& gh, const View& h);
void gru_backward(const View& dgi, const View& dgh, const View& dh, const View& gi, const View& gh,
                  const View& h, const View& dh_next);
void dropout(const View& out, const View& in, double p, RandomKey key, std::int64_t first_sample);
void uniform(const View& out, RandomKey key, double low, double high);
void normal(const View& out, RandomKey key, double mean, double std);
void sgd(std::span<const OptimizerSlice> slices, const SgdOptions&);
void adamw(std::span<const OptimizerSlice> slices, const AdamWOptions&);
void chunk_squares(std::span<const View> tensors, std::span<double> out);
void tree_sum(const View& out, std::span<const TreeNode> nodes, std::span<const void* const> parts,
              int shards, float scale);
void first_not_finite(const View& out, const View& in, std::int64_t* halted);
void running_average(std::span<const RunningSlice> slices, const std::int64_t* halted);

}  // namespace trireme::cpu
