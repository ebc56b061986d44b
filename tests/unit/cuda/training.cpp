// Whole jobs on an emulated GPU: ranks are threads that share it, and talk through an emulated NCCL.
#include <gtest/gtest.h>

#include <filesystem>
#include <mutex>
#include <optional>
#include <set>

#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "distributed/comm/local.h"
#include "distributed/train/evaluate.h"
#include "distributed/train/job.h"
#include "kernels/cuda/memory.h"
#include "tests/support/cuda_emulator/emulator.h"
#include "tests/support/rank_test.h"
#include "tests/support/watchdog.h"
#include "tests/support/waves.h"

namespace trireme {
namespace {

/// The epoch's last batch has no sample for some shards.
test::Waves waves() { return test::Waves(22, 3, 2); }

struct Net : nn::Module {
  nn::Conv2d conv{2, 4, 3, {.padding = 1}};
  nn::BatchNorm2d norm{4};
  nn::Dropout drop{0.25};
  nn::Linear out{64, 3}, unused{2, 2};
  Tensor forward(const Tensor& x) override { return out(drop(flatten(relu(norm(conv(x))), 1))); }
  void visit(nn::Visitor& v) override {
    v.module("conv", conv);
    v.module("norm", norm);
    v.module("drop", drop);
    v.module("out", out);
    v.module("unused", unused);
  }
};

JobOptions options_of(const char* device, std::int64_t steps) {
  const char* none[] = {"test"};
  JobOptions options = parse_options(1, none, {});
  options.set_device(device);
  options.set_steps(steps);
  options.set_global_batch(10);
  options.set_shards(5);
  options.set_bucket_mb(0.0005);  // several buckets
  options.set_clip_norm(1);
  options.set_quiet(true);
  return options;
}

struct Result {
  std::string digest;
  std::vector<float> weights;
  double loss = 0;
};

Result train(Job& job) {
  Net net;
  DistributedDataParallel ddp(net, job);
  optim::SGD sgd(ddp.parameters(), {.lr = 0.1, .momentum = 0.9});
  const test::Waves data = waves();
  for (auto& step : job.steps(data)) {
    for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
    step.clip_gradients(ddp.parameters());
    sgd.step();
  }
  return {job.digest(), net.out.weight.to_vector<float>(), evaluate(job, net, data, 4).loss};
}

Result train_on(int ranks, const JobOptions& options) {
  const test::Watchdog watchdog("cuda training", std::chrono::seconds(60));
  std::mutex mutex;
  std::set<std::string> digests;
  Result result;
  run_local_ranks(ranks, std::chrono::seconds(20), [&](Communicator& comm) {
    // As processes they have a stream each, which nobody else uses while it is recorded.
    std::optional<cuda::StreamScope> own;
    if (options.cuda_graph()) own.emplace(cuda::make_stream());
    Job job(options, comm);
    const Result mine = train(job);
    const std::lock_guard lock(mutex);
    digests.insert(mine.digest);
    result = mine;
  });
  cuda::release_cached_memory();  // which the emulator locks and unlocks around each kernel
  EXPECT_EQ(digests.size(), 1u) << "ranks differ at world size " << ranks;
  return result;
}

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
  // Dropout's numbers are those of samples, so they are the same.
  for (std::size_t i = 0; i < whole.weights.size(); ++i)
    EXPECT_NEAR(synchronized.weights[i], whole.weights[i], 1e-4) << i;
}

TEST(CudaTraining, AStepWaitsForItsReductionsAlone) {
  JobOptions options = options_of("cuda", 5);
  options.set_clip_norm(0);
  run_local_ranks(1, std::chrono::seconds(20), [&](Communicator& comm) {
    Job job(options, comm);
    Net net;
    DistributedDataParallel ddp(net, job);
    optim::SGD sgd(ddp.parameters(), {.lr = 0.1});
    const test::Waves data = waves();
    std::vector<std::size_t> waits;
    for (auto& step : job.steps(data)) {
      waits.push_back(cuda::emulator::waits());
      for (auto& shard : step.shards()) {
        const Tensor logits = ddp(shard.x);
        step.count_correct(logits, shard.y);
        step.add(cross_entropy(logits, shard.y)).backward();
      }
      sgd.step();
    }
    EXPECT_EQ(waits[2], waits[4]);
  });
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
  options.set_steps(4);
  EXPECT_EQ(train_on(1, options).digest, whole);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace trireme
