// Tests which attention uses the library's fused kernel, and which uses products and kernels of our own.
#include <gtest/gtest.h>

#include <cmath>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "kernels/cuda/fused_attention.h"
#include "kernels/table.h"
#include "tests/support/cuda_emulator/emulator.h"

namespace trireme {
namespace {

constexpr Device kCuda{DeviceType::kCuda, 0};

Tensor on_device(const Shape& shape, DType dtype = DType::kBFloat16) {
  return to_device(to(uniform(shape, {3}, -1, 1), dtype), kCuda).set_requires_grad(true);
}

/// Runs a forward and a backward pass, and returns how many of the two the fused kernel computed.
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

cuda::FusedShape backward_of(std::int64_t batch, std::int64_t heads, std::int64_t queries,
                             std::int64_t keys) {
  return {.backward = true, .batch = batch, .heads = heads, .queries = queries, .keys = keys};
}

TEST(CudaAttention, PartsOfABackwardPassFitTheWorkspace) {
  using cuda::FusedSlice;
  const auto part = [](std::int64_t batch, std::int64_t heads, std::int64_t rows) {
    return cuda::backward_slice(backward_of(batch, heads, rows, rows));
  };
  // GPT-2's 12 heads need 24 MiB for a sample of 1024 tokens, and 96 MiB for one of 2048.
  EXPECT_EQ(part(1, 12, 1024), (FusedSlice{1, 12}));
  EXPECT_EQ(part(2, 12, 1024), (FusedSlice{2, 12}));
  EXPECT_EQ(part(3, 12, 1024), (FusedSlice{2, 12}));
  EXPECT_EQ(part(64, 12, 1024), (FusedSlice{2, 12}));
  EXPECT_EQ(part(9, 12, 512), (FusedSlice{5, 12})) << "two parts of nearly the same size, not 8 and 1";
  EXPECT_EQ(part(7, 12, 2048), (FusedSlice{1, 6}));
  EXPECT_EQ(part(1, 12, 8192), (FusedSlice{1, 1})) << "128 MiB a head, which cannot be cut";
  EXPECT_EQ(part(5, 3, 1), (FusedSlice{5, 3}));
  for (const std::int64_t batch : {1, 2, 7, 42, 43, 64, 1000})
    for (const std::int64_t heads : {1, 2, 12, 25})
      for (const std::int64_t rows : {1, 77, 512, 1024, 2048, 4096, 8192, 16384}) {
        const FusedSlice most = part(batch, heads, rows);
        EXPECT_TRUE(most.samples >= 1 && most.samples <= batch && most.heads >= 1 && most.heads <= heads);
        EXPECT_TRUE(most.samples == 1 || most.heads == heads) << "heads are cut within one sample";
        EXPECT_TRUE(2 * most.samples * most.heads * rows * rows <= 48 << 20 || most == (FusedSlice{1, 1}))
            << batch << " x " << heads << " x " << rows;
      }
}

/// Returns the gradients of q, k and v, in this order, of the sum of the attention's elements times `weight`.
std::vector<std::vector<float>> gradients(const Tensor& q, const Tensor& k, const Tensor& v,
                                          const Tensor& weight) {
  std::vector<std::vector<float>> all;
  const Tensor leaves[] = {q.detach().set_requires_grad(true), k.detach().set_requires_grad(true),
                           v.detach().set_requires_grad(true)};
  sum(mul(scaled_dot_product_attention(leaves[0], leaves[1], leaves[2], {.is_causal = true}), weight))
      .backward();
  for (const Tensor& leaf : leaves) all.push_back(to_device(leaf.grad(), kCpu).to_vector<float>());
  return all;
}

/// Checks that a backward pass over (batch,heads,rows,8), which takes `parts` parts, gives the bits of passes
/// over each head of each sample alone.
void expect_parts(std::int64_t batch, std::int64_t heads, std::int64_t rows, int parts) {
  const auto random = [&](std::uint64_t seed) {
    return to_device(to(uniform({batch, heads, rows, 8}, {seed}, -1, 1), DType::kBFloat16), kCuda);
  };
  const Tensor q = random(1), k = random(2), v = random(3), weight = random(4);
  const int before = cuda::emulator::fused_attentions();
  const auto whole = gradients(q, k, v, weight);
  EXPECT_EQ(cuda::emulator::fused_attentions() - before, 1 + parts);
  std::vector<std::vector<float>> joined(3);
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t h = 0; h < heads; ++h) {
      const auto one = [&](const Tensor& t) { return narrow(narrow(t, 0, b, 1), 1, h, 1); };
      const auto alone = gradients(one(q), one(k), one(v), one(weight));
      for (std::size_t i = 0; i < 3; ++i) joined[i].insert(joined[i].end(), alone[i].begin(), alone[i].end());
    }
  EXPECT_EQ(whole, joined);
}

TEST(CudaAttention, SamplesAreCutIntoParts) { expect_parts(3, 1, 3001, 2); }
TEST(CudaAttention, HeadsAreCutIntoParts) { expect_parts(1, 2, 3601, 2); }

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
