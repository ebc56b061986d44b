// Attention. Names, arguments and defaults are PyTorch's.
#pragma once

#include <cstdint>

#include "core/nn/dropout.h"
#include "core/nn/linear.h"
#include "core/nn/module.h"

namespace trireme::nn {

struct MultiheadAttentionOptions {
  double dropout = 0;  ///< of the weights
  bool bias = true;
  bool batch_first = false;  ///< tensors are (N,L,E) instead of (L,N,E)
};

/// Who may look at what. L queries, S keys.
struct AttentionMask {
  /// (L,S) or (N*heads,L,S). bool: true where a query may not look; floating point: added to the scores.
  Tensor mask = {};
  Tensor key_padding_mask = {};  ///< (N,S). bool: true where a key is padding; floating point: added
  bool is_causal = false;        ///< query i looks at keys 0..i, beside what the masks say
};

struct Attended {
  Tensor output;   ///< as query
  Tensor weights;  ///< (N,L,S), or (N,heads,L,S) if not averaged; undefined unless asked for
};

/// Attention of several heads: A. Vaswani et al., "Attention is all you need", 2017. Query (L,N,E), key and
/// value (S,N,E), or (N,...,E) with batch_first, or without N. A query that may look at nothing gives
/// out_proj's bias.
class MultiheadAttention : public Module {
 public:
  MultiheadAttention(std::int64_t embed_dim, std::int64_t num_heads, MultiheadAttentionOptions options = {});
  Tensor operator()(const Tensor& query, const Tensor& key, const Tensor& value,
                    const AttentionMask& mask = {});
  Tensor forward(const Tensor& query, const Tensor& key, const Tensor& value, const AttentionMask& mask = {});
  /// Of x to itself.
  Tensor forward(const Tensor& x) override { return forward(x, x, x); }
  using Module::operator();
  /// The same and the weights, which are else never kept.
  Attended with_weights(const Tensor& query, const Tensor& key, const Tensor& value,
                        const AttentionMask& mask = {}, bool average = true);
  void visit(Visitor& v) override;

  std::int64_t embed_dim, num_heads;
  Tensor in_proj_weight;  ///< (3E,E): of query, key and value
  Tensor in_proj_bias;    ///< (3E), undefined without bias
  Linear out_proj;
  Dropout dropout;
  MultiheadAttentionOptions options;

 private:
  struct Heads {
    Tensor q, k, v;  ///< (N,heads,L or S,E/heads)
  };
  Heads heads_of(const Tensor& query, const Tensor& key, const Tensor& value) const;
  Tensor joined(const Tensor& heads, const Tensor& query);
};

namespace detail {

/// x as (N,L,...), whatever its layout; from_batch_first turns it back, `like` the original.
Tensor to_batch_first(const char* name, const Tensor& x, bool batch_first);
Tensor from_batch_first(const Tensor& x, const Tensor& like, bool batch_first);

}  // namespace detail
}  // namespace trireme::nn
