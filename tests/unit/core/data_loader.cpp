#include "core/data/loader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <thread>

#include "core/data/augment.h"
#include "core/data/idx.h"
#include "core/data/synthetic.h"
#include "tests/support/watchdog.h"
#include "tests/unit/core/data_files.h"

namespace trireme {
namespace {

using namespace std::chrono_literals;
using test::expect_error;

constexpr SampleShape kShape{3, 4, 5};

std::shared_ptr<const ImageDataset> small_data(std::int64_t size = 100) {
  return std::make_shared<SyntheticDataset>(kShape, 10, size, Split::kTrain);
}

LoaderOptions options(int workers, int prefetch = 4) {
  LoaderOptions result;
  result.workers = workers;
  result.prefetch = prefetch;
  return result;
}

/// Returns a source of requests for all batches of `steps` steps.
Loader::NextRequest plan(std::int64_t steps, std::int64_t size, std::int64_t batch) {
  return [=, step = std::int64_t{0}]() mutable -> std::optional<Request> {
    if (step == steps) return std::nullopt;
    const StepPlan p = plan_step(step++, size, batch);
    return Request{p.epoch, p.first, p.count};
  };
}

/// A dataset that can fail, wait and count reads.
class Awkward final : public ImageDataset {
 public:
  std::int64_t size() const override { return 1000; }
  SampleShape sample_shape() const override { return {1, 1, 1}; }
  std::int64_t classes() const override { return 2; }
  void get(std::int64_t index, float* x, std::int64_t* y) const override {
    ++reads;
    if (index == bad_index) fail(ExitCode::kData, "sample {} is bad", index);
    if (delay > 0ms) std::this_thread::sleep_for(delay);
    *x = static_cast<float>(index);
    *y = 0;
  }
  std::int64_t bad_index = -1;
  std::chrono::milliseconds delay{0};
  mutable std::atomic<int> reads{0};
};

std::vector<Batch> drain(Loader& loader) {
  std::vector<Batch> batches;
  while (auto batch = loader.next()) batches.push_back(std::move(*batch));
  return batches;
}

TEST(Loader, BatchesAreWhatWasAskedFor) {
  const auto data = small_data();
  const Sampler sampler(3, 100, true);
  for (const int workers : {0, 2}) {
    Loader loader(data, sampler, options(workers), plan(8, 100, 32));
    const std::vector<Batch> batches = drain(loader);
    ASSERT_EQ(batches.size(), 8u);
    for (std::int64_t step = 0; step < 8; ++step) {
      const Batch& batch = batches[static_cast<std::size_t>(step)];
      const StepPlan p = plan_step(step, 100, 32);
      EXPECT_EQ(batch.epoch, p.epoch);
      EXPECT_EQ(batch.first_position, p.first);
      EXPECT_EQ(batch.x.shape(), (Shape{p.count, 3, 4, 5}));
      EXPECT_TRUE(batch.x.is_channels_last());
      EXPECT_EQ(batch.x.dtype(), DType::kFloat32);
      EXPECT_EQ(batch.y.shape(), (Shape{p.count}));
      EXPECT_EQ(batch.y.dtype(), DType::kInt64);
      ASSERT_EQ(static_cast<std::int64_t>(batch.indices.size()), p.count);
      for (std::int64_t i = 0; i < p.count; ++i) {
        const std::int64_t index = batch.indices[static_cast<std::size_t>(i)];
        EXPECT_EQ(index, sampler.index(p.epoch, p.first + i));
        std::vector<float> x(60);
        std::int64_t y = 0;
        data->get(index, x.data(), &y);
        EXPECT_EQ(batch.y.data<std::int64_t>()[i], y);
        EXPECT_TRUE(std::equal(x.begin(), x.end(), batch.x.data<float>() + i * 60));
        // Find element (c, h, w) = (2, 1, 3) through the strides.
        const Shape& s = batch.x.strides();
        EXPECT_EQ(batch.x.data<float>()[i * s[0] + 2 * s[1] + 1 * s[2] + 3 * s[3]], x[(1 * 5 + 3) * 3 + 2]);
      }
    }
    EXPECT_FALSE(loader.next().has_value());
    EXPECT_GT(loader.wait_time().count(), 0);
  }
}

TEST(Loader, SameBitsForAnyNumberOfWorkers) {
  test::Watchdog watchdog("loader bits", 120s);
  const auto data = small_data();
  std::vector<Batch> reference;
  for (const int workers : {0, 1, 2, 5}) {
    for (const int prefetch : {1, 3, 16}) {
      LoaderOptions all = options(workers, prefetch);
      all.seed = 9;
      Loader loader(std::make_shared<AugmentedImages>(*data, Augmentation{2, true}), Sampler(1, 100, true),
                    all, plan(40, 100, 7));
      std::vector<Batch> batches = drain(loader);
      if (reference.empty())
        reference = std::move(batches);
      else {
        ASSERT_EQ(batches.size(), reference.size());
        for (std::size_t i = 0; i < batches.size(); ++i) {
          EXPECT_EQ(batches[i].indices, reference[i].indices);
          EXPECT_EQ(batches[i].x.to_vector<float>(), reference[i].x.to_vector<float>());
          EXPECT_EQ(batches[i].y.to_vector<std::int64_t>(), reference[i].y.to_vector<std::int64_t>());
        }
      }
    }
  }
  // The loader has applied the augmentation, with random numbers that depend on the sample.
  std::vector<float> plain(60), expected(60);
  std::int64_t y = 0;
  const std::int64_t index = reference[20].indices[3];
  data->get(index, plain.data(), &y);
  augment({2, true}, augmentation_key(9, reference[20].epoch), index, kShape, plain.data(), expected.data());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), reference[20].x.data<float>() + 3 * 60));
}

