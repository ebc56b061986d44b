// Tests where the host waits for a GPU, and where it must not wait.
#include <gtest/gtest.h>

#include "core/ops/ops.h"
#include "core/optim/optimizer.h"
#include "kernels/cuda/memory.h"
#include "tests/support/cuda_emulator/emulator.h"
#include "tests/support/errors.h"
#include "tests/unit/cuda/words.h"

namespace trireme {
namespace {

using test::Words;

constexpr Device kCuda{DeviceType::kCuda, 0};

TEST(CudaWaits, AStepHasNone) {
  Words model;
  nn::move_to(model, kCuda);
  optim::AdamW adamw(model.parameters(), {.lr = 0.1});
  const auto step = [&](const std::vector<std::int64_t>& words, const std::vector<std::int64_t>& labels) {
    const Tensor x = to_device(Tensor::from(words, {2, 3}), kCuda),
                 y = to_device(Tensor::from(labels, {6}), kCuda);
    adamw.zero_grad();
    const Tensor loss = cross_entropy(reshape(model(x), {6, 5}), y);
    loss.backward();
    adamw.step();
    return loss;
  };
  step({0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 0});
  const std::size_t before = cuda::emulator::waits();
  const Tensor loss = step({6, 5, 4, 3, 2, 1}, {4, 3, 2, 1, 0, 0});
  EXPECT_EQ(cuda::emulator::waits(), before);
  loss.item();
  EXPECT_EQ(cuda::emulator::waits(), before + 1);
  test::expect_holds(test::error_of([&] {
                       step({0, 1, 2, 3, 4, 7}, {0, 0, 0, 0, 0, 0});
                     }),
                     {"index 7 is outside 0..6"});
  test::expect_holds(test::error_of([&] {
                       step({0, 1, 2, 3, 4, 5}, {0, 0, 0, 0, 0, 5});
                     }),
                     {"label 5 of row 5"});
}

TEST(CudaWaits, ClippingHasOne) {
  ParameterList list;
  for (int i = 0; i < 5; ++i) {
    list.items.push_back({std::to_string(i), to_device(Tensor::ones({3}), kCuda).set_requires_grad(true)});
    list.items.back().tensor.set_grad(to_device(Tensor::ones({3}), kCuda));
  }
  const std::size_t before = cuda::emulator::waits();
  EXPECT_NEAR(optim::clip_grad_norm(list, 1), std::sqrt(15.0), 1e-12);
  EXPECT_EQ(cuda::emulator::waits(), before + 1);
}

TEST(CudaWaits, WhatAnOpChangedIsLookedAtAgain) {
  const Tensor index = to_device(Tensor::from(std::vector<std::int64_t>{0, 1}, {2}), kCuda);
  add_(index, 7.0);
  const Tensor table = to_device(Tensor::ones({3, 2}), kCuda);
  test::expect_holds(test::error_of([&] { embedding(table, index); }), {"is outside 0..2"});
}

}  // namespace
}  // namespace trireme
