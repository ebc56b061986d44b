// Attention. Names, arguments and defaults are PyTorch's.
#pragma once

#include <cstdint>

#include "core/nn/dropout.h"
#include "core/nn/linear.h"
#include "core/nn/module.h"

namespace trireme::nn {

struct MultiheadAttentionOptions {
  double dropout = 0;  ///< the dropout probability of the attention weights
  bool bias = true;
  bool batch_first = false;  ///< tensors are (N,L,E) instead of (L,N,E)
};

/// Tells which of S keys each of L queries may attend to.
struct AttentionMask {
  /// A mask (L,S) or (N*heads,L,S). If it is bool, true excludes a key from a query. If it is floating point,
  /// it is added to the scores.
  Tensor mask = {};
  /// A mask (N,S). If it is bool, true marks a key as padding. If it is floating point, it is added to the
  /// scores.
  Tensor key_padding_mask = {};
  bool is_causal = false;  ///< if true, query i attends to keys 0..i only, in addition to the masks
};

struct Attended {
  Tensor output;   ///< has the shape of query
  Tensor weights;  ///< (N,L,S), or (N,heads,L,S) if not averaged; undefined unless asked for
};

/// Attention of several heads: A. Vaswani et al., "Attention is all you need", 2017. Query (L,N,E), key and
/// value (S,N,E), or (N,...,E) with batch_first, or without N. The output for a query without keys is
/// out_proj's bias.
class MultiheadAttention : public Module {
 public:
  MultiheadAttention(std::int64_t embed_dim, std::int64_t num_heads, MultiheadAttentionOptions options = {});
  Tensor operator()(const Tensor& query, const Tensor& key, const Tensor& value,
                    const AttentionMask& mask = {});
  Tensor forward(const Tensor& query, const Tensor& key, const Tensor& value, const AttentionMask& mask = {});
  /// Computes self-attention of x.
  Tensor forward(const Tensor& x) override { return forward(x, x, x); }
  using Module::operator();
  /// Returns the output and the attention weights, which other calls do not keep.
  Attended with_weights(const Tensor& query, const Tensor& key, const Tensor& value,
                        const AttentionMask& mask = {}, bool average = true);
  void visit(Visitor& v) override;

  std::int64_t embed_dim, num_heads;
  Tensor in_proj_weight;  ///< (3E,E): the projections of query, key and value
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

/// Returns x as (N,L,...), from any layout. from_batch_first() converts a result back to the layout of
/// `like`, the original.
Tensor to_batch_first(const char* name, const Tensor& x, bool batch_first);
Tensor from_batch_first(const Tensor& x, const Tensor& like, bool batch_first);

}  // namespace detail
}  // namespace trireme::nn
