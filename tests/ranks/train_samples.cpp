// Tests that every epoch trains on each sample exactly once, in the same batches and shards at any world
// size. This also holds when a job stops in the middle of an epoch and resumes at another world size.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "distributed/comm/local.h"
#include "distributed/train/evaluate.h"
#include "distributed/train/job.h"
#include "tests/support/rank_test.h"
#include "tests/support/watchdog.h"

namespace trireme {
namespace {

constexpr std::int64_t kSamples = 45, kBatch = 8, kShards = 8, kEpochs = 3;
constexpr std::int64_t kStepsPerEpoch = 6;  // the last batch has 5 samples, so three shards have none

/// A dataset whose samples are their own indices.
class Numbers final : public ImageDataset {
 public:
  std::int64_t size() const override { return kSamples; }
  SampleShape sample_shape() const override { return {1, 1, 1}; }
  std::int64_t classes() const override { return 2; }
  void get(std::int64_t index, float* x, std::int64_t* y) const override {
    *x = static_cast<float>(index);
    *y = index % 2;
  }
};

/// Records the samples that each (step, shard) was trained on. Each pair may be recorded at most once.
class Seen {
 public:
  void add(std::int64_t step, const Shard& shard) {
    std::vector<std::int64_t> samples;
    for (std::int64_t i = 0; i < shard.count; ++i)
      samples.push_back(static_cast<std::int64_t>(shard.x.data<float>()[i]));
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(seen_.emplace(std::pair(step, shard.index), samples).second)
        << "shard " << shard.index << " of step " << step << " was trained on twice";
  }
  const auto& all() const { return seen_; }

 private:
  std::mutex mutex_;
  std::map<std::pair<std::int64_t, int>, std::vector<std::int64_t>> seen_;
};

JobOptions options_of(std::int64_t steps, const std::filesystem::path& checkpoints, int workers) {
  const char* none[] = {"test"};
  JobOptions options = parse_options(1, none, {});
  options.set_steps(steps);
  options.set_global_batch(kBatch);
  options.set_shards(kShards);
  options.set_lr(1e-4);
  options.set_loader_workers(workers);
  options.set_checkpoint_dir(checkpoints.string());
  options.set_quiet(true);
  return options;
}

void train(int ranks, const JobOptions& options, Seen& seen) {
  run_local_ranks(ranks, std::chrono::seconds(30), [&](Communicator& comm) {
    Job job(options, comm);
    const Numbers dataset;
    nn::Sequential model{nn::Flatten(), nn::Linear(1, 2)};
    DistributedDataParallel ddp(model, job);
    optim::SGD sgd(ddp.parameters(), {.lr = options.lr()});
    for (auto& step : job.steps(dataset)) {
      for (auto& shard : step.shards()) {
        seen.add(step.index(), shard);
        step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
      }
      sgd.step();
    }
  });
}

void expect_every_sample_once(const Seen& seen) {
  std::map<std::int64_t, std::map<std::int64_t, int>> times;  // count of each sample in each epoch
  for (const auto& [where, samples] : seen.all())
    for (const std::int64_t sample : samples) ++times[where.first / kStepsPerEpoch][sample];
  ASSERT_EQ(times.size(), static_cast<std::size_t>(kEpochs));
  for (const auto& [epoch, samples] : times) {
    EXPECT_EQ(samples.size(), static_cast<std::size_t>(kSamples))
        << "epoch " << epoch << " leaves samples out";
    for (const auto& [sample, count] : samples)
      EXPECT_EQ(count, 1) << "sample " << sample << " of epoch " << epoch;
  }
}

class TrainSamples : public testing::Test {
 protected:
  TrainSamples() {
    char name[] = "/tmp/trireme-samples-XXXXXX";
    directory_ = mkdtemp(name);
  }
  ~TrainSamples() override { std::filesystem::remove_all(directory_); }

