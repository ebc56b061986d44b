// A small network, and jobs that train it on the emulated GPU.
#pragma once

#include <gtest/gtest.h>

#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "distributed/comm/local.h"
#include "distributed/train/evaluate.h"
#include "distributed/train/job.h"
#include "kernels/cuda/memory.h"
#include "tests/support/cuda_emulator/emulator.h"
#include "tests/support/watchdog.h"
#include "tests/support/waves.h"

namespace trireme::test {

inline constexpr Device kCuda{DeviceType::kCuda, 0};

/// Returns a dataset of a size at which some shards have no samples in the last batch of an epoch.
inline Waves waves() { return Waves(22, 3, 2); }

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

inline JobOptions options_of(const char* device, std::int64_t steps) {
  const char* none[] = {"test"};
  JobOptions options = parse_options(1, none, {});
  options.set_device(device);
  options.set_steps(steps);
  options.set_global_batch(10);
  options.set_shards(5);
  options.set_bucket_mb(0.0005);  // small enough for several buckets
  options.set_clip_norm(1);
  options.set_quiet(true);
  return options;
}

struct Result {
  std::string digest;
  std::vector<float> weights;
  double loss = 0;
};

inline Result train(Job& job) {
  Net net;
  DistributedDataParallel ddp(net, job);
  optim::SGD sgd(ddp.parameters(), {.lr = 0.1, .momentum = 0.9});
  const Waves data = waves();
  for (auto& step : job.steps(data)) {
    for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
    step.clip_gradients(ddp.parameters());
    sgd.step();
  }
  return {job.digest(), net.out.weight.to_vector<float>(), evaluate(job, net, data, 4).loss};
}

inline Result train_on(int ranks, const JobOptions& options) {
  const Watchdog watchdog("cuda training", std::chrono::seconds(60));
  std::mutex mutex;
  std::set<std::string> digests;
  Result result;
  run_local_ranks(ranks, std::chrono::seconds(20), [&](Communicator& comm) {
    // Give each rank its own stream, as in a process, so that other ranks do not use it while it records.
    std::optional<cuda::StreamScope> own;
    if (options.cuda_graph()) own.emplace(cuda::make_stream());
    Job job(options, comm);
    const Result mine = train(job);
    const std::lock_guard lock(mutex);
    digests.insert(mine.digest);
    result = mine;
  });
  cuda::release_cached_memory();  // the emulator is slow with many blocks: it protects each at every kernel
  EXPECT_EQ(digests.size(), 1u) << "ranks differ at world size " << ranks;
  return result;
}

}  // namespace trireme::test
