#include "core/nn/dropout.h"

#include "core/ops/ops.h"

namespace trireme::nn {

Tensor Dropout::forward(const Tensor& x) {
  if (!training() || p == 0) return x;
  return dropout(x, p, next_key(), random_context().first_sample);
}

RandomKey Dropout::next_key() {
  const RandomContext& context = random_context();
  const std::uint64_t calls = calls_.next();
  // The first call of a step's first round has the plain key of (seed, step, layer).
  const std::uint64_t layer =
      layer_ ^ (context.round ? mix64(context.round) : 0) ^ (calls ? mix64(~calls) : 0);
  return random_key(context.seed, context.step, layer);
}

void Dropout::set_path(const std::string& path) {
  layer_ = 0xd509;  // keeps the keys distinct from other keys of (seed, step, layer)
  for (const char c : path) layer_ = mix64(layer_ ^ static_cast<unsigned char>(c));
}

}  // namespace trireme::nn