/// A dataset of tokens and a weight, without labels. The tokens contain the sample's index, epoch and seed.
class Tokens final : public Dataset {
 public:
  std::int64_t size() const override { return 10; }
  std::vector<SampleField> fields() const override {
    return {{{3}, DType::kInt64}, {}, {{2, 2}, DType::kUInt8}};
  }
  void read(const SampleId& id, std::span<std::byte* const> to) const override {
    auto* tokens = reinterpret_cast<std::int64_t*>(to[0]);
    tokens[0] = id.index;
    tokens[1] = id.epoch;
    tokens[2] = static_cast<std::int64_t>(id.seed);
    *reinterpret_cast<float*>(to[1]) = 0.5f * static_cast<float>(id.index);
    std::fill_n(to[2], 4, static_cast<std::byte>(id.index));
  }
};

TEST(Loader, ReadsAnyFields) {
  LoaderOptions o = options(1);
  o.seed = 77;
  Loader loader(std::make_shared<Tokens>(), Sampler(0, 10, false), o, plan(4, 10, 5));
  const std::vector<Batch> batches = drain(loader);
  ASSERT_EQ(batches.size(), 4u);
  const Batch& last = batches[3];
  ASSERT_EQ(last.fields.size(), 3u);
  EXPECT_EQ(last.x.shape(), (Shape{5, 3}));
  EXPECT_EQ(last.x.to_vector<std::int64_t>(),
            (std::vector<std::int64_t>{5, 1, 77, 6, 1, 77, 7, 1, 77, 8, 1, 77, 9, 1, 77}));
  EXPECT_EQ(last.y.shape(), (Shape{5}));
  EXPECT_EQ(last.y.to_vector<float>(), (std::vector<float>{2.5f, 3, 3.5f, 4, 4.5f}));
  EXPECT_EQ(last.fields[2].shape(), (Shape{5, 2, 2}));
  EXPECT_EQ(last.fields[2].data<std::uint8_t>()[19], 9);
}

TEST(Loader, AShardWithoutSamplesIsAnEmptyBatch) {
  for (const int workers : {0, 1}) {
    int calls = 0;
    Loader loader(small_data(), Sampler(1, 100, true), options(workers), [&]() -> std::optional<Request> {
      if (calls++ > 0) return std::nullopt;
      return Request{0, 100, 0};
    });
    const auto batch = loader.next();
    ASSERT_TRUE(batch.has_value());
    EXPECT_EQ(batch->x.shape(), (Shape{0, 3, 4, 5}));
    EXPECT_EQ(batch->y.shape(), (Shape{0}));
    EXPECT_FALSE(loader.next().has_value());
    EXPECT_FALSE(loader.next().has_value());
    EXPECT_EQ(calls, 2) << "asked again after the end";
  }
}

TEST(Loader, ErrorsOfTheDataComeOutInTheirPlace) {
  test::Watchdog watchdog("loader errors", 120s);
  for (const int workers : {0, 1, 3}) {
    auto data = std::make_shared<Awkward>();
    data->bad_index = 57;
    Loader loader(data, Sampler(0, 1000, false), options(workers), plan(100, 1000, 10));
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(loader.next().has_value()) << i;
    for (int i = 0; i < 3; ++i) expect_error(ExitCode::kData, {"sample 57 is bad"}, [&] { loader.next(); });
  }
}

