// Tests ZeRO stage 1: each rank stores and updates its slice of the optimizer's state, without changing any
// bit of the result.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <mutex>
#include <set>

#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "core/optim/grad_scaler.h"
#include "core/optim/large_batch.h"
#include "distributed/ddp/bucket_plan.h"
#include "distributed/train/job.h"
#include "tests/support/rank_test.h"
#include "tests/support/watchdog.h"
#include "tests/support/waves.h"

#include "distributed/comm/host_communicator.h"
#include "distributed/comm/local.h"

namespace trireme {
namespace {

using test::Waves;

constexpr std::int64_t kBatch = 12, kShards = 6;

/// A module with parameters that are large enough for several ranks to update slices of them, a parameter
/// that is never used, and one without elements.
struct Net : nn::Module {
  nn::Conv2d conv{1, 3, 3, {.padding = 1}};
  nn::BatchNorm2d norm{3};
  nn::Linear wide{48, 500}, out{500, 3}, never{7, 5};
  Tensor nothing = Tensor::zeros({0}).set_requires_grad(true);
  Tensor forward(const Tensor& x) override {
    return out(relu(wide(flatten(norm(conv(x)), 1)))) + sum(nothing);
  }
  void visit(nn::Visitor& v) override {
    v.module("conv", conv);
    v.module("norm", norm);
    v.module("wide", wide);
    v.module("out", out);
    v.module("never", never);
    v.parameter("nothing", nothing);
  }
};

JobOptions options_of(std::int64_t steps, bool zero) {
  const char* none[] = {"test"};
  JobOptions options = parse_options(1, none, {});
  options.set_steps(steps);
  options.set_global_batch(kBatch);
  options.set_shards(kShards);
  options.set_bucket_mb(0.08);
  options.set_quiet(true);
  options.set_zero(zero);
  return options;
}

using MakeOptimizers = std::function<std::vector<std::unique_ptr<optim::Optimizer>>(const ParameterList&)>;

template <class Kind, class Options>
MakeOptimizers one(const Options& options) {
  return [=](const ParameterList& list) {
    std::vector<std::unique_ptr<optim::Optimizer>> all;
    all.push_back(std::make_unique<Kind>(list, options));
    return all;
  };
}

/// Returns two optimizers as in train_gpt: one with weight decay for weights, and one without it for the
/// rest. Their parameters share buckets.
std::vector<std::unique_ptr<optim::Optimizer>> two(const ParameterList& list) {
  ParameterList matrices({}, list.source), others({}, list.source);
  for (const NamedTensor& p : list.items) (p.tensor.dim() > 1 ? matrices : others).items.push_back(p);
  std::vector<std::unique_ptr<optim::Optimizer>> all;
  all.push_back(std::make_unique<optim::AdamW>(matrices, AdamWOptions{.lr = 0.01, .weight_decay = 0.1}));
  all.push_back(std::make_unique<optim::AdamW>(others, AdamWOptions{.lr = 0.01}));
  return all;
}

struct Ended {
  std::string digest;
  std::vector<std::int64_t> state_elements;  ///< elements of sharded state on each rank
};

Ended train(int ranks, const JobOptions& options, const MakeOptimizers& make, double clip = 0) {
  const test::Watchdog watchdog("ddp_zero", std::chrono::seconds(60));
  const Waves dataset(2 * kBatch + 5, 3);
  Ended ended{"", std::vector<std::int64_t>(static_cast<std::size_t>(ranks))};
  const auto two_to_a_host = [](int rank) { return rank / 2; };
  run_local_ranks(
      ranks, std::chrono::seconds(20),
      [&](Communicator& comm) {
        Job job(options, comm);
        Net net;
        DistributedDataParallel ddp(net, job);
        const auto optimizers = make(ddp.parameters());
        for (auto& step : job.steps(dataset)) {
          for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
          if (clip > 0) optim::clip_grad_norm(ddp.parameters(), clip);
          for (const auto& optimizer : optimizers) optimizer->step();
        }
        for (const auto& optimizer : optimizers)
          for (const StateTensor& t : optimizer->state())
            if (t.name != "step")
              ended.state_elements[static_cast<std::size_t>(comm.rank())] += t.tensor.numel();
        const std::string digest = job.digest();
        if (comm.rank() == 0) ended.digest = digest;
      },
      two_to_a_host);
  return ended;
}

TEST(Zero, ChangesNoBit) {
  const std::pair<const char*, MakeOptimizers> kinds[] = {
      {"sgd", one<optim::SGD>(SgdOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01})},
      {"adamw", one<optim::AdamW>(AdamWOptions{.lr = 0.01, .weight_decay = 0.1})},
      {"lars", one<optim::LARS>(optim::LayerwiseOptions{.lr = 1, .weight_decay = 0.01})},
      {"lamb", one<optim::LAMB>(optim::LayerwiseOptions{.lr = 0.01, .weight_decay = 0.01})},
      {"two", two}};
  for (const auto& [name, make] : kinds)
    for (const double clip : {0.0, 0.3}) {
      const std::string plain = train(1, options_of(5, false), make, clip).digest;
      for (const int ranks : {1, 2, 3, 5, 6})
        EXPECT_EQ(train(ranks, options_of(5, true), make, clip).digest, plain)
            << name << ", " << ranks << " ranks, clipped to " << clip;
      EXPECT_EQ(train(3, options_of(5, false), make, clip).digest, plain) << name;
    }
}

TEST(Zero, NeitherBucketsNorOverlapNorReadinessChangeBits) {
  const auto make = one<optim::SGD>(SgdOptions{.lr = 0.1, .momentum = 0.9});
  const std::string plain = train(1, options_of(5, false), make).digest;
  for (const double bucket_mb : {1e-6, 0.01, 25.0})
    for (const bool overlap : {true, false}) {
      JobOptions options = options_of(5, true);
      options.set_bucket_mb(bucket_mb);
      options.set_overlap(overlap);
      options.set_shuffle_ready(7);
      EXPECT_EQ(train(4, options, make).digest, plain) << bucket_mb << " MB, overlap " << overlap;
    }
}

TEST(Zero, SumsIn16BitsToo) {
  const auto make = one<optim::SGD>(SgdOptions{.lr = 0.1, .momentum = 0.9});
  for (const char* hook : {"bf16", "fp16"}) {
    JobOptions plain = options_of(4, false), shared = options_of(4, true);
    plain.set_comm_hook(hook);
    shared.set_comm_hook(hook);
    EXPECT_EQ(train(3, shared, make).digest, train(1, plain, make).digest) << hook;
  }
}

TEST(Zero, TrainsWithTheLibrarysOwnReduction) {
  JobOptions options = options_of(5, true);
  options.set_reduction("fastest");
  EXPECT_FALSE(train(3, options, one<optim::AdamW>(AdamWOptions{.lr = 0.01})).digest.empty());
}

TEST(Zero, KeepsEachElementOfTheStateOnce) {
  const auto adam = one<optim::AdamW>(AdamWOptions{.lr = 0.01});
  const std::int64_t all = train(1, options_of(1, true), adam).state_elements[0];
  EXPECT_EQ(all, train(1, options_of(1, false), adam).state_elements[0]);
  for (const int ranks : {2, 3, 6}) {
    std::int64_t sum = 0;
    JobOptions options = options_of(1, true);
    options.set_bucket_mb(25);
    for (const std::int64_t here : train(ranks, options, adam).state_elements) {
      EXPECT_LT(here, all / ranks + 2 * 2 * kSquaresChunk) << ranks << " ranks";
      sum += here;
    }
    EXPECT_EQ(sum, all);
  }
}

TEST(Zero, CheckpointsGoOnWithAndWithoutItAtAnyWorldSize) {
  char name[] = "/tmp/trireme-zero-XXXXXX";
  const std::filesystem::path directory = mkdtemp(name);
  const auto make = one<optim::AdamW>(AdamWOptions{.lr = 0.01});
  const std::string straight = train(1, options_of(8, false), make).digest;
  std::string digest;
  const std::tuple<std::int64_t, int, bool> legs[] = {
      {2, 3, true}, {3, 5, true}, {5, 2, false}, {6, 1, true}, {8, 6, true}};
  for (const auto& [until, ranks, zero] : legs) {
    JobOptions options = options_of(until, zero);
    options.set_checkpoint_dir(directory.string());
    digest = train(ranks, options, make).digest;
  }
  EXPECT_EQ(digest, straight);
  std::filesystem::remove_all(directory);
}

/// Runs `body` in a step with two optimizers, and returns the error that the ranks throw.
std::string error_in_step(const std::function<void(Net&, optim::Optimizer&, optim::Optimizer&)>& body) {
  const Waves dataset(2 * kBatch + 5, 3);
  return test::error_of([&] {
    run_local_ranks(2, std::chrono::seconds(20), [&](Communicator& comm) {
      Job job(options_of(2, true), comm);
      Net net;
      DistributedDataParallel ddp(net, job);
      const auto optimizers = two(ddp.parameters());
      for (auto& step : job.steps(dataset)) {
        for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
        body(net, *optimizers[0], *optimizers[1]);
      }
    });
  });
}

TEST(Zero, ParametersAreNotReadBetweenTheOptimizers) {
  const std::string message = error_in_step([](Net& net, optim::Optimizer& first, optim::Optimizer&) {
    first.step();
    net.out.weight.to_vector<float>();
  });
  EXPECT_NE(message.find("model.out.weight is read after its update, but before all optimizers"),
            std::string::npos)
      << message;
}

TEST(Zero, GradientsAreGoneAfterTheStep) {
  const std::string message = error_in_step([](Net&, optim::Optimizer& first, optim::Optimizer& second) {
    first.step();
    second.step();
    first.step();
  });
  EXPECT_NE(message.find("is asked for after the step that used it"), std::string::npos) << message;
}

TEST(Zero, UpdatesOfOneOptimizerAloneArriveByTheNextStep) {
  const std::string message =
      error_in_step([](Net&, optim::Optimizer& first, optim::Optimizer&) { first.step(); });
  EXPECT_EQ(message, "");
}

TEST(Zero, ANumberThatIsNotFiniteIsNamedOnAllRanks) {
  const Waves dataset(2 * kBatch + 5, 3);
  run_local_ranks(3, std::chrono::seconds(20), [&](Communicator& comm) {
    const std::string message = test::error_of([&] {
      Job job(options_of(2, true), comm);
      Net net;
      DistributedDataParallel ddp(net, job);
      optim::SGD sgd(ddp.parameters(), {.lr = 0.1});
      for (auto& step : job.steps(dataset)) {
        for (auto& shard : step.shards()) {
          const double spoil = shard.index == 4 ? INFINITY : 1;
          step.add(cross_entropy(ddp(shard.x), shard.y) + mul(sum(net.wide.bias), spoil)).backward();
        }
        sgd.step();
      }
    });
    EXPECT_NE(message.find("step 1: the gradient of model.wide.bias is not finite (element 0 is"),
              std::string::npos)
        << "rank " << comm.rank() << ": " << message;
  });
}

TEST(Zero, AStepThatOverflowsIsLeftOutOnAllRanks) {
  const Waves dataset(2 * kBatch + 5, 3);
  for (const bool zero : {false, true}) {
    std::atomic<int> made = 0;
    run_local_ranks(3, std::chrono::seconds(20), [&](Communicator& comm) {
      Job job(options_of(3, zero), comm);
      Net net;
      DistributedDataParallel ddp(net, job);
      optim::SGD sgd(ddp.parameters(), {.lr = 0.1});
      amp::GradScaler scaler({.initial_scale = 1e38});
      for (auto& step : job.steps(dataset)) {
        for (auto& shard : step.shards())
          step.add(mul(cross_entropy(ddp(shard.x), shard.y), step.index() == 1 ? 1e3 : 1e-3))
              .backward(scaler.scale());
        const auto before = net.parameters()[0].tensor.to_vector<float>();
        const bool steps = scaler.step(sgd);
        made += steps;
        EXPECT_EQ(net.parameters()[0].tensor.to_vector<float>() != before, steps);
        scaler.update();
      }
    });
    EXPECT_EQ(made, 3 * 2) << "zero " << zero;
  }
}

TEST(Zero, BucketsThatNobodyUsedStayAtHome) {
  const Waves dataset(2 * kBatch + 5, 3);
  std::atomic<std::uint64_t> sent = 0;
  run_local_ranks(2, std::chrono::seconds(20), [&](Communicator& comm) {
    JobOptions options = options_of(2, true);
    options.set_bucket_mb(1e-6);
    Job job(options, comm);
    Net net;
    DistributedDataParallel ddp(net, job);
    optim::SGD sgd(ddp.parameters(), {.lr = 0.1});
    dynamic_cast<HostCommunicator&>(comm).set_trace([&](const TracedJob& call) {
      if (call.label == "updates of parameters") sent += call.bytes;
    });
    for (auto& step : job.steps(dataset)) {
      for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
      sgd.step();
    }
    comm.barrier("end").wait();
    dynamic_cast<HostCommunicator&>(comm).set_trace({});
  });
  Net net;
  std::int64_t used = 0;
  for (const NamedTensor& p : net.parameters())
    if (!p.name.starts_with("never")) used += (p.tensor.numel() + 15) / 16 * 16;
  EXPECT_LE(sent, 2 * 2 * 4 * static_cast<std::uint64_t>(used));
  EXPECT_GT(sent, 0u);
}

TEST(CutBucket, CutsTensorsAtMultiplesOfTheUnit) {
  const std::vector<std::size_t> sizes = {100, 7, 1000, 16, 50};
  const std::vector<std::size_t> order = {4, 3, 2, 1, 0};
  const BucketPlan plan = plan_buckets(sizes, order, 1 << 20, 1 << 20).at(0);
  for (int ranks = 1; ranks <= 40; ++ranks) {
    const auto cuts = cut_bucket(plan, sizes, ranks, 64);
    ASSERT_EQ(cuts.size(), static_cast<std::size_t>(ranks) + 1);
    EXPECT_EQ(cuts.front(), 0u);
    EXPECT_EQ(cuts.back(), plan.elements);
    for (int rank = 0; rank < ranks; ++rank) {
      const auto r = static_cast<std::size_t>(rank);
      ASSERT_LE(cuts[r], cuts[r + 1]) << ranks << " ranks";
      EXPECT_LE(cuts[r + 1] - cuts[r], plan.elements / static_cast<std::size_t>(ranks) + 128);
      for (std::size_t slot = 0; slot < plan.tensors.size(); ++slot) {
        const std::size_t begin = plan.offsets[slot], end = begin + sizes[plan.tensors[slot]];
        if (cuts[r] > begin && cuts[r] < end) {
          EXPECT_EQ((cuts[r] - begin) % 64, 0u) << ranks << " ranks, cut " << r;
        }
      }
    }
  }
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
