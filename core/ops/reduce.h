// Sums, extremes and other reductions. See ops.h for the rules of all ops.
#pragma once

#include <vector>

#include "core/tensor/tensor.h"

namespace trireme {

// --- reduce.cpp: over `dims` (negative count from the end), or over all of them if `dims` is empty
Tensor sum(const Tensor& x, const std::vector<int>& dims = {},
           bool keepdim = false);  ///< integers and bool give int64
Tensor prod(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
Tensor mean(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
/// Largest and smallest; equal ones share the gradient.
Tensor amax(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
Tensor amin(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
/// Divided by (count - correction).
Tensor var(const Tensor& x, const std::vector<int>& dims = {}, double correction = 1, bool keepdim = false);
Tensor std(const Tensor& x, const std::vector<int>& dims = {}, double correction = 1, bool keepdim = false);
/// (sum |x|^p)^(1/p). p may also be 0, which counts what is not 0, or negative, or an infinity: the largest
/// or smallest |x|.
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

}  // namespace trireme
