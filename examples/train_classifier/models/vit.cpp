// A. Dosovitskiy et al., "An image is worth 16x16 words: transformers for image recognition at scale", 2021.
#include <cmath>

#include "examples/train_classifier/models/models.h"

namespace trireme::models {

namespace {

using namespace nn;

struct VitSize {
  std::int64_t patch, width, depth, heads;
};

Tensor parameter(const Shape& shape) { return Tensor::zeros(shape).set_requires_grad(true); }

/// One transformer layer: x (N,T,W) -> (N,T,W).
struct EncoderLayer : Module {
  EncoderLayer(const VitSize& size, double dropout)
      : ln_1(size.width, {.eps = 1e-6}),
        ln_2(size.width, {.eps = 1e-6}),
        self_attention(size.width, size.heads, {.batch_first = true}),
        drop(dropout),
        mlp(Linear(size.width, 4 * size.width), GELU(), Dropout(dropout), Linear(4 * size.width, size.width),
            Dropout(dropout)) {
    for (const auto& [name, tensor] : mlp.parameters())
      if (tensor.dim() == 2)
        init::xavier_uniform_(tensor);
      else
        init::normal_(tensor, 0, 1e-6);
  }

  Tensor forward(const Tensor& x) override {
    const Tensor y = x + drop(self_attention(ln_1(x)));
    return y + mlp(ln_2(y));
  }
  void visit(Visitor& v) override {
    v.module("ln_1", ln_1);
    v.module("self_attention", self_attention);
    v.module("dropout", drop);
    v.module("ln_2", ln_2);
    v.module("mlp", mlp);
  }

  LayerNorm ln_1, ln_2;
  MultiheadAttention self_attention;
  Dropout drop;
  Sequential mlp;
};

struct Layers : Module {
  void visit(Visitor& v) override {
    for (std::size_t i = 0; i < all.size(); ++i) v.module("encoder_layer_" + std::to_string(i), all[i]);
  }
  std::vector<EncoderLayer> all;
};

/// Adds the embeddings of positions and applies all layers: x (N,T,W) -> (N,T,W).
struct Encoder : Module {
  Encoder(const VitSize& size, std::int64_t tokens, double dropout)
      : pos_embedding(parameter({1, tokens, size.width})), drop(dropout), ln(size.width, {.eps = 1e-6}) {
    init::normal_(pos_embedding, 0, 0.02);
    for (std::int64_t i = 0; i < size.depth; ++i) layers.all.emplace_back(size, dropout);
  }

  Tensor forward(const Tensor& x) override {
    Tensor y = drop(x + pos_embedding);
    for (EncoderLayer& layer : layers.all) y = layer(y);
    return ln(y);
  }
  void visit(Visitor& v) override {
    v.parameter("pos_embedding", pos_embedding);
    v.module("dropout", drop);
    v.module("layers", layers);
    v.module("ln", ln);
  }

  Tensor pos_embedding;
  Dropout drop;
  Layers layers;
  LayerNorm ln;
};

struct Heads : Module {
  Heads(std::int64_t width, std::int64_t classes) : head(width, classes) {
    init::zeros_(head.weight);
    init::zeros_(head.bias);
  }
  Tensor forward(const Tensor& x) override { return head(x); }
  void visit(Visitor& v) override { v.module("head", head); }
  Linear head;
};

struct VisionTransformer : Module {
  VisionTransformer(const ModelOptions& o, const VitSize& size)
      : conv_proj(o.input.channels, size.width, size.patch, {.stride = size.patch}),
        class_token(parameter({1, 1, size.width})),
        encoder(size, 1 + (o.input.height / size.patch) * (o.input.width / size.patch), o.dropout),
        heads(size.width, o.classes) {
    const auto fan_in = static_cast<double>(o.input.channels * size.patch * size.patch);
    init::trunc_normal_(conv_proj.weight, 0, std::sqrt(1 / fan_in));
    init::zeros_(conv_proj.bias);
  }

  Tensor forward(const Tensor& x) override {
    const Tensor patches = transpose(flatten(conv_proj(x), 2), 1, 2);  // (N,T,W)
    const Tensor first = expand(class_token, {x.size(0), 1, patches.size(2)});
    return heads(select(encoder(cat({first, patches}, 1)), 1, 0));
  }
  void visit(Visitor& v) override {
    v.module("conv_proj", conv_proj);
    v.parameter("class_token", class_token);
    v.module("encoder", encoder);
    v.module("heads", heads);
  }

  Conv2d conv_proj;
  Tensor class_token;
  Encoder encoder;
  Heads heads;
};

}  // namespace

ModelPointer vit(const ModelOptions& o) {
  const VitSize size = is_small(o) ? VitSize{4, 192, 12, 3} : VitSize{16, 768, 12, 12};
  if (o.input.height % size.patch != 0 || o.input.width % size.patch != 0)
    fail(ExitCode::kUsage,
         "--model vit: it cuts such images into patches of {0}x{0}, this data has {1}x{2}; use another model",
         size.patch, o.input.height, o.input.width);
  return std::make_unique<VisionTransformer>(o, size);
}

}  // namespace trireme::models
