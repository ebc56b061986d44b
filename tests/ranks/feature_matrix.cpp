// Tests random combinations of the features of data-parallel training. Any job, run in any way, must have the
// bits of the plain run on one rank.
//
// For long runs, TRIREME_CONFIGURATIONS=1000 sets the total number of ways to run jobs, and TRIREME_FIRST=N
// the first job.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "core/nn/layers.h"
#include "core/nn/recompute.h"
#include "core/ops/ops.h"
#include "core/optim/large_batch.h"
#include "distributed/comm/local.h"
#include "distributed/train/job.h"
#include "tests/support/watchdog.h"

namespace trireme {
namespace {

constexpr std::int64_t kShards = 16, kVocabulary = 500;
constexpr int kWaysOfAJob = 4;

using Random = std::mt19937_64;

bool coin(Random& random, int out_of = 2) { return random() % static_cast<unsigned>(out_of) == 0; }

template <class T>
T pick(Random& random, std::initializer_list<T> from) {
  return from.begin()[random() % from.size()];
}

/// The model, data and hyperparameters of a job. Another recipe gives other bits.
struct Recipe {
  std::int64_t samples, batch, steps;
  bool norm, dropout, tied, sparse_use, recompute, embedding, two_models, two_optimizers, counter;
  const char *optimizer, *hook, *dtype;
  double clip;

  explicit Recipe(Random& random)
      : samples(pick<std::int64_t>(random, {64, 71, 39, 33})),
        batch(pick<std::int64_t>(random, {16, 32})),
        steps(3 + static_cast<std::int64_t>(random() % 3)),
        norm(coin(random)),
        dropout(coin(random)),
        tied(coin(random)),
        sparse_use(coin(random)),
        recompute(coin(random)),
        embedding(coin(random)),
        two_models(coin(random, 3)),
        two_optimizers(coin(random, 3)),
        counter(coin(random)),
        optimizer(pick(random, {"sgd", "adamw", "lars", "lamb"})),
        hook(pick(random, {"none", "none", "bf16", "fp16", "powersgd"})),
        dtype(pick(random, {"float32", "float32", "bfloat16"})),
        clip(coin(random) ? 0.5 : 0) {}

  std::string text() const {
    return fmt::format(
        "{} samples, batch {}, {} steps, norm {}, dropout {}, tied {}, sparse use {}, recompute {}, "
        "embedding {}, "
        "two models {}, two optimizers {}, counter {}, {}, hook {}, {}, clip {}",
        samples, batch, steps, norm, dropout, tied, sparse_use, recompute, embedding, two_models,
        two_optimizers, counter, optimizer, hook, dtype, clip);
  }
};

/// The settings with which a job is run. The bits must not depend on them.
struct Way {
  int ranks = 1, ranks_per_host = 64, second_ranks = 0;
  bool zero = false, second_zero = false, overlap = true, delays = false, alternate_hosts = false,
       packs = false;
  double bucket_mb = 25;
  std::uint64_t shuffle = 0;
  std::int64_t workers = 0;

  static Way draw(Random& random) {
    Way way;
    way.ranks = pick(random, {1, 2, 3, 4, 5, 6, 7, 8, 12});
    way.ranks_per_host = pick(random, {1, 2, 3, 64});
    way.second_ranks = coin(random, 3) ? pick(random, {1, 2, 4, 8}) : 0;
    way.zero = coin(random);
    way.second_zero = coin(random);
    way.overlap = !coin(random, 4);
    way.delays = coin(random, 4);
    way.alternate_hosts = coin(random, 4);
    way.packs = coin(random);
    way.bucket_mb = pick(random, {1e-6, 0.002, 0.05, 25.0});
    way.shuffle = coin(random) ? random() : 0;
    way.workers = coin(random) ? 2 : 0;
    return way;
  }
  std::string text() const {
    return fmt::format(
        "{} ranks, {} to a host{}, zero {}, {}overlap {}, delays {}, packs {}, buckets of {} MB, shuffle {}, "
        "{} "
        "workers",
        ranks, ranks_per_host, alternate_hosts ? " in turn" : "", zero,
        second_ranks > 0 ? fmt::format("then on {} ranks with zero {}, ", second_ranks, second_zero) : "",
        overlap, delays, packs, bucket_mb, shuffle, workers);
  }
};

class Samples final : public Dataset {
 public:
  explicit Samples(std::int64_t size) : size_(size) {}
  std::int64_t size() const override { return size_; }
  std::vector<SampleField> fields() const override {
    return {
        {.shape = {1, 6, 6}}, {.shape = {3}, .dtype = DType::kInt64}, {.shape = {}, .dtype = DType::kInt64}};
  }
  void read(const SampleId& id, std::span<std::byte* const> to) const override {
    auto* const image = reinterpret_cast<float*>(to[0]);
    for (int i = 0; i < 36; ++i)
      image[i] = static_cast<float>(std::sin(static_cast<double>(id.index * 36 + i)));
    for (int i = 0; i < 3; ++i)
      reinterpret_cast<std::int64_t*>(to[1])[i] = (id.index * 7 + i * 131) % kVocabulary;
    *reinterpret_cast<std::int64_t*>(to[2]) = id.index % 4;
  }

