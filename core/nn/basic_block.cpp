#include "core/nn/basic_block.h"

namespace trireme::nn {

BasicBlock::BasicBlock(std::int64_t in, std::int64_t out, std::int64_t stride)
    : conv1(in, out, 3, {.stride = stride, .padding = 1}, false),
      conv2(out, out, 3, {.padding = 1}, false),
      bn1(out, {.relu = true}),
      bn2(out, {.relu = true}) {
  if (stride != 1 || in != out)
    downsample = Sequential(Conv2d(in, out, 1, {.stride = stride}, false), BatchNorm2d(out));
}

Tensor BasicBlock::forward(const Tensor& x) {
  const Tensor shortcut = downsample.size() ? downsample(x) : x;
  return bn2(conv2(bn1(conv1(x))), shortcut);
}

void BasicBlock::visit(Visitor& v) {
  v.module("conv1", conv1);
  v.module("bn1", bn1);
  v.module("conv2", conv2);
  v.module("bn2", bn2);
  v.module("downsample", downsample);
}

}  // namespace trireme::nn
