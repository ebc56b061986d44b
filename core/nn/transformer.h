// Transformers: A. Vaswani et al., "Attention is all you need", 2017. Names, arguments and defaults are
// PyTorch's. Unlike in PyTorch, each layer of a stack starts with its own initial values.
#pragma once

#include <cstdint>

#include "core/nn/attention.h"
#include "core/nn/norm.h"

namespace trireme::nn {

enum class TransformerActivation { kRelu, kGelu };

struct TransformerOptions {
  std::int64_t dim_feedforward = 2048;
  double dropout = 0.1;
  TransformerActivation activation = TransformerActivation::kRelu;
  double layer_norm_eps = 1e-5;
  bool batch_first = false;  ///< tensors are (N,L,E) instead of (L,N,E)
  bool norm_first = false;   ///< normalize before attention and feed-forward instead of after
  bool bias = true;
};

/// Self-attention and a feed-forward network.
class TransformerEncoderLayer : public Module {
 public:
  TransformerEncoderLayer(std::int64_t d_model, std::int64_t nhead, TransformerOptions options = {});
  using Module::operator();
  Tensor operator()(const Tensor& src, const AttentionMask& mask);
  Tensor forward(const Tensor& src, const AttentionMask& mask);
  Tensor forward(const Tensor& src) override { return forward(src, {}); }
  void visit(Visitor& v) override;
  MultiheadAttention self_attn;  ///< batch first, whatever the layer is
  Linear linear1, linear2;
  LayerNorm norm1, norm2;
  Dropout dropout, dropout1, dropout2;
  TransformerOptions options;
};

/// Self-attention, attention to the encoder's result, and a feed-forward network.
class TransformerDecoderLayer : public Module {
 public:
  TransformerDecoderLayer(std::int64_t d_model, std::int64_t nhead, TransformerOptions options = {});
  Tensor operator()(const Tensor& tgt, const Tensor& memory, const AttentionMask& tgt_mask = {},
                    const AttentionMask& memory_mask = {});
  Tensor forward(const Tensor& tgt, const Tensor& memory, const AttentionMask& tgt_mask = {},
                 const AttentionMask& memory_mask = {});
  void visit(Visitor& v) override;
  MultiheadAttention self_attn, multihead_attn;  ///< batch first, whatever the layer is
  Linear linear1, linear2;
  LayerNorm norm1, norm2, norm3;
  Dropout dropout, dropout1, dropout2, dropout3;
  TransformerOptions options;

 private:
  using Module::forward;
};

/// A sequence of layers. Inside the stack, tensors are batch first.
template <class Layer>
class TransformerStack : public Module {
 public:
  void visit(Visitor& v) override;
  ModuleList<Layer> layers;
  std::shared_ptr<Module> norm;  ///< the norm of the result, or null
  TransformerOptions options;

 protected:
  TransformerStack(std::int64_t d_model, std::int64_t nhead, std::int64_t num_layers,
                   const TransformerOptions& o, bool with_norm);
  /// Applies call(layer, x) layer by layer, then the norm, and returns the result.
  template <class Call>
  Tensor run(const char* name, const Tensor& x, const Call& call);
};

/// src (S,N,E) -> (S,N,E), or (N,S,E) with options.batch_first.
class TransformerEncoder : public TransformerStack<TransformerEncoderLayer> {
 public:
  TransformerEncoder(std::int64_t d_model, std::int64_t nhead, std::int64_t num_layers,
                     TransformerOptions options = {}, bool with_norm = false);
  using Module::operator();
  Tensor operator()(const Tensor& src, const AttentionMask& mask);
  Tensor forward(const Tensor& src, const AttentionMask& mask);
  Tensor forward(const Tensor& src) override { return forward(src, {}); }
};

/// tgt (T,N,E) and memory (S,N,E) -> (T,N,E); with options.batch_first N comes first.
class TransformerDecoder : public TransformerStack<TransformerDecoderLayer> {
 public:
  TransformerDecoder(std::int64_t d_model, std::int64_t nhead, std::int64_t num_layers,
                     TransformerOptions options = {}, bool with_norm = false);
  Tensor operator()(const Tensor& tgt, const Tensor& memory, const AttentionMask& tgt_mask = {},
                    const AttentionMask& memory_mask = {});
  Tensor forward(const Tensor& tgt, const Tensor& memory, const AttentionMask& tgt_mask = {},
                 const AttentionMask& memory_mask = {});

 private:
  using Module::forward;
};

struct TransformerMasks {
  AttentionMask src = {}, tgt = {}, memory = {};
};

/// Encoder and decoder, with norms at their ends. All matrices start with xavier_uniform_.
class Transformer : public Module {
 public:
  explicit Transformer(std::int64_t d_model = 512, std::int64_t nhead = 8,
                       std::int64_t num_encoder_layers = 6, std::int64_t num_decoder_layers = 6,
                       TransformerOptions options = {});
  Tensor operator()(const Tensor& src, const Tensor& tgt, const TransformerMasks& masks = {});
  Tensor forward(const Tensor& src, const Tensor& tgt, const TransformerMasks& masks = {});
  void visit(Visitor& v) override;
  TransformerEncoder encoder;
  TransformerDecoder decoder;

 private:
  using Module::forward;
};

}  // namespace trireme::nn
