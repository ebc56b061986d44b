// GPT-2: A. Radford et al., "Language models are unsupervised multitask learners", 2019.
//
// Parameters have the names and layouts of the published weights ("h.0.attn.c_attn.weight").
#pragma once

#include <string>

#include "core/nn/layers.h"

namespace trireme {

struct GptOptions {
  std::int64_t layers = 4, width = 128, heads = 4, context = 64;
  std::int64_t vocabulary = 256;
  double dropout = 0;
};

/// Returns the options of "nano", "gpt2-124m" or "gpt:layers=L,width=W,heads=H,context=T". Sizes that are not
/// given are those of nano. Throws Error(kUsage) for any other text.
GptOptions parse_gpt(const std::string& spec);
/// Returns the number of parameters without building the model, which may be too large for the memory.
double parameter_count(const GptOptions& o);

/// Computes y = x @ weight + bias. Unlike nn::Linear it has a weight (in, out), as in the published files.
struct Projection : nn::Module {
  Projection(std::int64_t in, std::int64_t out, double std);
  Tensor forward(const Tensor& x) override { return linear(x, transpose(weight, 0, 1), bias); }
  void visit(nn::Visitor& v) override;
  Tensor weight, bias;
};

/// Multi-head attention, x (B,T,W) -> (B,T,W), in which each position attends to itself and earlier
/// positions.
struct CausalSelfAttention : nn::Module {
  explicit CausalSelfAttention(const GptOptions& o);
  Tensor forward(const Tensor& x) override;
  void visit(nn::Visitor& v) override;
  std::int64_t heads;
  Projection c_attn, c_proj;
  nn::Dropout dropout;
};

struct Mlp : nn::Module {
  explicit Mlp(const GptOptions& o);
  Tensor forward(const Tensor& x) override;
  void visit(nn::Visitor& v) override;
  Projection c_fc, c_proj;
  nn::Dropout dropout;
};

struct Block : nn::Module {
  explicit Block(const GptOptions& o) : ln_1(o.width), ln_2(o.width), attn(o), mlp(o) {}
  Tensor forward(const Tensor& x) override;
  void visit(nn::Visitor& v) override;
  nn::LayerNorm ln_1, ln_2;
  CausalSelfAttention attn;
  Mlp mlp;
};

/// The model: tokens (B,T) int64 -> logits (B,T,vocabulary) for the token after each. T is at most `context`.
struct Gpt : nn::Module {
  explicit Gpt(const GptOptions& o);
  Tensor forward(const Tensor& tokens) override;
  void visit(nn::Visitor& v) override;
  GptOptions options;
  nn::Embedding wte, wpe;  ///< embeddings of tokens (also the output layer's weight) and of positions
  nn::Dropout dropout;
  nn::Sequential h;
  nn::LayerNorm ln_f;
};

}  // namespace trireme
