// Matrix products. See ops.h for the rules of all ops.
#pragma once

#include <string>
#include <vector>

#include "core/tensor/tensor.h"

namespace trireme {

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

}  // namespace trireme
