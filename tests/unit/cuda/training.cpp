// Tests complete jobs on an emulated GPU. Ranks are threads that share it and communicate through an emulated
// NCCL.
#include "tests/unit/cuda/jobs.h"

#include <filesystem>
#include <memory>

#include "core/base/file_system.h"
#include "distributed/checkpoint/store.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using test::options_of;
using test::Result;
using test::train_on;

TEST(CudaTraining, HasTheSameBitsAtAnyWorldSize) {
  const Result alone = train_on(1, options_of("cuda", 3));
  for (const int ranks : {2, 3, 5})
    for (const bool overlap : {true, false}) {
      JobOptions other = options_of("cuda", 3);
      other.set_overlap(overlap);
      other.set_shuffle_ready(static_cast<std::uint64_t>(ranks));
      EXPECT_EQ(train_on(ranks, other).digest, alone.digest) << ranks << " ranks, overlap " << overlap;
    }
}

TEST(CudaTraining, SumsIn16BitsAreTheSameAtAnyWorldSizeToo) {
  for (const char* hook : {"bf16", "fp16"}) {
    JobOptions options = options_of("cuda", 3);
    options.set_comm_hook(hook);
    const Result alone = train_on(1, options);
    for (const int ranks : {2, 5})
      EXPECT_EQ(train_on(ranks, options).digest, alone.digest) << ranks << " ranks";
    options.set_reduction("fastest");
    const Result fastest = train_on(3, options);
    for (std::size_t i = 0; i < fastest.weights.size(); ++i)
      EXPECT_NEAR(fastest.weights[i], alone.weights[i], 1e-2) << i;
  }
}

TEST(CudaTraining, ShardedOptimizersAndHooksHaveTheSameBitsToo) {
  const Result plain = train_on(1, options_of("cuda", 3));
  for (const int ranks : {1, 2, 3})
    for (const bool graphs : {false, true}) {
      JobOptions options = options_of("cuda", 3);
      options.set_zero(1);
      options.set_cuda_graph(graphs);
      EXPECT_EQ(train_on(ranks, options).digest, plain.digest) << ranks << " ranks, graphs " << graphs;
    }
  JobOptions options = options_of("cuda", 3);
  options.set_comm_hook("powersgd");
  options.set_powersgd_rank(1);
  const Result compressed = train_on(1, options);
  EXPECT_NE(compressed.digest, plain.digest);
  for (const int ranks : {2, 5})
    for (const bool zero : {false, true}) {
      options.set_zero(zero);
      EXPECT_EQ(train_on(ranks, options).digest, compressed.digest) << ranks << " ranks, zero " << zero;
    }
}

TEST(CudaTraining, SynchronizesBatchNormOverRanks) {
  JobOptions one = options_of("cuda", 3), three = one;
  one.set_shards(1);
  three.set_shards(2);
  three.set_sync_batchnorm(true);
  const Result whole = train_on(1, one), synchronized = train_on(2, three);
  // Dropout's random numbers depend on samples, so they are the same.
  for (std::size_t i = 0; i < whole.weights.size(); ++i)
    EXPECT_NEAR(synchronized.weights[i], whole.weights[i], 1e-4) << i;
}

TEST(CudaTraining, GraphsChangeNoBit) {
  const Result plain = train_on(1, options_of("cuda", 6));
  for (const int ranks : {1, 2, 5}) {
    JobOptions options = options_of("cuda", 6);
    options.set_cuda_graph(true);
    const Result recorded = train_on(ranks, options);
    EXPECT_EQ(recorded.digest, plain.digest) << ranks << " ranks";
    EXPECT_EQ(recorded.loss, plain.loss) << ranks << " ranks";
  }
}

TEST(CudaTraining, ReplayHasTheBitsOfRealRanks) {
  const std::string digest = train_on(3, options_of("cuda", 3)).digest;
  JobOptions replay = options_of("cuda", 3);
  replay.set_replay_ranks(3);
  EXPECT_EQ(train_on(1, replay).digest, digest);
}

TEST(CudaTraining, FollowsTheCpu) {
  const Result there = train_on(2, options_of("cuda", 3)), here = train_on(2, options_of("cpu", 3));
  EXPECT_NEAR(there.loss, here.loss, 1e-5);
  for (std::size_t i = 0; i < here.weights.size(); ++i)
    EXPECT_NEAR(there.weights[i], here.weights[i], 1e-5) << i;
}

TEST(CudaTraining, TheFastestReductionIsNearTheOtherOne) {
  JobOptions options = options_of("cuda", 3);
  const Result invariant = train_on(3, options);
  options.set_reduction("fastest");
  const Result fastest = train_on(3, options);
  for (std::size_t i = 0; i < fastest.weights.size(); ++i)
    EXPECT_NEAR(fastest.weights[i], invariant.weights[i], 1e-5) << i;
}

TEST(CudaTraining, GoesOnFromACheckpointOnAnotherNumberOfRanks) {
  const auto directory = std::filesystem::path(testing::TempDir()) / "trireme_cuda_training";
  std::filesystem::remove_all(directory);
  const std::string whole = train_on(2, options_of("cuda", 4)).digest;
  JobOptions options = options_of("cuda", 2);
  options.set_checkpoint_dir(directory.string());
  EXPECT_NE(train_on(3, options).digest, whole);
  const CheckpointStore store(std::make_shared<RealFileSystem>(), directory);
  test::expect_holds(store.read_state(directory / "step-00000002").engines,
                     {"matmul float32 to float32", " => cuBLASLt id 1"});
  options.set_steps(4);
  EXPECT_EQ(train_on(1, options).digest, whole);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace trireme
