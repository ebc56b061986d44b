// Attention. See ops.h for the rules of all ops.
#pragma once

#include <cstdint>
#include <optional>

#include "core/tensor/tensor.h"
#include "kernels/rng.h"

namespace trireme {

// --- attention.cpp
struct AttentionOptions {
  /// Broadcast to (...,L,S). bool: true where a query may look; floating point: added to the scores.
  Tensor attn_mask = {};
  /// The dropout probability of the weights, whose random numbers are those of
  /// dropout(weights, p, key, first_sample). Without leading dimensions there is one sample.
  double dropout_p = 0;
  bool is_causal = false;            ///< query i looks at keys 0..i; not together with attn_mask
  std::optional<double> scale = {};  ///< 1 / sqrt(E) unless given
  RandomKey key = {};
  std::int64_t first_sample = 0;
};
/// softmax(scale q k^T + attn_mask) v for q (...,L,E), k (...,S,E), v (...,S,Ev), leading dimensions
/// broadcast -> (...,L,Ev). The weights (L,S) are never kept, unless attn_mask wants a gradient. A query that
/// may look at nothing gives zeros, as in PyTorch 2.5 and later.
/// A. Vaswani et al., "Attention is all you need", 2017; T. Dao et al., "FlashAttention", 2022.
Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const AttentionOptions& options = {});

}  // namespace trireme
