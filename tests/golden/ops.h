// The functions that golden cases of ops call, in a table under their declarations.
#pragma once

#include <map>

#include "tests/golden/arguments.h"

// OP(add, Tensor, Scalar) makes the table entry "add(Tensor, Scalar)". IN_PLACE makes an entry that runs the
// op on a copy of the first argument.
#define OP(name, ...)                                                                  \
  {                                                                                    \
#name "(" #__VA_ARGS__ ")", call_of < __VA_ARGS__>(                                \
                                              [](const auto&... x) requires requires { \
                                                trireme::name(x...);                   \
                                              } { return trireme::name(x...); })       \
  }
#define IN_PLACE(name, ...)                                                                             \
  {                                                                                                     \
#name "(" #__VA_ARGS__ ")", call_of < __VA_ARGS__>(                                                 \
                                              [](const Tensor& t, const auto&... x) requires requires { \
                                                trireme::name(t, x...);                                 \
                                              } { return trireme::name(t.clone(), x...); })             \
  }

namespace trireme::test {

/// Runs batch_norm. The arguments are x, gamma, beta, the residual, {"eps", "relu"}, and the fixed mean and
/// variance if there are any. Without those, also returns the measured mean and variance.
inline Tensors golden_batch_norm(const Json& arguments, const Tensors& inputs) {
  const auto tensor = [&](std::size_t i) { return decode<Tensor>(arguments.at(i), inputs); };
  BatchStatistics fixed, measured;
  BatchNormOptions options;
  Members(arguments.at(4), inputs)("eps", options.eps)("relu", options.relu).end();
  options.measured = &measured;
  if (arguments.size() > 5) {
    fixed = {tensor(5), tensor(6)};
    options.fixed = &fixed;
  }
  const Tensor out = batch_norm(tensor(0), tensor(1), tensor(2), tensor(3), options);
  return options.fixed ? Tensors{out} : Tensors{out, measured.mean, measured.variance};
}

inline const std::map<std::string, Call> kOps = {

    // attention
    OP(scaled_dot_product_attention, Tensor, Tensor, Tensor, AttentionOptions),

    // conv
    OP(conv2d, Tensor, Tensor, Tensor, Conv2dOptions),
    OP(conv1d, Tensor, Tensor, Tensor, Conv2dOptions),
    OP(conv_transpose2d, Tensor, Tensor, Tensor, ConvTransposeOptions),
    OP(max_pool2d, Tensor, PoolOptions),
    OP(avg_pool2d, Tensor, PoolOptions),
    OP(adaptive_avg_pool2d, Tensor, std::int64_t, std::int64_t),
    OP(adaptive_max_pool2d, Tensor, std::int64_t, std::int64_t),
    OP(global_avg_pool2d, Tensor),
    OP(interpolate, Tensor, InterpolateOptions),

    // create
    OP(arange, Scalar, Scalar, Scalar, DType, Device),
    OP(linspace, Scalar, Scalar, std::int64_t, DType, Device),
    OP(eye, std::int64_t, std::int64_t, DType, Device),

    // elementwise
    OP(neg, Tensor),
    OP(abs, Tensor),
    OP(sign, Tensor),
    OP(square, Tensor),
    OP(relu, Tensor),
    OP(exp, Tensor),
    OP(exp2, Tensor),
    OP(expm1, Tensor),
    OP(log, Tensor),
    OP(log2, Tensor),
    OP(log10, Tensor),
    OP(log1p, Tensor),
    OP(sqrt, Tensor),
    OP(rsqrt, Tensor),
    OP(reciprocal, Tensor),
    OP(sin, Tensor),
    OP(cos, Tensor),
    OP(tan, Tensor),
    OP(asin, Tensor),
    OP(acos, Tensor),
    OP(atan, Tensor),
    OP(sinh, Tensor),
    OP(cosh, Tensor),
    OP(tanh, Tensor),
    OP(erf, Tensor),
    OP(erfc, Tensor),
    OP(floor, Tensor),
    OP(ceil, Tensor),
    OP(round, Tensor),
    OP(trunc, Tensor),
    OP(sigmoid, Tensor),
    OP(log_sigmoid, Tensor),
    OP(softplus, Tensor),
    OP(silu, Tensor),
    OP(gelu, Tensor, Gelu),
    OP(leaky_relu, Tensor, double),
    OP(elu, Tensor, double),
    OP(relu6, Tensor),
    OP(hardtanh, Tensor, double, double),
    OP(clamp, Tensor, std::optional<Scalar>, std::optional<Scalar>),
    OP(nan_to_num, Tensor, double),
    OP(add, Tensor, Scalar),
    OP(sub, Tensor, Scalar),
    OP(rsub, Tensor, Scalar),
    OP(mul, Tensor, Scalar),
    OP(div, Tensor, Scalar),
    OP(pow, Tensor, Scalar),
    OP(pow, Scalar, Tensor),
    IN_PLACE(neg_, Tensor),
    IN_PLACE(abs_, Tensor),
    IN_PLACE(sign_, Tensor),
    IN_PLACE(square_, Tensor),
    IN_PLACE(relu_, Tensor),
    IN_PLACE(exp_, Tensor),
    IN_PLACE(exp2_, Tensor),
    IN_PLACE(expm1_, Tensor),
    IN_PLACE(log_, Tensor),
    IN_PLACE(log2_, Tensor),
    IN_PLACE(log10_, Tensor),
    IN_PLACE(log1p_, Tensor),
    IN_PLACE(sqrt_, Tensor),
    IN_PLACE(rsqrt_, Tensor),
    IN_PLACE(reciprocal_, Tensor),
    IN_PLACE(sin_, Tensor),
    IN_PLACE(cos_, Tensor),
    IN_PLACE(tan_, Tensor),
    IN_PLACE(asin_, Tensor),
    IN_PLACE(acos_, Tensor),
    IN_PLACE(atan_, Tensor),
    IN_PLACE(sinh_, Tensor),
    IN_PLACE(cosh_, Tensor),
    IN_PLACE(tanh_, Tensor),
    IN_PLACE(erf_, Tensor),
    IN_PLACE(erfc_, Tensor),
    IN_PLACE(floor_, Tensor),
    IN_PLACE(ceil_, Tensor),
    IN_PLACE(round_, Tensor),
    IN_PLACE(trunc_, Tensor),
    IN_PLACE(sigmoid_, Tensor),
    IN_PLACE(log_sigmoid_, Tensor),
    IN_PLACE(softplus_, Tensor),
    IN_PLACE(silu_, Tensor),
    OP(add, Tensor, Tensor),
    OP(sub, Tensor, Tensor),
    OP(mul, Tensor, Tensor),
    OP(div, Tensor, Tensor),
    OP(pow, Tensor, Tensor),
    OP(atan2, Tensor, Tensor),
    OP(remainder, Tensor, Tensor),
    OP(fmod, Tensor, Tensor),
    OP(floor_divide, Tensor, Tensor),
    OP(remainder, Tensor, Scalar),
    OP(fmod, Tensor, Scalar),
    OP(floor_divide, Tensor, Scalar),
    OP(maximum, Tensor, Tensor),
    OP(minimum, Tensor, Tensor),
    OP(lerp, Tensor, Tensor, double),
    OP(lerp, Tensor, Tensor, Tensor),
    OP(addcmul, Tensor, Tensor, Tensor, Scalar),
    OP(addcdiv, Tensor, Tensor, Tensor, double),
    OP(where, Tensor, Tensor, Tensor),
    OP(masked_fill, Tensor, Tensor, Scalar),
    OP(operator+, Tensor, Tensor),
    OP(operator-, Tensor, Tensor),
    OP(operator*, Tensor, Tensor),
    OP(operator/, Tensor, Tensor),
    OP(operator+, Tensor, Scalar),
    OP(operator-, Tensor, Scalar),
    OP(operator*, Tensor, Scalar),
    OP(operator/, Tensor, Scalar),
    OP(operator+, Scalar, Tensor),
    OP(operator-, Scalar, Tensor),
    OP(operator*, Scalar, Tensor),
    OP(operator/, Scalar, Tensor),
    OP(operator-, Tensor),
    OP(eq, Tensor, Tensor),
    OP(ne, Tensor, Tensor),
    OP(lt, Tensor, Tensor),
    OP(le, Tensor, Tensor),
    OP(gt, Tensor, Tensor),
    OP(ge, Tensor, Tensor),
    OP(eq, Tensor, Scalar),
    OP(ne, Tensor, Scalar),
    OP(lt, Tensor, Scalar),
    OP(le, Tensor, Scalar),
    OP(gt, Tensor, Scalar),
    OP(ge, Tensor, Scalar),
    OP(logical_and, Tensor, Tensor),
    OP(logical_or, Tensor, Tensor),
    OP(logical_xor, Tensor, Tensor),
    OP(logical_not, Tensor),
    OP(isnan, Tensor),
    OP(isinf, Tensor),
    OP(isfinite, Tensor),
    OP(to, Tensor, DType),
    IN_PLACE(add_, Tensor, Tensor),
    IN_PLACE(sub_, Tensor, Tensor),
    IN_PLACE(mul_, Tensor, Tensor),
    IN_PLACE(div_, Tensor, Tensor),
    IN_PLACE(add_, Tensor, Scalar),
    IN_PLACE(mul_, Tensor, Scalar),
    IN_PLACE(clamp_, Tensor, std::optional<Scalar>, std::optional<Scalar>),
    IN_PLACE(masked_fill_, Tensor, Tensor, Scalar),
    IN_PLACE(fill_, Tensor, Scalar),
    IN_PLACE(zero_, Tensor),
    IN_PLACE(copy_, Tensor, Tensor),

    // index
    OP(gather, Tensor, int, Tensor),
    OP(scatter, Tensor, int, Tensor, Tensor),
    OP(scatter_add, Tensor, int, Tensor, Tensor),
    OP(index_select, Tensor, int, Tensor),
    OP(index_add, Tensor, int, Tensor, Tensor),
    OP(take_along_dim, Tensor, Tensor, int),
    OP(embedding, Tensor, Tensor, std::optional<std::int64_t>),
    OP(index, Tensor, std::vector<Tensor>),
    OP(index_put, Tensor, std::vector<Tensor>, Tensor, bool),
    OP(nonzero, Tensor),
    OP(masked_select, Tensor, Tensor),
    OP(argsort, Tensor, int, bool),
    OP(sort, Tensor, int, bool),
    OP(topk, Tensor, std::int64_t, int, bool),
    OP(max, Tensor, int, bool),
    OP(min, Tensor, int, bool),
    OP(one_hot, Tensor, std::int64_t),

    // linear
    OP(bmm, Tensor, Tensor),
    OP(matmul, Tensor, Tensor),
    OP(linear, Tensor, Tensor, Tensor),
    OP(einsum, std::string, std::vector<Tensor>),

    // loss
    OP(log_softmax, Tensor, int),
    OP(softmax, Tensor, int),
    OP(cross_entropy, Tensor, Tensor, CrossEntropyOptions),
    OP(nll_loss, Tensor, Tensor, CrossEntropyOptions),
    OP(mse_loss, Tensor, Tensor, LossReduction),
    OP(l1_loss, Tensor, Tensor, LossReduction),
    OP(huber_loss, Tensor, Tensor, double, LossReduction),
    OP(bce_with_logits, Tensor, Tensor, LossReduction),
    OP(kl_div, Tensor, Tensor, LossReduction),

    // norm
    OP(layer_norm, Tensor, Tensor, Tensor, double),
    OP(rms_norm, Tensor, Tensor, double),
    OP(group_norm, Tensor, std::int64_t, Tensor, Tensor, double),

    // recurrent
    OP(lstm_cell, Tensor, Tensor),
    OP(lstm_cell, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor),
    OP(gru_cell, Tensor, Tensor, Tensor),
    OP(gru_cell, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor),
    OP(rnn_tanh_cell, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor),
    OP(rnn_relu_cell, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor),

    // reduce
    OP(sum, Tensor, std::vector<int>, bool),
    OP(prod, Tensor, std::vector<int>, bool),
    OP(mean, Tensor, std::vector<int>, bool),
    OP(amax, Tensor, std::vector<int>, bool),
    OP(amin, Tensor, std::vector<int>, bool),
    OP(var, Tensor, std::vector<int>, double, bool),
    OP(std, Tensor, std::vector<int>, double, bool),
    OP(norm, Tensor, double, std::vector<int>, bool),
    OP(logsumexp, Tensor, std::vector<int>, bool),
    OP(any, Tensor, std::vector<int>, bool),
    OP(all, Tensor, std::vector<int>, bool),
    OP(argmax, Tensor, int, bool),
    OP(argmin, Tensor, int, bool),
    OP(cumsum, Tensor, int),
    OP(sum_to, Tensor, Shape),

    // shape
    OP(reshape, Tensor, Shape),
    OP(flatten, Tensor, int, int),
    OP(permute, Tensor, std::vector<int>),
    OP(transpose, Tensor, int, int),
    OP(expand, Tensor, Shape),
    OP(narrow, Tensor, int, std::int64_t, std::int64_t),
    OP(squeeze, Tensor, int),
    OP(unsqueeze, Tensor, int),
    OP(cat, std::vector<Tensor>, int),
    OP(contiguous, Tensor),
    OP(channels_last, Tensor),
    OP(select, Tensor, int, std::int64_t),
    OP(stack, std::vector<Tensor>, int),
    OP(split, Tensor, std::int64_t, int),
    OP(split, Tensor, std::vector<std::int64_t>, int),
    OP(chunk, Tensor, std::int64_t, int),
    OP(repeat, Tensor, Shape),
    OP(flip, Tensor, std::vector<int>),
    OP(roll, Tensor, std::int64_t, int),
    OP(pad, Tensor, std::vector<std::int64_t>, Scalar),
    OP(unfold, Tensor, int, std::int64_t, std::int64_t),
    OP(tril, Tensor, std::int64_t),
    OP(triu, Tensor, std::int64_t),
    OP(diagonal, Tensor, std::int64_t, int, int),
    OP(outer, Tensor, Tensor),
    {"batch_norm(Tensor, Tensor, Tensor, Tensor, BatchNormOptions)", golden_batch_norm},
};

}  // namespace trireme::test

#undef OP
#undef IN_PLACE
