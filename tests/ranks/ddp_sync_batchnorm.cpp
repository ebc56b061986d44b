// Tests synchronized batch normalization over all shards of a step, with each shard on its own rank.
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "core/nn/layers.h"
#include "core/nn/recompute.h"
#include "core/ops/ops.h"
#include "distributed/comm/local.h"
#include "distributed/train/job.h"
#include "tests/support/rank_test.h"
#include "tests/support/watchdog.h"
#include "tests/support/waves.h"

namespace trireme {
namespace {

using test::Waves;

constexpr std::int64_t kBatch = 12;

struct Net : nn::Module {
  nn::Conv2d conv{1, 4, 3, {.padding = 1}};
  nn::BatchNorm2d first{4, {.relu = true}}, second{4, {.relu = true}};
  nn::Linear out{64, 3};
  Tensor forward(const Tensor& x) override {
    const Tensor a = conv(x), b = first(a);
    return out(flatten(second(b, a), 1));  // b is the residual
  }
  void visit(nn::Visitor& v) override {
    v.module("conv", conv);
    v.module("first", first);
    v.module("second", second);
    v.module("out", out);
  }
};

JobOptions options_of(std::int64_t shards, bool sync) {
  const char* none[] = {"test"};
  JobOptions options = parse_options(1, none, {});
  options.set_steps(4);
  options.set_global_batch(kBatch);
  options.set_shards(shards);
  options.set_sync_batchnorm(sync);
  options.set_bucket_mb(0.001);
  options.set_quiet(true);
  return options;
}

struct Trained {
  std::string digest;
  std::vector<float> values;
};

Trained train(int ranks, const JobOptions& options, std::int64_t samples = 2 * kBatch, bool recompute = false,
              const LocalHosts& host_of = {}) {
  const test::Watchdog watchdog("ddp_sync_batchnorm", std::chrono::seconds(60));
  Trained trained;
  run_local_ranks(
      ranks, std::chrono::seconds(20),
      [&](Communicator& comm) {
        Job job(options, comm);
        const Waves dataset(samples, 3, 1, 3);
        Net net;
        DistributedDataParallel ddp(net, job);
        optim::SGD sgd(ddp.parameters(), {.lr = 0.1, .momentum = 0.9});
        const auto forward = [&](const std::vector<Tensor>& in) { return ddp(in[0]); };
        for (auto& step : job.steps(dataset)) {
          for (auto& shard : step.shards()) {
            const Tensor logits = recompute ? nn::recompute(forward, {shard.x}) : ddp(shard.x);
            step.add(cross_entropy(logits, shard.y)).backward();
          }
          sgd.step();
        }
        const std::string digest = job.digest();
        if (comm.rank() != 0) return;
        trained.digest = digest;
        for (const auto& list : {net.parameters(), net.buffers()})
          for (const NamedTensor& t : list)
            for (const float value : t.tensor.to_vector<float>()) trained.values.push_back(value);
      },
      host_of);
  return trained;
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b, double most) {
  ASSERT_EQ(a.size(), b.size());
  double difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    difference = std::max(difference, std::abs(double{a[i]} - double{b[i]}));
  EXPECT_LT(difference, most);
}

TEST(SyncBatchNorm, ShardsGetTheStatisticsOfTheWholeBatch) {
  // With one shard, plain batch normalization computes the same statistics.
  const Trained whole = train(1, options_of(1, false));
  for (const int ranks : {1, 2, 3, 4}) {
    expect_near(train(ranks, options_of(ranks, true)).values, whole.values, 2e-4);
    expect_near(train(ranks, options_of(ranks, true), 2 * kBatch + 5).values,
                train(1, options_of(1, false), 2 * kBatch + 5).values, 2e-4);
  }
  const std::vector<float> apart = train(4, options_of(4, false)).values;
  double difference = 0;
  for (std::size_t i = 0; i < apart.size(); ++i)
    difference = std::max(difference, std::abs(double{apart[i]} - double{whole.values[i]}));
  EXPECT_GT(difference, 1e-2) << "without it, shards' own statistics would be as good";
}

TEST(SyncBatchNorm, HasTheSameBitsWhereverRanksAreAndHoweverBackwardGoes) {
  const Trained plain = train(4, options_of(4, true));
  EXPECT_EQ(train(4, options_of(4, true), 2 * kBatch, false, [](int rank) { return rank; }).digest,
            plain.digest);
  EXPECT_EQ(train(4, options_of(4, true), 2 * kBatch, false, [](int rank) { return rank % 2; }).digest,
            plain.digest);
  EXPECT_EQ(train(4, options_of(4, true), 2 * kBatch, true).digest, plain.digest) << "recomputed";
  JobOptions zero = options_of(4, true);
  zero.set_zero(1);
  zero.set_overlap(false);
  EXPECT_EQ(train(4, zero).digest, plain.digest);
  zero.set_overlap(true);
  zero.set_shuffle_ready(3);
  EXPECT_EQ(train(4, zero).digest, plain.digest);
}

TEST(SyncBatchNorm, ARankThatFailsIsHeardOfByThoseWhoWaitForItsStatistics) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string message = test::error_of([] {
    run_local_ranks(3, std::chrono::seconds(60), [&](Communicator& comm) {
      Job job(options_of(3, true), comm);
      const Waves dataset(2 * kBatch, 3, 1, 3);
      Net net;
      DistributedDataParallel ddp(net, job);
      for (auto& step : job.steps(dataset))
        for (auto& shard : step.shards()) {
          if (comm.rank() == 1) fail(ExitCode::kData, "no such luck");
          step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
        }
    });
  });
  EXPECT_NE(message.find("no such luck"), std::string::npos) << message;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST(SyncBatchNorm, NeedsARankForEachShardAndASampleForEach) {
  const std::string few = test::error_of([] { train(2, options_of(4, true)); });
  EXPECT_NE(few.find("4 shards need 4 ranks, and there are 2"), std::string::npos) << few;
  const std::string empty = test::error_of([] { train(4, options_of(4, true), kBatch + 3); });
  EXPECT_NE(empty.find("the last batch of an epoch has 3 samples for 4 shards"), std::string::npos) << empty;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