  test::Watchdog watchdog_{"train_samples", std::chrono::seconds(120)};
  std::filesystem::path directory_;
};

TEST_F(TrainSamples, EachOnceAndAlikeAtAnyWorldSize) {
  Seen alone;
  train(1, options_of(kEpochs * kStepsPerEpoch, "", 0), alone);
  expect_every_sample_once(alone);
  EXPECT_NE(alone.all().at({0, 0}), alone.all().at({kStepsPerEpoch, 0})) << "epochs in the same order";
  for (const int ranks : {2, 3, 5, 8}) {
    Seen seen;
    train(ranks, options_of(kEpochs * kStepsPerEpoch, "", 2), seen);
    EXPECT_EQ(seen.all(), alone.all()) << ranks << " ranks";
  }
}

TEST_F(TrainSamples, EachOnceThroughStopsAndOtherWorldSizes) {
  Seen alone, seen;
  train(1, options_of(kEpochs * kStepsPerEpoch, "", 1), alone);
  // The job stops in the middle of an epoch, before and after its uneven last batch, and at its end.
  const std::vector<std::pair<std::int64_t, int>> stops = {{3, 2}, {5, 5}, {6, 1}, {11, 8}, {13, 3}, {18, 4}};
  for (const auto& [step, ranks] : stops) train(ranks, options_of(step, directory_, 2), seen);
  expect_every_sample_once(seen);
  EXPECT_EQ(seen.all(), alone.all());
}

/// Returns the last value of `key` in a file of metrics.
double last(const std::filesystem::path& metrics, const std::string& key) {
  std::ifstream file(metrics);
  double value = NAN;
  for (std::string line; std::getline(file, line);) value = nlohmann::json::parse(line).value(key, value);
  return value;
}

TEST_F(TrainSamples, TheReportedLossIsTheMeanOverTheBatch) {
  for (const int ranks : {1, 3}) {
    JobOptions options = options_of(kStepsPerEpoch, "", 0);  // last step: at most one sample per shard
    options.set_metrics(directory_ / fmt::format("{}.jsonl", ranks));
    std::mutex mutex;
    std::vector<double> losses, correct;
    run_local_ranks(ranks, std::chrono::seconds(30), [&](Communicator& comm) {
      Job job(options, comm);
      const Numbers dataset;
      nn::Linear model(1, 1);
      const DistributedDataParallel ddp(model, job);
      for (auto& step : job.steps(dataset))
        for (auto& shard : step.shards()) {
          const std::lock_guard lock(mutex);
          step.add(mean(shard.x));
          step.add(to_dtype(mean(shard.x * 0.5), DType::kFloat64));  // adds to the shard's other loss
          step.count_correct(flatten(cat({shard.x * 0.0, shard.x - 20.0}, 1), 1), shard.y);
          if (step.is_last())
            for (std::int64_t i = 0; i < shard.count; ++i) {
              losses.push_back(1.5 * shard.x.data<float>()[i]);
              const bool says_one = shard.x.data<float>()[i] > 20;
              correct.push_back(says_one == (shard.y.data<std::int64_t>()[i] == 1));
            }
        }
    });
    ASSERT_EQ(losses.size(), 5u);
    const auto mean_of = [](const std::vector<double>& v) {
      return std::accumulate(v.begin(), v.end(), 0.0) / 5;
    };
    EXPECT_NEAR(last(options.metrics(), "loss"), mean_of(losses), 1e-4);
    EXPECT_NEAR(last(options.metrics(), "accuracy"), mean_of(correct), 1e-6);
  }
}

/// A dataset on slow storage: each read takes 700 ms.
class Stuck final : public ImageDataset {
 public:
  std::int64_t size() const override { return kSamples; }
  SampleShape sample_shape() const override { return {1, 1, 1}; }
  std::int64_t classes() const override { return 2; }
  void get(std::int64_t, float* x, std::int64_t* y) const override {
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    *x = 0;
    *y = 0;
  }
};

TEST_F(TrainSamples, PatienceBoundsTheWaitForData) {
  JobOptions options = options_of(1, "", 1);
  options.set_patience(0.3);
  run_local_ranks(1, std::chrono::seconds(30), [&](Communicator& comm) {
    const Stuck dataset;
    nn::Sequential model{nn::Flatten(), nn::Linear(1, 2)};
    const auto expect_patience = [](const std::string& message) {
      EXPECT_NE(message.find("was not ready after 300 ms"), std::string::npos) << message;
    };
    Job training(options, comm);
    expect_patience(test::error_of([&] {
      for (auto& step : training.steps(dataset))
        for (auto& shard : step.shards()) ADD_FAILURE() << "got shard " << shard.index;
    }));
    Job evaluation(options, comm);
    expect_patience(test::error_of([&] { evaluate(evaluation, model, dataset, 100); }));
  });
}

}  // namespace
}  // namespace trireme
