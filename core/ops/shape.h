// Other shapes of the same elements; cutting, joining, turning and padding. See ops.h for the rules of all
// ops.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor/tensor.h"

namespace trireme {

// --- shape.cpp: views where said
/// View if the strides allow, else a copy. One size may be -1. Elements keep their row-major order.
Tensor reshape(const Tensor& x, Shape shape);
/// Merges dimensions first..last.
Tensor flatten(const Tensor& x, int first = 0, int last = -1);
Tensor permute(const Tensor& x, const std::vector<int>& order);  ///< view
Tensor transpose(const Tensor& x, int a, int b);                 ///< view
Tensor expand(const Tensor& x, const Shape& shape);              ///< view with zero strides
/// Returns a view of `count` elements from `first` on; a negative `first` counts from the end.
Tensor narrow(const Tensor& x, int dim, std::int64_t first, std::int64_t count);
Tensor squeeze(const Tensor& x, int dim);    ///< view
Tensor unsqueeze(const Tensor& x, int dim);  ///< view
/// Joins parts along `dim` and promotes their dtypes. A part of shape (0) is left out, whatever the shapes of
/// the others are.
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
Tensor pad(const Tensor& x, const std::vector<std::int64_t>& sizes, Scalar value = 0);
/// View of windows along `dim`: they become that dimension, their elements a new last one.
Tensor unfold(const Tensor& x, int dim, std::int64_t size, std::int64_t step);
Tensor tril(const Tensor& x, std::int64_t diagonal = 0);  ///< the rest becomes zero
Tensor triu(const Tensor& x, std::int64_t diagonal = 0);
Tensor diagonal(const Tensor& x, std::int64_t offset = 0, int a = 0,
                int b = 1);                      ///< view, as the last dimension
Tensor outer(const Tensor& a, const Tensor& b);  ///< (N), (M) -> (N,M)

}  // namespace trireme
