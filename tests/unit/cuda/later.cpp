// Tests that the host does not wait for the GPU in a step. It reads the step's results one step later, with
// the same effects.
#include <bit>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "core/optim/grad_scaler.h"
#include "distributed/train/signals.h"
#include "tests/support/rank_test.h"
#include "tests/unit/cuda/jobs.h"

namespace trireme {
namespace {

using test::kCuda;
using test::Net;
using test::options_of;
using test::train_on;
using test::waves;

/// A module whose parameters are used in every shard, so that ranks need not exchange which were used.
struct Plain : nn::Module {
  nn::Conv2d conv{2, 4, 3, {.padding = 1}};
  nn::BatchNorm2d norm{4};
  nn::Linear out{64, 3};
  Tensor forward(const Tensor& x) override { return out(flatten(relu(norm(conv(x))), 1)); }
  void visit(nn::Visitor& v) override {
    v.module("conv", conv);
    v.module("norm", norm);
    v.module("out", out);
  }
};

TEST(CudaLater, AStepWaitsForNothing) {
  for (const int ranks : {1, 2}) {
    JobOptions options = options_of("cuda", 7);
    options.set_global_batch(22);
    options.set_shards(2);
    options.set_loader_workers(0);  // worker threads would run work of the stream
    run_local_ranks(ranks, std::chrono::seconds(20), [&](Communicator& comm) {
      const cuda::StreamScope own(cuda::make_stream());
      Job job(options, comm);
      Plain net;
      DistributedDataParallel ddp(net, job);
      optim::AdamW adamw(ddp.parameters(), {.lr = 0.1});
      const test::Waves data = waves();
      for (auto& step : job.steps(data)) {
        // The first step waits, because it finds out the order of gradients.
        std::optional<cuda::emulator::TimeStands> stands;
        if (step.index() > 0) stands.emplace();
        const std::size_t before = cuda::emulator::done(cuda::stream_as_it_is());
        for (auto& shard : step.shards()) {
          const Tensor logits = ddp(shard.x);
          step.count_correct(logits, shard.y);
          step.add(cross_entropy(logits, shard.y)).backward();
        }
        adamw.step();
        if (stands && ranks == 1) {  // with more ranks, another rank's wait also runs this rank's work
          EXPECT_EQ(cuda::emulator::done(cuda::stream_as_it_is()), before) << ranks << " ranks";
        }
      }
    });
  }
}

TEST(CudaLater, AStepOfOneGpuIsFewGraphs) {
  JobOptions options = options_of("cuda", 12);
  options.set_global_batch(11);
  options.set_shards(1);
  options.set_cuda_graph(true);
  run_local_ranks(1, std::chrono::seconds(20), [&](Communicator& comm) {
    const cuda::StreamScope own(cuda::make_stream());
    Job job(options, comm);
    Plain net;
    DistributedDataParallel ddp(net, job);
    optim::AdamW adamw(ddp.parameters(), {.lr = 0.1});
    const test::Waves data = waves();
    std::vector<RecordingStatistics> said;
    for (auto& step : job.steps(data)) {
      said.push_back(kernels_of(kCuda).recording_statistics());
      for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
      adamw.step();
    }
    // Graphs end only when they reach 16, 32, ... work items, and for no other reason.
    const auto work = said[10].work - said[9].work, graphs = said[10].graphs - said[9].graphs;
    EXPECT_LE(graphs, std::bit_width(static_cast<std::uint64_t>(work) / 16) + 1) << work;
    EXPECT_EQ(said[10].made, said[8].made) << "nothing is made anew";
  });
}

struct Spoilt {
  std::string error;
  std::vector<float> weights;
};

/// Trains with a loss that is infinite in step `spoilt`. Returns the error and the weights.
Spoilt train_spoilt(int ranks, JobOptions options, std::int64_t spoilt, const std::string& optimizer) {
  std::mutex mutex;
  std::vector<Spoilt> all;
  run_local_ranks(ranks, std::chrono::seconds(20), [&](Communicator& comm) {
    const cuda::StreamScope own(cuda::make_stream());
    Job job(options, comm);
    Net net;
    DistributedDataParallel ddp(net, job);
    std::unique_ptr<optim::Optimizer> by;
    if (optimizer == "adamw")
      by = std::make_unique<optim::AdamW>(ddp.parameters(), AdamWOptions{.lr = 0.1});
    else
      by = std::make_unique<optim::SGD>(ddp.parameters(), SgdOptions{.lr = 0.1, .momentum = 0.9});
    const test::Waves data = waves();
    Spoilt mine;
    mine.error = test::error_of([&] {
      for (auto& step : job.steps(data)) {
        const double factor = step.index() == spoilt ? INFINITY : 1;
        for (auto& shard : step.shards())
          step.add(mul(cross_entropy(ddp(shard.x), shard.y), factor)).backward();
        by->step();
      }
    });
    for (const Tensor& t : {net.conv.weight, net.norm.running_mean, net.norm.running_var, net.out.bias})
      for (const float value : t.to_vector<float>()) mine.weights.push_back(value);
    const std::lock_guard lock(mutex);
    all.push_back(std::move(mine));
  });
  cuda::release_cached_memory();
  for (const Spoilt& one : all) {
    EXPECT_EQ(one.error, all[0].error);
    EXPECT_EQ(one.weights, all[0].weights);
  }
  return all[0];
}

TEST(CudaLater, WhatIsNotFiniteIsNotApplied) {
  for (const char* optimizer : {"sgd", "adamw"}) {
    JobOptions options = options_of("cuda", 4);
    const Spoilt before = train_spoilt(1, options, 99, optimizer);
    EXPECT_EQ(before.error, "");
    options.set_steps(9);
    for (const int ranks : {1, 2})
      for (const bool graphs : {false, true}) {
        options.set_cuda_graph(graphs);
        const Spoilt spoilt = train_spoilt(ranks, options, 4, optimizer);
        EXPECT_TRUE(spoilt.error.starts_with("step 5: the gradient of model.")) << spoilt.error;
        EXPECT_NE(spoilt.error.find("is not finite (element"), std::string::npos) << spoilt.error;
        EXPECT_EQ(spoilt.weights, before.weights) << optimizer << ", " << ranks << " ranks";
      }
  }
}

TEST(CudaLater, StepsGoOnAfterOneThatOverflowed) {
  for (const int ranks : {1, 2})
    run_local_ranks(ranks, std::chrono::seconds(20), [&](Communicator& comm) {
      JobOptions options = options_of("cuda", 6);
      options.set_clip_norm(0);
      Job job(options, comm);
      Net net;
      DistributedDataParallel ddp(net, job);
      optim::SGD sgd(ddp.parameters(), {.lr = 0.1});
      amp::GradScaler scaler({.initial_scale = 1e38});
      const test::Waves data = waves();
      for (auto& step : job.steps(data)) {
        for (auto& shard : step.shards())
          step.add(mul(cross_entropy(ddp(shard.x), shard.y), step.index() == 2 ? 1e3 : 1e-3))
              .backward(scaler.scale());
        const auto before = net.out.weight.to_vector<float>();
        EXPECT_EQ(scaler.step(sgd), step.index() != 2);
        EXPECT_EQ(net.out.weight.to_vector<float>() != before, step.index() != 2) << step.index();
        scaler.update();
      }
    });
}

TEST(CudaLater, ModelsOverflowApart) {
  for (const char* device : {"cpu", "cuda"})
    run_local_ranks(2, std::chrono::seconds(20), [&](Communicator& comm) {
      Job job(options_of(device, 6), comm);
      Plain a, b;
      DistributedDataParallel first(a, job, "a"), second(b, job, "b");
      optim::AdamW of_a(first.parameters(), {.lr = 0.1}), of_b(second.parameters(), {.lr = 0.1});
      amp::GradScaler scaler({.initial_scale = 1e38});
      const test::Waves data = waves();
      for (auto& step : job.steps(data)) {
        for (auto& shard : step.shards()) {
          const Tensor large = mul(cross_entropy(first(shard.x), shard.y), step.index() == 2 ? 1e3 : 1e-3);
          step.add(add(large, mul(cross_entropy(second(shard.x), shard.y), 1e-3))).backward(scaler.scale());
        }
        const auto before_a = a.out.weight.to_vector<float>(), before_b = b.out.weight.to_vector<float>();
        EXPECT_TRUE(scaler.step(of_b));
        EXPECT_EQ(scaler.step(of_a), step.index() != 2);
        EXPECT_EQ(a.out.weight.to_vector<float>() != before_a, step.index() != 2) << step.index();
        EXPECT_NE(b.out.weight.to_vector<float>(), before_b) << step.index();
        scaler.update();
      }
    });
}

/// Trains with a second pass in every other step.
void train_passes(Job& job) {
  Net net;
  DistributedDataParallel ddp(net, job);
  optim::SGD sgd(ddp.parameters(), {.lr = 0.1});
  const test::Waves data = waves();
  for (auto& step : job.steps(data))
    for (int pass = 0; pass < 1 + step.index() % 2; ++pass) {
      for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
      sgd.step();
    }
}

/// Trains, and returns the step, the loss and the learning rate of each line of metrics.
std::vector<std::string> metrics_of(int ranks, JobOptions options) {
  const auto file = std::filesystem::path(testing::TempDir()) / "trireme_cuda_metrics.jsonl";
  options.set_metrics(file.string());
  run_local_ranks(ranks, std::chrono::seconds(20), [&](Communicator& comm) {
    const cuda::StreamScope own(cuda::make_stream());
    Job job(options, comm);
    train_passes(job);
  });
  cuda::release_cached_memory();
  std::vector<std::string> all;
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    const auto record = nlohmann::json::parse(line);
    all.push_back(fmt::format("{} {} {}", record["step"].dump(), record["loss"].dump(), record["lr"].dump()));
  }
  std::filesystem::remove(file);
  return all;
}

TEST(CudaLater, NumbersThatAreReadLaterAreThoseOfTheirStep) {
  JobOptions options = options_of("cuda", 7);
  options.set_clip_norm(0);
  options.set_schedule("cosine");
  JobOptions at_once = options;
  at_once.set_digest_every(1);
  const auto wanted = metrics_of(1, at_once);
  EXPECT_EQ(wanted.size(), 7u);
  for (const int ranks : {1, 2})
    for (const bool graphs : {false, true}) {
      options.set_cuda_graph(graphs);
      EXPECT_EQ(metrics_of(ranks, options), wanted) << ranks << " ranks, graphs " << graphs;
    }
}

TEST(CudaLater, ALoopThatIsLeftSaysWhatItHasNotLookedAt) {
  for (const std::int64_t spoilt : {2, 3})
    run_local_ranks(2, std::chrono::seconds(20), [&](Communicator& comm) {
      Job job(options_of("cuda", 9), comm);
      Net net;
      DistributedDataParallel ddp(net, job);
      optim::SGD sgd(ddp.parameters(), {.lr = 0.1});
      const test::Waves data = waves();
      for (auto& step : job.steps(data)) {
        const double factor = step.index() == spoilt ? INFINITY : 1;
        for (auto& shard : step.shards())
          step.add(mul(cross_entropy(ddp(shard.x), shard.y), factor)).backward();
        sgd.step();
        if (step.index() == 3) break;
      }
      const std::string error = test::error_of([&] { job.digest(); });
      EXPECT_TRUE(error.starts_with(fmt::format("step {}: the gradient of model.", spoilt + 1))) << error;
    });
}

TEST(CudaLater, ASignalStopsBehindTheStepUnderWay) {
  const auto directory = std::filesystem::path(testing::TempDir()) / "trireme_cuda_stop";
  std::filesystem::remove_all(directory);
  const std::string whole = train_on(2, options_of("cuda", 9)).digest;
  JobOptions options = options_of("cuda", 9);
  options.set_checkpoint_dir(directory.string());
  const std::string error = test::error_of([&] {
    run_local_ranks(1, std::chrono::seconds(20), [&](Communicator& comm) {
      Job job(options, comm);
      Net net;
      DistributedDataParallel ddp(net, job);
      optim::SGD sgd(ddp.parameters(), {.lr = 0.1, .momentum = 0.9});
      const test::Waves data = waves();
      for (auto& step : job.steps(data)) {
        if (step.index() == 2) stop_signal() = SIGTERM;  // the signal arrives in the third step
        for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
        step.clip_gradients(ddp.parameters());
        sgd.step();
      }
    });
  });
  stop_signal() = 0;
  cuda::release_cached_memory();
  EXPECT_NE(error.find("stopped by a signal after step 4"), std::string::npos) << error;
  EXPECT_EQ(train_on(2, options).digest, whole);
  std::filesystem::remove_all(directory);
}

/// Uses a module in some shards only. A rank without these shards must learn that other ranks used it.
TEST(CudaLater, RanksMayUseOtherParts) {
  const auto train_parts = [](int ranks) {
    std::mutex mutex;
    std::set<std::string> digests;
    const JobOptions options = options_of("cuda", 5);
    run_local_ranks(ranks, std::chrono::seconds(20), [&](Communicator& comm) {
      Job job(options, comm);
      Net net;
      DistributedDataParallel ddp(net, job);
      optim::AdamW adamw(ddp.parameters(), {.lr = 0.1});
      const test::Waves data = waves();
      for (auto& step : job.steps(data)) {
        for (auto& shard : step.shards()) {
          Tensor loss = cross_entropy(ddp(shard.x), shard.y);
          if (shard.index == 1 && step.index() % 2) loss = add(loss, sum(net.unused.weight));
          step.add(loss).backward();
        }
        adamw.step();
      }
      const std::string mine = job.digest();
      const std::lock_guard lock(mutex);
      digests.insert(mine);
    });
    EXPECT_EQ(digests.size(), 1u);
    return *digests.begin();
  };
  const std::string alone = train_parts(1);
  for (const int ranks : {2, 5}) EXPECT_EQ(train_parts(ranks), alone) << ranks << " ranks";
}

}  // namespace
}  // namespace trireme