TEST(Loader, ErrorsOfRequestsComeOutInTheirPlace) {
  test::Watchdog watchdog("loader request errors", 120s);
  for (const int workers : {0, 1, 3}) {
    std::atomic<int> calls{0};
    Loader loader(small_data(), Sampler(0, 100, true), options(workers), [&]() -> std::optional<Request> {
      if (++calls == 4) fail(ExitCode::kUsage, "no more plans");
      return Request{0, 0, 5};
    });
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(loader.next().has_value()) << i;
    for (int i = 0; i < 3; ++i) expect_error(ExitCode::kUsage, {"no more plans"}, [&] { loader.next(); });
    EXPECT_EQ(calls, 4);

    bool asked = false;
    Loader out_of_range(small_data(), Sampler(0, 100, true), options(workers),
                        [&]() -> std::optional<Request> {
                          if (std::exchange(asked, true)) return std::nullopt;
                          return Request{0, 98, 3};
                        });
    expect_error(ExitCode::kInternal, {"position 100"}, [&] { out_of_range.next(); });
  }
  expect_error(ExitCode::kInternal, {"101 samples", "100"},
               [] { Loader(small_data(), Sampler(0, 101, true), {}, plan(1, 100, 10)); });
}

TEST(Loader, PrefetchIsBounded) {
  test::Watchdog watchdog("loader bound", 120s);
  auto data = std::make_shared<Awkward>();
  Loader loader(data, Sampler(0, 1000, false), options(3, 4), plan(1000, 1000, 10));
  const auto settle = [&](int expected) {
    for (int i = 0; i < 2000 && data->reads < expected; ++i) std::this_thread::sleep_for(1ms);
    std::this_thread::sleep_for(30ms);
    EXPECT_EQ(data->reads, expected);
  };
  settle(40);
  ASSERT_TRUE(loader.next().has_value());
  settle(50);
}

// Destroys the loader while its workers start, read, wait for room, have finished, or have failed.
TEST(Loader, CanBeDestroyedAtAnyTime) {
  test::Watchdog watchdog("loader destruction", 120s);
  for (int round = 0; round < 200; ++round) {
    auto data = std::make_shared<Awkward>();
    if (round % 5 == 4) data->bad_index = 3;
    Loader loader(data, Sampler(0, 1000, false), options(1 + round % 4, 1 + round % 3),
                  plan(round % 7 == 0 ? 2 : 1000, 1000, 1 + round % 50));
    if (round % 2) std::this_thread::sleep_for(std::chrono::microseconds(round * 5));
    if (round % 3 == 0 && round % 5 != 4) loader.next();
  }
  // Also destroys it in the middle of batches that would take 10 s each.
  auto slow = std::make_shared<Awkward>();
  slow->delay = 10ms;
  const auto start = std::chrono::steady_clock::now();
  {
    Loader loader(slow, Sampler(0, 1000, false), options(4), plan(100, 1000, 1000));
    while (slow->reads < 4) std::this_thread::sleep_for(1ms);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, 3s);
}

TEST(Loader, MeasuresAndLimitsTheWait) {
  test::Watchdog watchdog("loader wait", 120s);
  auto data = std::make_shared<Awkward>();
  data->delay = 20ms;
  for (const int workers : {0, 1}) {
    Loader loader(data, Sampler(0, 1000, false), options(workers), plan(2, 1000, 5));
    drain(loader);
    EXPECT_GE(loader.wait_time(), 150ms);
  }
  data->delay = 300ms;
  LoaderOptions hasty = options(1);
  hasty.patience = 50ms;
  Loader impatient(data, Sampler(0, 1000, false), hasty, plan(1, 1000, 3));
  expect_error(ExitCode::kData, {"batch 0", "50 ms", "--patience"}, [&] { impatient.next(); });
}

TEST(Loader, RealFashionMnistEpoch) {
  const std::string directory = "/usr/share/datasets/fashion-mnist";
  if (!std::filesystem::is_directory(directory))
    GTEST_SKIP() << directory << " is absent: install the Debian package dataset-fashion-mnist";
  test::Watchdog watchdog("loader epoch", 240s);
  const auto images = IdxDataset::open(directory, Split::kTrain);
  const auto data = std::make_shared<AugmentedImages>(*images, Augmentation{4, true});
  for (const int workers : {0, 1}) {
    Loader loader(data, Sampler(0, 60000, true), options(workers), plan(469, 60000, 128));
    std::vector<bool> seen(60000);
    double sum = 0;
    const auto start = std::chrono::steady_clock::now();
    std::int64_t count = 0;
    while (const auto batch = loader.next()) {
      for (const std::int64_t index : batch->indices) seen[static_cast<std::size_t>(index)] = true;
      count += batch->y.numel();
      sum += batch->x.data<float>()[400];
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::printf("%d workers: %.0f images/s with crop and flip\n", workers,
                static_cast<double>(count) / took.count());
    EXPECT_EQ(count, 60000);
    EXPECT_EQ(std::accumulate(seen.begin(), seen.end(), std::int64_t{0}), 60000);
    EXPECT_NE(sum, 0);
  }
}

}  // namespace
}  // namespace trireme
