#include "core/nn/pieces.h"

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"

namespace trireme::nn {

std::vector<Tensor> pieces(const Tensor& x, int dim, std::int64_t count) {
  TRIREME_CHECK(count > 0 && x.size(dim) % count == 0, "pieces: {} of dimension {} of shape {}", count, dim,
                x.shape().to_string());
  Shape shape = x.shape();
  shape[dim] /= count;
  const std::int64_t step = shape[dim] * x.strides()[dim];
  std::vector<Tensor> parts;
  for (std::int64_t i = 0; i < count; ++i)
    parts.push_back(x.alias(shape, x.strides(), x.offset() + i * step));
  const Tensor* inputs[] = {&x};
  return record("pieces", std::move(parts), inputs,
                [dim, count, shape, dtype = x.dtype(), device = x.device()](Backward& g) {
                  std::vector<Tensor> gradients;
                  for (std::int64_t i = 0; i < count; ++i) {
                    const Tensor one = g.gradient(static_cast<int>(i));
                    gradients.push_back(one.defined() ? one : Tensor::zeros(shape, dtype, device));
                  }
                  g.set(0, cat(gradients, dim));
                });
}

}  // namespace trireme::nn
