// A small model with an embedding, a norm, dropout and a linear layer.
#pragma once

#include "core/nn/layers.h"

namespace trireme::test {

struct Words : nn::Module {
  nn::Embedding table{7, 8};
  nn::LayerNorm norm{8};
  nn::Dropout drop{0.25};
  nn::Linear out{8, 5};
  Tensor forward(const Tensor& x) override { return out(drop(norm(table(x)))); }
  void visit(nn::Visitor& v) override {
    v.module("table", table);
    v.module("norm", norm);
    v.module("drop", drop);
    v.module("out", out);
  }
};

}  // namespace trireme::test