 private:
  std::int64_t size_;
};

struct Net : nn::Module {
  explicit Net(const Recipe& from) : recipe(from) { drop.p = 0.3; }
  const Recipe recipe;
  nn::Conv2d conv{1, 4, 3, {.padding = 1}};
  nn::BatchNorm2d norm{4};
  nn::Dropout drop;
  nn::Linear wide{144, 24}, square{24, 24}, out{24, 4}, seldom{24, 4};
  nn::Embedding words{kVocabulary, 24};
  Tensor calls = Tensor::zeros({1}, DType::kInt64), seen = Tensor::zeros({2}, DType::kBool);

  Tensor logits(const Tensor& image, const Tensor& text, bool uses_seldom) {
    Tensor h = conv(image);
    if (recipe.norm) h = norm(h);
    h = relu(wide(flatten(h, 1)));
    if (recipe.embedding) h = h + mean(words(text), {1});
    if (recipe.dropout) h = drop(h);
    h = relu(square(h));
    if (recipe.tied) h = relu(square(h));
    return uses_seldom ? out(h) + seldom(h) : out(h);
  }
  Tensor forward(const Tensor& x) override { return x; }
  void visit(nn::Visitor& v) override {
    v.module("conv", conv);
    v.module("norm", norm);
    v.module("drop", drop);
    v.module("wide", wide);
    v.module("square", square);
    v.module("out", out);
    v.module("seldom", seldom);
    v.module("words", words);
    v.buffer("calls", calls);
    v.buffer("seen", seen);
  }
};

std::unique_ptr<optim::Optimizer> make_optimizer(const Recipe& recipe, const ParameterList& list) {
  const std::string kind = recipe.optimizer;
  const optim::LayerwiseOptions layerwise{.lr = 0.02, .weight_decay = 0.01};
  if (kind == "adamw") return std::make_unique<optim::AdamW>(list, AdamWOptions{.lr = 0.01});
  if (kind == "lars") return std::make_unique<optim::LARS>(list, layerwise);
  if (kind == "lamb") return std::make_unique<optim::LAMB>(list, layerwise);
  return std::make_unique<optim::SGD>(list, SgdOptions{.lr = 0.05, .momentum = 0.9});
}

std::vector<std::unique_ptr<optim::Optimizer>> make_optimizers(const Recipe& recipe,
                                                               const ParameterList& list) {
  std::vector<std::unique_ptr<optim::Optimizer>> all;
  ParameterList matrices({}, list.source), others({}, list.source);
  for (const NamedTensor& p : list.items)
    (p.tensor.dim() > 1 || !recipe.two_optimizers ? matrices : others).items.push_back(p);
  all.push_back(make_optimizer(recipe, matrices));
  if (recipe.two_optimizers) all.push_back(make_optimizer(recipe, others));
  return all;
}

/// Trains and returns the final digest on rank 0.
std::string train_steps(Job& job, const Recipe& recipe, const Way& way) {
  const Samples dataset(recipe.samples);
  std::vector<std::unique_ptr<Net>> nets;
  std::vector<std::unique_ptr<DistributedDataParallel>> wrapped;
  std::vector<std::unique_ptr<optim::Optimizer>> optimizers;
  for (int k = 0; k < (recipe.two_models ? 2 : 1); ++k) {
    nets.push_back(std::make_unique<Net>(recipe));
    wrapped.push_back(std::make_unique<DistributedDataParallel>(*nets.back(), job, fmt::format("net{}", k)));
    for (auto& optimizer : make_optimizers(recipe, wrapped.back()->parameters()))
      optimizers.push_back(std::move(optimizer));
  }
  Random random(static_cast<std::uint64_t>(job.rank()));
  for (auto& step : job.steps(dataset)) {
    for (auto& shard : step.shards()) {
      if (way.delays) std::this_thread::sleep_for(std::chrono::microseconds(random() % 1500));
      const bool uses_seldom = !recipe.sparse_use || (shard.index + step.index()) % 5 == 0;
      Tensor loss;
      for (const auto& net : nets) {
        const auto forward = [&](const std::vector<Tensor>& image) {
          return net->logits(image[0], shard.fields[1], uses_seldom);
        };
        const std::vector<Tensor> image{shard.fields[0]};
        const Tensor logits = recipe.recompute ? nn::recompute(forward, image) : forward(image);
        const Tensor own = cross_entropy(logits, shard.fields[2]);
        loss = loss.defined() ? loss + own : own;
      }
      step.add(loss).backward();
    }
    for (const auto& ddp : wrapped)
      if (recipe.clip > 0) optim::clip_grad_norm(ddp->parameters(), recipe.clip);
    for (const auto& optimizer : optimizers) optimizer->step();
    if (recipe.counter)
      for (const auto& net : nets) {
        net->calls.data<std::int64_t>()[0] += step.index();
        net->seen.data<bool>()[step.index() % 2] = true;
      }
  }
  return job.digest();
}

/// Runs the job and returns the digest after `steps` steps.
std::string train(const Recipe& recipe, const Way& way, int ranks, bool zero, std::int64_t steps,
                  const std::filesystem::path& checkpoints) {
  const char* none[] = {"test"};
  JobOptions options = parse_options(1, none, {});
  options.set_steps(steps);
  options.set_global_batch(recipe.batch);
  options.set_shards(kShards);
  options.set_comm_hook(recipe.hook);
  options.set_dtype(recipe.dtype);
  options.set_bucket_mb(way.bucket_mb);
  options.set_overlap(way.overlap);
  options.set_shuffle_ready(way.shuffle);
  options.set_loader_workers(way.workers);
  options.set_zero(zero);
  options.set_compress_links(way.packs ? "on" : "off");
  options.set_checkpoint_dir(checkpoints.string());
  options.set_quiet(true);
  std::string digest;
  run_local_ranks(
      ranks, std::chrono::seconds(30),
      [&](Communicator& comm) {
        Job job(options, comm);
        const std::string here = train_steps(job, recipe, way);
        if (comm.rank() == 0) digest = here;
      },
      [&](int rank) { return way.alternate_hosts ? rank % 2 : rank / way.ranks_per_host; });
  return digest;
}

std::string run(const Recipe& recipe, const Way& way) {
  if (way.second_ranks == 0) return train(recipe, way, way.ranks, way.zero, recipe.steps, "");
  char name[] = "/tmp/trireme-matrix-XXXXXX";
  const std::filesystem::path checkpoints = mkdtemp(name);
  train(recipe, way, way.ranks, way.zero, recipe.steps / 2, checkpoints);
  const std::string digest = train(recipe, way, way.second_ranks, way.second_zero, recipe.steps, checkpoints);
  std::filesystem::remove_all(checkpoints);
  return digest;
}

long number_from(const char* name, long otherwise) {
  const char* const text = std::getenv(name);
  return text ? std::atol(text) : otherwise;
}

TEST(FeatureMatrix, ChangesNoBitWhateverTheWay) {
  const long ways = number_from("TRIREME_CONFIGURATIONS", 60), first = number_from("TRIREME_FIRST", 1);
  const test::Watchdog watchdog("feature_matrix", std::chrono::seconds(280 + 2 * ways));
  for (long job = first, done = 0; done < ways; ++job) {
    Random random(static_cast<std::uint64_t>(job));
    const Recipe recipe(random);
    const std::string plain = run(recipe, Way());
    for (int k = 0; k < kWaysOfAJob && done < ways; ++k, ++done) {
      const Way way = Way::draw(random);
      ASSERT_EQ(run(recipe, way), plain) << "job " << job << ": " << recipe.text() << "\n" << way.text();
    }
  }
}

}  // namespace
}  // namespace trireme
