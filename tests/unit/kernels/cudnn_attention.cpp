// Tests that cuDNN accepts the attention graphs of kernels/cuda/attention.cu. It compiles no kernels, which
// would need a driver. So this needs the library and the toolkit's stub of the driver, but no GPU.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <string>
#include <utility>

#include "kernels/cuda/fused_attention.h"
#include "tests/support/described_gpu.h"
#include "tests/support/errors.h"

namespace trireme::cuda {
namespace {

/// Returns a shape in whose memory the heads of a row are adjacent, as in layers.
FusedShape shape_of(std::int64_t queries, std::int64_t keys, std::int64_t width, std::int64_t value_width) {
  FusedShape s{.batch = 2,
               .heads = 3,
               .queries = queries,
               .keys = keys,
               .width = width,
               .value_width = value_width,
               .scale = 0.125F};
  for (int o = 0; o < kOperands; ++o) {
    const std::int64_t columns = s.width_of(static_cast<Operand>(o));
    s.strides[static_cast<std::size_t>(o)] = {s.rows_of(static_cast<Operand>(o)) * s.heads * columns, columns,
                                              s.heads * columns};
  }
  return s;
}

TEST(CudnnAttention, PartsOfLargeBatchesAndLongSequencesHaveAKernel) {
  const std::string gpu = test::described_gpu(900, 132, 232448);
  for (const auto& [batch, rows] :
       {std::pair{64, 1024}, {43, 1024}, {11, 2048}, {3, 4096}, {1, 8192}, {1, 32768}}) {
    FusedShape s = shape_of(rows, rows, 64, 64);
    s.batch = batch;
    s.heads = 12;
    for (auto& [sample, head, row] : s.strides) sample = rows * 12 * 64, head = 64, row = 12 * 64;
    s.backward = s.causal = true;
    const std::string said = refuse_fused_attention(part_of(s, backward_slice(s)), gpu, 90, 132);
    if (said.find("cuDNN front end") != said.npos || said.find("libcuda") != said.npos)
      GTEST_SKIP() << "skipped: " << said;
    EXPECT_EQ(said, "") << batch << " x " << rows;
  }
}

TEST(CudnnAttention, AMissingCudaRuntimeIsOneLine) {
  setenv("CUDNN_FRONTEND_CUDART_LIB_NAME", "/nowhere/libcudart.so.13", 1);
  const std::string said = missing_cuda_runtime();
  unsetenv("CUDNN_FRONTEND_CUDART_LIB_NAME");
  if (fused_attention_version() == "no front end")
    GTEST_SKIP() << "skipped: this build has no cuDNN front end";
  test::expect_holds(said, {"libcudart", "/nowhere/libcudart.so.13", "LD_LIBRARY_PATH"});
  EXPECT_EQ(said.find('\n'), said.npos);
}

TEST(CudnnAttention, ThereIsAKernelForIt) {
  for (const auto& [architecture, processors] : {std::pair{80, 108}, {90, 132}}) {
    const std::string gpu =
        test::described_gpu(architecture * 10, processors, architecture == 80 ? 166912 : 232448);
    const std::string said = refuse_fused_attention(shape_of(64, 64, 64, 64), gpu, architecture, processors);
    if (said.find("cuDNN front end") != said.npos || said.find("libcuda") != said.npos)
      GTEST_SKIP() << "skipped: " << said;
    for (FusedShape s : {shape_of(1024, 1024, 64, 64), shape_of(77, 77, 64, 64), shape_of(128, 128, 128, 128),
                         shape_of(5, 5, 8, 8), shape_of(64, 96, 64, 64)})
      for (const DType dtype : {DType::kBFloat16, DType::kFloat16})
        for (const bool causal : {false, true})
          for (const bool backward : {false, true}) {
            s.dtype = dtype;
            s.causal = causal;
            s.backward = backward;
            EXPECT_EQ(refuse_fused_attention(s, gpu, architecture, processors), "")
                << "compute capability " << architecture << ", " << s.queries << " x " << s.keys << " of "
                << s.width << ", " << name_of(dtype) << (causal ? ", causal" : "")
                << (backward ? ", backward" : "");
          }
    FusedShape one = shape_of(1, 1, 16, 16);
    one.backward = true;
    EXPECT_NE(refuse_fused_attention(one, gpu, architecture, processors), "") << "of which there is none";
  }
}

}  // namespace
}  // namespace trireme::cuda
