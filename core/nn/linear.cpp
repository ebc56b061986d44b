#include "core/nn/linear.h"

#include "core/nn/init.h"

namespace trireme::nn {

Linear::Linear(std::int64_t in, std::int64_t out, bool with_bias)
    : weight(default_parameter({out, in}, in)), bias(with_bias ? default_parameter({out}, in) : Tensor()) {}

void Linear::visit(Visitor& v) {
  v.parameter("weight", weight);
  v.parameter("bias", bias);
}

Embedding::Embedding(std::int64_t rows, std::int64_t width, EmbeddingOptions o)
    : weight(Tensor::empty({rows, width})), options(o) {
  init::normal_(weight);
  if (auto& padding = options.padding_index) {
    TRIREME_CHECK(*padding >= -rows && *padding < rows, "Embedding: padding_index {} is outside {} rows",
                  *padding, rows);
    if (*padding < 0) *padding += rows;
    zero_(narrow(weight, 0, *padding, 1));
  }
  weight.set_requires_grad(true);
}

void Embedding::visit(Visitor& v) { v.parameter("weight", weight); }

}  // namespace trireme::nn
