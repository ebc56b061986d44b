// Two well-known networks, built from Trireme's modules, for comparisons with PyTorch. Their parameters have
// other names than in PyTorch.
#pragma once

#include <cmath>

#include "core/nn/layers.h"
#include "kernels/table.h"

namespace trireme::test {

/// A residual block of the network with 50 layers in K. He et al., "Deep residual learning for image
/// recognition", 2016. The 3x3 convolution has the stride, as in torchvision.
struct Bottleneck : nn::Module {
  Bottleneck(std::int64_t in, std::int64_t width, std::int64_t stride)
      : conv1(in, width, 1, {}, false),
        conv2(width, width, 3, {.stride = stride, .padding = 1}, false),
        conv3(width, 4 * width, 1, {}, false),
        norm1(width),
        norm2(width),
        norm3(4 * width) {
    if (stride != 1 || in != 4 * width)
      shortcut =
          nn::Sequential(nn::Conv2d(in, 4 * width, 1, {.stride = stride}, false), nn::BatchNorm2d(4 * width));
  }
  Tensor forward(const Tensor& x) override {
    const Tensor y = norm3(conv3(relu(norm2(conv2(relu(norm1(conv1(x))))))));
    return relu(add(y, shortcut.size() > 0 ? shortcut(x) : x));
  }
  void visit(nn::Visitor& v) override {
    v.module("conv1", conv1);
    v.module("norm1", norm1);
    v.module("conv2", conv2);
    v.module("norm2", norm2);
    v.module("conv3", conv3);
    v.module("norm3", norm3);
    v.module("shortcut", shortcut);
  }
  nn::Conv2d conv1, conv2, conv3;
  nn::BatchNorm2d norm1, norm2, norm3;
  nn::Sequential shortcut;
};

struct ResNet50 : nn::Module {
  explicit ResNet50(std::int64_t classes) : head(2048, classes) {
    std::int64_t in = 64, width = 64;
    for (const int blocks : {3, 4, 6, 3}) {
      auto stage = std::make_shared<nn::Sequential>();
      for (int b = 0; b < blocks; ++b, in = 4 * width)
        stage->push_back(std::make_shared<Bottleneck>(in, width, b == 0 && width > 64 ? 2 : 1));
      body.push_back(stage);
      width *= 2;
    }
  }
  Tensor forward(const Tensor& x) override {
    const Tensor y = max_pool2d(relu(norm(stem(x))), {.kernel = 3, .stride = 2, .padding = 1});
    return head(global_avg_pool2d(body(y)));
  }
  void visit(nn::Visitor& v) override {
    v.module("stem", stem);
    v.module("norm", norm);
    v.module("body", body);
    v.module("head", head);
  }
  nn::Conv2d stem{3, 64, 7, {.stride = 2, .padding = 3}, false};
  nn::BatchNorm2d norm{64};
  nn::Sequential body;
  nn::Linear head;
};

/// Layer normalization with parameters named gamma and beta.
struct RowNorm : nn::Module {
  explicit RowNorm(std::int64_t width) : gamma(Tensor::ones({width})), beta(Tensor::zeros({width})) {
    gamma.set_requires_grad(true);
    beta.set_requires_grad(true);
  }
  Tensor forward(const Tensor& x) override { return layer_norm(x, gamma, beta); }
  void visit(nn::Visitor& v) override {
    v.parameter("gamma", gamma);
    v.parameter("beta", beta);
  }
  Tensor gamma, beta;
};

/// A transformer block of A. Radford et al., "Language models are unsupervised multitask learners", 2019, for
/// x (B,T,C). Unlike in GPT-2's files, queries, keys and values have separate weights.
struct GptBlock : nn::Module {
  GptBlock(std::int64_t width, std::int64_t heads_)
      : before(width),
        behind(width),
        query(width, width),
        key(width, width),
        value(width, width),
        out(width, width),
        up(width, 4 * width),
        down(4 * width, width),
        heads(heads_) {}
  Tensor forward(const Tensor& x) override {
    const Tensor y = add(x, attention(before(x)));
    return add(y, down(gelu(up(behind(y)), Gelu::kTanh)));
  }
  void visit(nn::Visitor& v) override {
    v.module("before", before);
    v.module("query", query);
    v.module("key", key);
    v.module("value", value);
    v.module("out", out);
    v.module("behind", behind);
    v.module("up", up);
    v.module("down", down);
  }
  RowNorm before, behind;
  nn::Linear query, key, value, out, up, down;
  std::int64_t heads;

 private:
  Tensor attention(const Tensor& x) {
    const std::int64_t b = x.size(0), t = x.size(1), width = x.size(2), each = width / heads;
    const auto split = [&](const Tensor& y) { return transpose(reshape(y, {b, t, heads, each}), 1, 2); };
    const Tensor scores = mul(matmul(split(query(x)), transpose(split(key(x)), -1, -2)),
                              1 / std::sqrt(static_cast<double>(each)));
    const Tensor at = Tensor::empty({t});
    kernels_of(kCpu).arange(at.view(), 0, 1);
    const Tensor later = gt(reshape(at, {1, t}), reshape(at, {t, 1}));
    const Tensor weights = softmax(masked_fill(scores, later, -INFINITY));
    return out(reshape(transpose(matmul(weights, split(value(x))), 1, 2), {b, t, width}));
  }
};

/// GPT-2: ids (B,T) int64 -> logits. `words` is both the embedding and the weight of the output layer.
struct Gpt2 : nn::Module {
  Gpt2(std::int64_t vocabulary, std::int64_t length, std::int64_t width, std::int64_t heads, int layers)
      : words(Tensor::empty({vocabulary, width})), places(Tensor::empty({length, width})), last(width) {
    words.set_requires_grad(true);
    places.set_requires_grad(true);
    for (int i = 0; i < layers; ++i) blocks.push_back(std::make_shared<GptBlock>(width, heads));
  }
  Tensor forward(const Tensor& ids) override {
    const std::int64_t b = ids.size(0), t = ids.size(1), width = words.size(1);
    const Tensor x = reshape(index_select(words, 0, reshape(ids, {b * t})), {b, t, width});
    return linear(last(blocks(add(x, narrow(places, 0, 0, t)))), words);
  }
  void visit(nn::Visitor& v) override {
    v.parameter("words", words);
    v.parameter("places", places);
    v.module("blocks", blocks);
    v.module("last", last);
  }
  Tensor words, places;
  nn::Sequential blocks;
  RowNorm last;
};

}  // namespace trireme::test
