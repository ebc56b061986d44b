// Linear layers and tables of vectors.
#pragma once

#include <cstdint>
#include <optional>

#include "core/nn/module.h"
#include "core/ops/ops.h"

namespace trireme::nn {

/// y = x @ weight^T + bias. x (..., in) -> (..., out).
class Linear : public Module {
 public:
  Linear(std::int64_t in, std::int64_t out, bool with_bias = true);
  Tensor forward(const Tensor& x) override { return linear(x, weight, bias); }
  void visit(Visitor& v) override;
  Tensor weight;  ///< (out, in)
  Tensor bias;    ///< (out), undefined without bias
};

struct EmbeddingOptions {
  std::optional<std::int64_t> padding_index = {};  ///< the row that starts as zeros and gets no gradient
};

/// Looks up rows of a table: index (...) int64 -> (..., width). Initial values are normal with standard
/// deviation 1.
class Embedding : public Module {
 public:
  Embedding(std::int64_t rows, std::int64_t width, EmbeddingOptions options = {});
  Tensor forward(const Tensor& index) override { return embedding(weight, index, options.padding_index); }
  void visit(Visitor& v) override;
  Tensor weight;  ///< (rows, width)
  EmbeddingOptions options;
};

}  // namespace trireme::nn
