// Tests the notices about attention that does not use the fused kernel. A process prints each reason only
// once, so this is a separate program.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/ops/ops.h"
#include "kernels/cuda/engines.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

constexpr Device kCuda{DeviceType::kCuda, 0};

/// Computes attention. Returns the notice if there is exactly one, otherwise the number of notices.
std::string told(const Shape& shape, DType dtype, const AttentionOptions& o = {}) {
  const Tensor q = to_device(to(Tensor::ones(shape), dtype), kCuda);
  scaled_dot_product_attention(q, q, q, o);
  const std::vector<std::string> lines = cuda::take_notices();
  return lines.size() == 1 ? lines[0] : fmt::format("{} lines", lines.size());
}

TEST(CudaAttentionNotices, EachReasonIsToldOnce) {
  EXPECT_EQ(told({2, 3, 5, 8}, DType::kBFloat16), "0 lines") << "it uses the fused kernel";
  test::expect_holds(told({2, 3, 5, 8}, DType::kFloat32),
                     {"does not use the fused kernel", "bfloat16 and float16"});
  EXPECT_EQ(told({1, 3, 5, 8}, DType::kFloat32), "0 lines") << "the same reason";
  test::expect_holds(told({2, 3, 5, 12}, DType::kBFloat16), {"multiple of 8 and at most 128"});
  test::expect_holds(told({3, 5, 8}, DType::kBFloat16), {"(batch, heads, rows, width)"});
  test::expect_holds(told({2, 3, 5, 8}, DType::kBFloat16, {.dropout_p = 0.5}), {"no dropout"});
  const Tensor mask = to_device(Tensor::ones({5, 5}, DType::kBool), kCuda);
  test::expect_holds(told({2, 3, 5, 8}, DType::kBFloat16, {.attn_mask = mask}), {"no mask"});
  EXPECT_EQ(told({2, 0, 5, 8}, DType::kBFloat16), "0 lines") << "there is nothing to compute";
}

}  // namespace
}  // namespace trireme
