// Elements at given indices; sorting. See ops.h for the rules of all ops.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/tensor/tensor.h"

namespace trireme {

// --- index.cpp: indices are int64; sums over equal indices go in their order, so bits are fixed
/// out[i][j] = x[index[i][j]][j] along `dim`.
Tensor gather(const Tensor& x, int dim, const Tensor& index);
/// x with out[index[i][j]][j] = src[i][j] along `dim`; of equal indices the last stays. src may be larger
/// than index: the rest of it is not used.
Tensor scatter(const Tensor& x, int dim, const Tensor& index, const Tensor& src);
Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src);
Tensor index_select(const Tensor& x, int dim, const Tensor& index);
Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src);
/// gather with broadcast
Tensor take_along_dim(const Tensor& x, const Tensor& index, int dim);
/// Returns rows of weight (rows, width). The row `padding_index` gets no gradient; a negative padding_index
/// counts from the end.
Tensor embedding(const Tensor& weight, const Tensor& index, std::optional<std::int64_t> padding_index = {});
/// x[indices[0], indices[1], ...]; negative ones count from the end. A bool index is a mask over as many
/// dimensions as it has.
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

}  // namespace trireme
