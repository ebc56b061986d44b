// Which attention goes to the library's one kernel, and which to products and kernels of our own.
#include <gtest/gtest.h>

#include <cmath>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "kernels/table.h"
#include "tests/support/cuda_emulator/emulator.h"

namespace trireme {
namespace {

constexpr Device kCuda{DeviceType::kCuda, 0};

Tensor on_device(const Shape& shape, DType dtype = DType::kBFloat16) {
  return to_device(to(uniform(shape, {3}, -1, 1), dtype), kCuda).set_requires_grad(true);
}

/// Passes that one kernel computes, of a forward and a backward one.
int fused_passes(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& o = {}) {
  const int before = cuda::emulator::fused_attentions();
  sum(scaled_dot_product_attention(q, k, v, o)).backward();
  return cuda::emulator::fused_attentions() - before;
}

int fused_passes(const Shape& shape, DType dtype, const AttentionOptions& o = {}) {
  return fused_passes(on_device(shape, dtype), on_device(shape, dtype), on_device(shape, dtype), o);
}

TEST(CudaAttention, IsFusedIn16BitsWhereRowsAreAligned) {
  EXPECT_EQ(fused_passes({2, 3, 5, 8}, DType::kBFloat16), 2);
  EXPECT_EQ(fused_passes({2, 3, 5, 8}, DType::kFloat16, {.is_causal = true}), 2);
  EXPECT_EQ(fused_passes({1, 1, 1, 128}, DType::kFloat16), 2);
  EXPECT_EQ(fused_passes({2, 3, 5, 8}, DType::kFloat32), 0);
  EXPECT_EQ(fused_passes({2, 3, 5, 4}, DType::kBFloat16), 0) << "rows of 8 bytes";
  EXPECT_EQ(fused_passes({1, 1, 2, 136}, DType::kBFloat16), 0) << "wider than the kernel takes";
  EXPECT_EQ(fused_passes({3, 5, 8}, DType::kBFloat16), 0) << "no heads";
  EXPECT_EQ(fused_passes({2, 0, 5, 8}, DType::kBFloat16), 0) << "nothing";
}

TEST(CudaAttention, IsNotFusedWithWhatTheKernelHasNot) {
  EXPECT_EQ(fused_passes({2, 3, 5, 8}, DType::kBFloat16, {.dropout_p = 0.5}), 0);
  const Tensor mask = to_device(Tensor::ones({5, 5}, DType::kBool), kCuda);
  EXPECT_EQ(fused_passes({2, 3, 5, 8}, DType::kBFloat16, {.attn_mask = mask}), 0);
}

TEST(CudaAttention, IsNotFusedWhereMemoryLiesOtherwise) {
  const Tensor whole = on_device({2, 3, 5, 8}), wide = on_device({2, 3, 5, 12});
  EXPECT_EQ(fused_passes(narrow(wide, 3, 0, 8), whole, whole), 0) << "rows 24 bytes apart";
  EXPECT_EQ(fused_passes(narrow(on_device({2, 3, 5, 16}), 3, 4, 8), whole, whole), 2)
      << "copied, as it begins at 8 bytes";
  const auto odd = [] { return narrow(on_device({2, 3, 5, 16}), 3, 0, 12); };
  EXPECT_EQ(fused_passes(odd(), odd(), odd()), 0) << "rows of 24 bytes";
  const Tensor one = on_device({2, 1, 5, 8});
  EXPECT_EQ(fused_passes(whole, expand(one, {2, 3, 5, 8}), whole), 0) << "heads that share their keys";
  EXPECT_EQ(fused_passes(one, one, one), 2) << "one head";
}

TEST(CudaAttention, ResultsGoWhereTheyBelongAtAnyAddress) {
  const Tensor q = on_device({1, 2, 3, 8}).detach(), wanted = scaled_dot_product_attention(q, q, q);
  const Tensor room = Tensor::zeros({1, 2, 3, 16}, DType::kBFloat16, kCuda), out = narrow(room, 3, 4, 8);
  const Tensor log_sums = Tensor::empty({1, 2, 3}, DType::kFloat32, kCuda);
  const int before = cuda::emulator::fused_attentions();
  kernels_of(kCuda).attention_forward(out.view(), log_sums.view(), q.view(), q.view(), q.view(), nullptr,
                                      {.scale = 1 / std::sqrt(8.0)});
  EXPECT_EQ(cuda::emulator::fused_attentions() - before, 1);
  EXPECT_EQ(to_device(out, kCpu).to_vector<float>(), to_device(wanted, kCpu).to_vector<float>());
}

}  // namespace
}  // namespace trireme
