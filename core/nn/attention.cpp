#include "core/nn/attention.h"

#include <cmath>
#include <limits>

#include "core/nn/init.h"
#include "core/nn/pieces.h"
#include "core/ops/attention.h"
#include "core/ops/ops.h"

namespace trireme::nn {

namespace {

/// `mask` so that it broadcasts to q's (N,heads,L,...) and k's (N,heads,S,...) scores (N,heads,L,S).
Tensor by_head(const Tensor& mask, const Tensor& q, const Tensor& k) {
  const std::int64_t samples = q.size(0), heads = q.size(1), length = q.size(2), keys = k.size(2);
  if (mask.shape() == Shape({length, keys})) return mask;
  TRIREME_CHECK(
      mask.shape() == Shape({samples * heads, length, keys}),
      "MultiheadAttention: mask {} for {} samples, {} heads, {} queries and {} keys is neither (L,S) nor "
      "(N*heads,L,S)",
      mask.shape().to_string(), samples, heads, length, keys);
  return reshape(mask, {samples, heads, length, keys});
}

/// The combination of all masks: where queries may attend (bool) and what to add to the scores. Either may be
/// undefined.
struct Rules {
  Tensor allowed, added;

  void take(const Tensor& mask) {
    if (mask.dtype() == DType::kBool)
      allow(logical_not(mask));
    else
      added = added.defined() ? add(added, mask) : mask;
  }
  void allow(const Tensor& here) { allowed = allowed.defined() ? logical_and(allowed, here) : here; }
  /// One mask in the sense of scaled_dot_product_attention.
  Tensor joined() const {
    if (!added.defined() || !allowed.defined()) return added.defined() ? added : allowed;
    constexpr double kNever = -std::numeric_limits<double>::infinity();
    return where(allowed, added, Tensor::full({}, kNever, added.dtype(), added.device()));
  }
};

/// All that `mask` says to heads q (N,heads,L,d) and k (N,heads,S,d); undefined if nothing.
Tensor joined_mask(const AttentionMask& mask, const Tensor& q, const Tensor& k) {
  const std::int64_t length = q.size(2), keys = k.size(2);
  Rules rules;
  if (mask.mask.defined()) rules.take(by_head(mask.mask, q, k));
  if (const Tensor padding = mask.key_padding_mask; padding.defined()) {
    TRIREME_CHECK(padding.shape() == Shape({q.size(0), keys}),
                  "MultiheadAttention: key_padding_mask {} for {} samples and {} keys",
                  padding.shape().to_string(), q.size(0), keys);
    rules.take(reshape(padding, {q.size(0), 1, 1, keys}));
  }
  if (mask.is_causal) rules.allow(gt(tril(Tensor::ones({length, keys}, DType::kFloat32, q.device())), 0));
  return rules.joined();
}

}  // namespace

Tensor detail::to_batch_first(const char* name, const Tensor& x, bool batch_first) {
  TRIREME_CHECK(x.defined() && (x.dim() == 2 || x.dim() == 3), "{}: needs {} or (L,E), got {}", name,
                batch_first ? "(N,L,E)" : "(L,N,E)",
                x.defined() ? x.shape().to_string() : "an undefined tensor");
  if (x.dim() == 2) return unsqueeze(x, 0);
  return batch_first ? x : transpose(x, 0, 1);
}

Tensor detail::from_batch_first(const Tensor& x, const Tensor& like, bool batch_first) {
  if (like.dim() == 2) return squeeze(x, 0);
  return batch_first ? x : transpose(x, 0, 1);
}

MultiheadAttention::MultiheadAttention(std::int64_t width, std::int64_t heads, MultiheadAttentionOptions o)
    : embed_dim(width),
      num_heads(heads),
      in_proj_weight(Tensor::empty({3 * width, width})),
      out_proj(width, width, o.bias),
      dropout(o.dropout),
      options(o) {
  TRIREME_CHECK(heads > 0 && width > 0 && width % heads == 0,
                "MultiheadAttention: width {} does not divide into {} heads", width, heads);
  init::xavier_uniform_(in_proj_weight);
  in_proj_weight.set_requires_grad(true);
  if (!o.bias) return;
  in_proj_bias = constant_parameter({3 * width}, 0);
  init::zeros_(out_proj.bias);
}

void MultiheadAttention::visit(Visitor& v) {
  v.parameter("in_proj_weight", in_proj_weight);
  v.parameter("in_proj_bias", in_proj_bias);
  v.module("out_proj", out_proj);
  v.module("dropout", dropout);
}

MultiheadAttention::Heads MultiheadAttention::heads_of(const Tensor& query, const Tensor& key,
                                                       const Tensor& value) const {
  // Projections `first`... of x (N,L,E), in one product: (N,heads,L,E/heads) each.
  const auto project = [&](const Tensor& x, std::int64_t first, std::int64_t count) {
    TRIREME_CHECK(x.size(2) == embed_dim, "MultiheadAttention: tokens of x {} are not {} wide",
                  x.shape().to_string(), embed_dim);
    const auto rows = [&](const Tensor& t) {
      return !t.defined() || count == 3 ? t : narrow(t, 0, first * embed_dim, count * embed_dim);
    };
    const Tensor all = linear(x, rows(in_proj_weight), rows(in_proj_bias));
    std::vector<Tensor> parts;
    for (const Tensor& part : pieces(all, 2, count))
      parts.push_back(
          permute(reshape(part, {x.size(0), x.size(1), num_heads, embed_dim / num_heads}), {0, 2, 1, 3}));
    return parts;
  };
  const auto batched = [&](const Tensor& x) {
    return nn::detail::to_batch_first("MultiheadAttention", x, options.batch_first);
  };
  const Tensor q = batched(query), k = key.is_same(query) ? q : batched(key),
               v = value.is_same(key) ? k : batched(value);
  TRIREME_CHECK(
      query.dim() == key.dim() && key.dim() == value.dim() && q.size(0) == k.size(0) &&
          k.size(0) == v.size(0) && k.size(1) == v.size(1),
      "MultiheadAttention: query {}, key {} and value {}; all need the same samples, and each key needs "
      "a value",
      query.shape().to_string(), key.shape().to_string(), value.shape().to_string());
  if (q.is_same(k) && k.is_same(v)) {
    const auto all = project(q, 0, 3);
    return {all[0], all[1], all[2]};
  }
  const Tensor of_q = project(q, 0, 1)[0];
  if (k.is_same(v)) {
    const auto both = project(k, 1, 2);
    return {of_q, both[0], both[1]};
  }
  return {of_q, project(k, 1, 1)[0], project(v, 2, 1)[0]};
}

Tensor MultiheadAttention::joined(const Tensor& heads, const Tensor& query) {
  const Tensor tokens = reshape(permute(heads, {0, 2, 1, 3}), {heads.size(0), heads.size(2), embed_dim});
  return nn::detail::from_batch_first(out_proj(tokens), query, options.batch_first);
}

Tensor MultiheadAttention::operator()(const Tensor& query, const Tensor& key, const Tensor& value,
                                      const AttentionMask& mask) {
  if (!has_hooks()) return forward(query, key, value, mask);
  return with_hooks({query, key, value}, [&](const std::vector<Tensor>& in) {
    return std::vector{forward(in[0], in[1], in[2], mask)};
  })[0];
}

Tensor MultiheadAttention::forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                   const AttentionMask& mask) {
  const Heads heads = heads_of(query, key, value);
  AttentionOptions how;
  how.is_causal = mask.is_causal && !mask.mask.defined() && !mask.key_padding_mask.defined();
  if (!how.is_causal) how.attn_mask = joined_mask(mask, heads.q, heads.k);
  if (training() && dropout.p > 0) {
    how.dropout_p = dropout.p;
    how.key = dropout.next_key();
    how.first_sample = random_context().first_sample;
  }
  return joined(scaled_dot_product_attention(heads.q, heads.k, heads.v, how), query);
}

Attended MultiheadAttention::with_weights(const Tensor& query, const Tensor& key, const Tensor& value,
                                          const AttentionMask& mask, bool average) {
  const Heads heads = heads_of(query, key, value);
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  Tensor scores =
      matmul(heads.q, transpose(heads.k, -1, -2)) / std::sqrt(static_cast<double>(embed_dim / num_heads));
  if (const Tensor seen = joined_mask(mask, heads.q, heads.k); seen.defined())
    scores = seen.dtype() == DType::kBool ? masked_fill(scores, logical_not(seen), kNever) : scores + seen;
  const Tensor blind = eq(amax(scores.detach(), {-1}, true), kNever);
  const Tensor weights = dropout(masked_fill(softmax(masked_fill(scores, blind, 0)), blind, 0));
  return {joined(matmul(weights, heads.v), query), average ? mean(weights, {1}) : weights};
}

}  // namespace trireme::nn
