#include "core/nn/transformer.h"

#include "core/nn/init.h"
#include "core/ops/ops.h"

namespace trireme::nn {

namespace {

using Tensors = std::vector<Tensor>;

TransformerOptions batch_first(TransformerOptions o) {
  o.batch_first = true;
  return o;
}

MultiheadAttentionOptions attention_of(const TransformerOptions& o) {
  return {.dropout = o.dropout, .bias = o.bias, .batch_first = true};
}

LayerNormOptions norm_of(const TransformerOptions& o) { return {.eps = o.layer_norm_eps, .bias = o.bias}; }

/// x + block(x), normalized before or after.
template <class Block>
Tensor residual(const Tensor& x, LayerNorm& norm, bool norm_first, const Block& block) {
  return norm_first ? x + block(norm(x)) : norm(x + block(x));
}

/// The feed-forward network of a layer.
template <class Layer>
Tensor feed_forward(Layer& layer, const Tensor& x) {
  const Tensor h = layer.linear1(x);
  const bool relu = layer.options.activation == TransformerActivation::kRelu;
  return layer.linear2(layer.dropout(relu ? trireme::relu(h) : gelu(h)));
}

}  // namespace

TransformerEncoderLayer::TransformerEncoderLayer(std::int64_t d_model, std::int64_t nhead,
                                                 TransformerOptions o)
    : self_attn(d_model, nhead, attention_of(o)),
      linear1(d_model, o.dim_feedforward, o.bias),
      linear2(o.dim_feedforward, d_model, o.bias),
      norm1(d_model, norm_of(o)),
      norm2(d_model, norm_of(o)),
      dropout(o.dropout),
      dropout1(o.dropout),
      dropout2(o.dropout),
      options(o) {}

void TransformerEncoderLayer::visit(Visitor& v) {
  v.module("self_attn", self_attn);
  v.module("linear1", linear1);
  v.module("dropout", dropout);
  v.module("linear2", linear2);
  v.module("norm1", norm1);
  v.module("norm2", norm2);
  v.module("dropout1", dropout1);
  v.module("dropout2", dropout2);
}

Tensor TransformerEncoderLayer::operator()(const Tensor& src, const AttentionMask& mask) {
  if (!has_hooks()) return forward(src, mask);
  return with_hooks({src}, [&](const Tensors& in) { return Tensors{forward(in[0], mask)}; })[0];
}

Tensor TransformerEncoderLayer::forward(const Tensor& src, const AttentionMask& mask) {
  Tensor x = nn::detail::to_batch_first("TransformerEncoderLayer", src, options.batch_first);
  x = residual(x, norm1, options.norm_first,
               [&](const Tensor& t) { return dropout1(self_attn(t, t, t, mask)); });
  x = residual(x, norm2, options.norm_first,
               [&](const Tensor& t) { return dropout2(feed_forward(*this, t)); });
  return nn::detail::from_batch_first(x, src, options.batch_first);
}

TransformerDecoderLayer::TransformerDecoderLayer(std::int64_t d_model, std::int64_t nhead,
                                                 TransformerOptions o)
    : self_attn(d_model, nhead, attention_of(o)),
      multihead_attn(d_model, nhead, attention_of(o)),
      linear1(d_model, o.dim_feedforward, o.bias),
      linear2(o.dim_feedforward, d_model, o.bias),
      norm1(d_model, norm_of(o)),
      norm2(d_model, norm_of(o)),
      norm3(d_model, norm_of(o)),
      dropout(o.dropout),
      dropout1(o.dropout),
      dropout2(o.dropout),
      dropout3(o.dropout),
      options(o) {}

void TransformerDecoderLayer::visit(Visitor& v) {
  v.module("self_attn", self_attn);
  v.module("multihead_attn", multihead_attn);
  v.module("linear1", linear1);
  v.module("dropout", dropout);
  v.module("linear2", linear2);
  v.module("norm1", norm1);
  v.module("norm2", norm2);
  v.module("norm3", norm3);
  v.module("dropout1", dropout1);
  v.module("dropout2", dropout2);
  v.module("dropout3", dropout3);
}

Tensor TransformerDecoderLayer::operator()(const Tensor& tgt, const Tensor& memory,
                                           const AttentionMask& tgt_mask, const AttentionMask& memory_mask) {
  if (!has_hooks()) return forward(tgt, memory, tgt_mask, memory_mask);
  return with_hooks({tgt, memory}, [&](const Tensors& in) {
    return Tensors{forward(in[0], in[1], tgt_mask, memory_mask)};
  })[0];
}

Tensor TransformerDecoderLayer::forward(const Tensor& tgt, const Tensor& memory,
                                        const AttentionMask& tgt_mask, const AttentionMask& memory_mask) {
  const char* const name = "TransformerDecoderLayer";
  Tensor x = nn::detail::to_batch_first(name, tgt, options.batch_first);
  const Tensor seen = nn::detail::to_batch_first(name, memory, options.batch_first);
  x = residual(x, norm1, options.norm_first,
               [&](const Tensor& t) { return dropout1(self_attn(t, t, t, tgt_mask)); });
  x = residual(x, norm2, options.norm_first,
               [&](const Tensor& t) { return dropout2(multihead_attn(t, seen, seen, memory_mask)); });
  x = residual(x, norm3, options.norm_first,
               [&](const Tensor& t) { return dropout3(feed_forward(*this, t)); });
  return nn::detail::from_batch_first(x, tgt, options.batch_first);
}

template <class Layer>
TransformerStack<Layer>::TransformerStack(std::int64_t d_model, std::int64_t nhead, std::int64_t num_layers,
                                          const TransformerOptions& o, bool with_norm)
    : norm(with_norm ? std::make_shared<LayerNorm>(d_model, norm_of(o)) : nullptr), options(o) {
  for (std::int64_t i = 0; i < num_layers; ++i) layers.emplace_back(d_model, nhead, batch_first(o));
}

template <class Layer>
void TransformerStack<Layer>::visit(Visitor& v) {
  v.module("layers", layers);
  if (norm) v.module("norm", *norm);
}

template <class Layer>
template <class Call>
Tensor TransformerStack<Layer>::run(const char* name, const Tensor& x, const Call& call) {
  Tensor y = nn::detail::to_batch_first(name, x, options.batch_first);
  for (const auto& layer : layers) y = call(*layer, y);
  if (norm) y = (*norm)(y);
  return nn::detail::from_batch_first(y, x, options.batch_first);
}

template class TransformerStack<TransformerEncoderLayer>;
template class TransformerStack<TransformerDecoderLayer>;

TransformerEncoder::TransformerEncoder(std::int64_t d_model, std::int64_t nhead, std::int64_t num_layers,
                                       TransformerOptions o, bool with_norm)
    : TransformerStack(d_model, nhead, num_layers, o, with_norm) {}

Tensor TransformerEncoder::operator()(const Tensor& src, const AttentionMask& mask) {
  if (!has_hooks()) return forward(src, mask);
  return with_hooks({src}, [&](const Tensors& in) { return Tensors{forward(in[0], mask)}; })[0];
}

Tensor TransformerEncoder::forward(const Tensor& src, const AttentionMask& mask) {
  return run("TransformerEncoder", src, [&](auto& layer, const Tensor& x) { return layer(x, mask); });
}

TransformerDecoder::TransformerDecoder(std::int64_t d_model, std::int64_t nhead, std::int64_t num_layers,
                                       TransformerOptions o, bool with_norm)
    : TransformerStack(d_model, nhead, num_layers, o, with_norm) {}

Tensor TransformerDecoder::operator()(const Tensor& tgt, const Tensor& memory, const AttentionMask& tgt_mask,
                                      const AttentionMask& memory_mask) {
  if (!has_hooks()) return forward(tgt, memory, tgt_mask, memory_mask);
  return with_hooks({tgt, memory}, [&](const Tensors& in) {
    return Tensors{forward(in[0], in[1], tgt_mask, memory_mask)};
  })[0];
}

Tensor TransformerDecoder::forward(const Tensor& tgt, const Tensor& memory, const AttentionMask& tgt_mask,
                                   const AttentionMask& memory_mask) {
  const Tensor seen = nn::detail::to_batch_first("TransformerDecoder", memory, options.batch_first);
  return run("TransformerDecoder", tgt,
             [&](auto& layer, const Tensor& x) { return layer(x, seen, tgt_mask, memory_mask); });
}

Transformer::Transformer(std::int64_t d_model, std::int64_t nhead, std::int64_t num_encoder_layers,
                         std::int64_t num_decoder_layers, TransformerOptions o)
    : encoder(d_model, nhead, num_encoder_layers, o, true),
      decoder(d_model, nhead, num_decoder_layers, o, true) {
  for (const NamedTensor& p : parameters())
    if (p.tensor.dim() > 1) init::xavier_uniform_(p.tensor);
}

void Transformer::visit(Visitor& v) {
  v.module("encoder", encoder);
  v.module("decoder", decoder);
}

Tensor Transformer::operator()(const Tensor& src, const Tensor& tgt, const TransformerMasks& masks) {
  if (!has_hooks()) return forward(src, tgt, masks);
  return with_hooks({src, tgt}, [&](const Tensors& in) { return Tensors{forward(in[0], in[1], masks)}; })[0];
}

Tensor Transformer::forward(const Tensor& src, const Tensor& tgt, const TransformerMasks& masks) {
  return decoder(tgt, encoder(src, masks.src), masks.tgt, masks.memory);
}

}  // namespace trireme::nn
