// Tests several models in one step. Each has its own gradients, statistics and random numbers, with the same
// bits at any world size.
#include <gtest/gtest.h>

#include <functional>
#include <mutex>
#include <set>

#include "core/autograd/autograd.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "distributed/comm/host_communicator.h"
#include "distributed/comm/local.h"
#include "distributed/train/job.h"
#include "tests/support/rank_test.h"
#include "tests/support/watchdog.h"
#include "tests/support/waves.h"

namespace trireme {
namespace {

using test::Waves;

constexpr std::int64_t kBatch = 10;

JobOptions options_of(std::int64_t steps, std::int64_t shards) {
  const char* none[] = {"test"};
  JobOptions options = parse_options(1, none, {});
  options.set_steps(steps);
  options.set_global_batch(kBatch);
  options.set_shards(shards);
  options.set_bucket_mb(0.001);  // several buckets in each model
  options.set_quiet(true);
  return options;
}

using Body = std::function<std::vector<float>(Job&)>;

/// Runs `body` on every rank and returns its result, which must be the same on all ranks.
std::vector<float> run_job(int ranks, const JobOptions& options, const Body& body) {
  const test::Watchdog watchdog("ddp_models", std::chrono::seconds(60));
  std::mutex mutex;
  std::set<std::vector<float>> results;
  run_local_ranks(ranks, std::chrono::seconds(20), [&](Communicator& comm) {
    Job job(options, comm);
    std::vector<float> result = body(job);
    const std::lock_guard lock(mutex);
    results.insert(std::move(result));
  });
  EXPECT_EQ(results.size(), 1u) << "ranks differ at world size " << ranks;
  return *results.begin();
}

void expect_same_bits(const Body& body, const JobOptions& options) {
  const std::vector<float> alone = run_job(1, options, body);
  for (const float value : alone) ASSERT_TRUE(std::isfinite(value));
  for (const int ranks : {2, 3, 5})
    for (const bool overlap : {true, false}) {
      JobOptions other = options;
      other.set_overlap(overlap);
      EXPECT_EQ(run_job(ranks, other, body), alone) << ranks << " ranks, overlap " << overlap;
    }
}

std::vector<float> values_of(std::initializer_list<nn::Module*> models) {
  std::vector<float> all;
  for (nn::Module* model : models)
    for (const auto& list : {model->parameters(), model->buffers()})
      for (const NamedTensor& t : list) {
        const auto values = t.tensor.to_vector<float>();
        all.insert(all.end(), values.begin(), values.end());
      }
  return all;
}

nn::Sequential convolutional() {
  return nn::Sequential(nn::Conv2d(1, 3, 3, {.padding = 1}, false), nn::BatchNorm2d(3, {.relu = true}),
                        nn::Flatten(), nn::Dropout(0.3), nn::Linear(48, 2));
}

TEST(Models, TwoWithBatchNormTrainNextToOneThatIsNotWrapped) {
  const Waves dataset(3 * kBatch);
  expect_same_bits(
      [&](Job& job) {
        nn::Sequential one = convolutional(), other = convolutional();
        nn::BatchNorm2d loose(1);
        DistributedDataParallel first(one, job, "one"), second(other, job, "other");
        optim::SGD sgd_first(first.parameters(), {.lr = 0.1}), sgd_second(second.parameters(), {.lr = 0.1});
        for (auto& step : job.steps(dataset)) {
          for (auto& shard : step.shards()) {
            loose(shard.x);
            step.add(cross_entropy(first(shard.x), shard.y) + cross_entropy(second(shard.x), shard.y))
                .backward();
          }
          sgd_first.step();
          sgd_second.step();
        }
        EXPECT_NE(loose.running_mean.data<float>()[0], 0) << "updated at once, from this rank's samples";
        for (const auto* model : {&one, &other})
          for (const NamedTensor& buffer : const_cast<nn::Sequential*>(model)->buffers())
            EXPECT_NE(buffer.tensor.data<float>()[0], buffer.name.ends_with("mean") ? 0 : 1) << buffer.name;
        return values_of({&one, &other});
      },
      options_of(3, 5));
}

TEST(Models, ARankWithoutSamplesKeepsTheSameStatistics) {
  const Waves dataset(2);  // in every step, including the first, three of five shards have no samples
  expect_same_bits(
      [&](Job& job) {
        nn::Sequential model = convolutional();
        DistributedDataParallel ddp(model, job);
        for (auto& step : job.steps(dataset))
          for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
        return values_of({&model});
      },
      options_of(2, 5));
}

TEST(Models, BucketsKeepOneOrderWhateverTheGraphs) {
  const Waves dataset(2 * kBatch);
  std::mutex mutex;
  std::set<std::vector<std::string>> orders;
  const Body body = [&](Job& job) {
    const auto make = [] { return nn::Sequential(nn::Flatten(), nn::Linear(16, 40), nn::Linear(40, 2)); };
    nn::Sequential one = make(), other = make();
    DistributedDataParallel first(one, job, "one"), second(other, job, "other");
    optim::SGD sgd_first(first.parameters(), {.lr = 0.1}), sgd_second(second.parameters(), {.lr = 0.1});
    std::vector<std::string> labels;
    dynamic_cast<HostCommunicator&>(job.comm()).set_trace([&](const TracedJob& call) {
      labels.push_back(call.label);
    });
    for (auto& step : job.steps(dataset)) {
      for (auto& shard : step.shards()) {
        const Tensor a = cross_entropy(first(shard.x), shard.y), b = cross_entropy(second(shard.x), shard.y);
        if (shard.index % 2 == 0) {
          step.add(a).backward();
          step.add(b).backward();
        } else {
          step.add(b).backward();
          step.add(a).backward();
        }
      }
      sgd_first.step();
      sgd_second.step();
    }
    job.comm().barrier("end").wait();
    dynamic_cast<HostCommunicator&>(job.comm()).set_trace({});
    const std::lock_guard lock(mutex);
    if (job.world_size() > 1) orders.insert(labels);
    return values_of({&one, &other});
  };
  const JobOptions options = options_of(4, 2);
  EXPECT_EQ(run_job(2, options, body), run_job(1, options, body));
  EXPECT_EQ(orders.size(), 1u) << "ranks launched in different orders";
  for (const std::string name : {"one.", "other."})
    EXPECT_TRUE(std::ranges::any_of(
        *orders.begin(), [&](const std::string& l) { return l.find("(" + name) != std::string::npos; }))
        << "no bucket names model " << name;
}

// The GAN of the listing in the PyTorch paper (A. Paszke et al., NeurIPS 2019), with one pass for each
// optimizer.
struct Gan {
  nn::Sequential critic = convolutional();
  nn::Sequential generator{nn::Linear(6, 24), nn::ReLU(), nn::Linear(24, 16)};

  Tensor fake(const Tensor& like, std::int64_t step, int shard) {
    const auto key = random_key(1, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(shard));
    return reshape(generator(normal({like.size(0), 6}, key)), like.shape());
  }
  static Tensor labels(const Tensor& x, double value) {
    return to_dtype(Tensor::full({x.size(0)}, value), DType::kInt64);
  }
  Tensor critic_loss(const Tensor& real, const Tensor& made) {
    return cross_entropy(critic(real), labels(real, 1)) +
           cross_entropy(critic(made.detach()), labels(made, 0));
  }
  Tensor generator_loss(const Tensor& made) { return cross_entropy(critic(made), labels(made, 1)); }
};

std::vector<float> train_gan(Job& job, const Dataset& dataset, bool generator_first) {
  Gan gan;
  DistributedDataParallel critic(gan.critic, job, "critic"), generator(gan.generator, job, "generator");
  optim::SGD critic_sgd(critic.parameters(), {.lr = 0.1, .momentum = 0.5});
  optim::AdamW generator_adam(generator.parameters(), {.lr = 0.01});
  for (auto& step : job.steps(dataset)) {
    const auto train_critic = [&] {
      for (auto& shard : step.shards())
        step.add(gan.critic_loss(shard.x, gan.fake(shard.x, step.index(), shard.index))).backward();
      critic_sgd.step();
      for (const NamedTensor& p : generator.parameters().items)
        EXPECT_FALSE(p.tensor.grad().defined()) << p.name << " has a gradient of the critic's pass";
    };
    const auto train_generator = [&] {
      for (auto& shard : step.shards())
        step.add(gan.generator_loss(gan.fake(shard.x, step.index(), shard.index))).backward();
      generator_adam.step();
    };
    if (generator_first) train_generator();
    train_critic();
    if (!generator_first) train_generator();
  }
  return values_of({&gan.critic, &gan.generator});
}

TEST(Models, TrainInTurn) {
  const Waves dataset(2 * kBatch + 3);  // some shards have no samples in the last batch
  for (const bool generator_first : {false, true})
    expect_same_bits([&](Job& job) { return train_gan(job, dataset, generator_first); }, options_of(5, 5));
}

std::vector<float> parameters_of(Gan& gan) {
  std::vector<float> all;
  for (auto* model : {&gan.critic, &gan.generator})
    for (const NamedTensor& p : model->parameters()) {
      const auto values = p.tensor.to_vector<float>();
      all.insert(all.end(), values.begin(), values.end());
    }
  return all;
}

TEST(Models, TrainInTurnAsWithoutDataParallel) {
  const Waves dataset(kBatch);
  const JobOptions options = options_of(1, 1);
  const auto wrapped = run_job(1, options, [&](Job& job) {
    Gan gan;
    std::dynamic_pointer_cast<nn::Dropout>(gan.critic[3])->p = 0;  // its keys depend on the model's name
    DistributedDataParallel critic(gan.critic, job, "critic"), generator(gan.generator, job, "generator");
    optim::SGD first(critic.parameters(), {.lr = 0.1}), second(generator.parameters(), {.lr = 0.1});
    for (auto& step : job.steps(dataset)) {
      std::vector<Tensor> made;
      for (auto& shard : step.shards()) {
        made.push_back(gan.fake(shard.x, step.index(), shard.index));
        step.add(gan.critic_loss(shard.x, made.back())).backward();
      }
      first.step();
      for (auto& shard : step.shards())  // continues the autograd graph of the first pass
        step.add(gan.generator_loss(made[static_cast<std::size_t>(shard.index)])).backward();
      second.step();
    }
    return parameters_of(gan);
  });

  const auto plain = run_job(1, options, [&](Job& job) {  // the job only sets the seed and the threads
    Gan gan;
    std::dynamic_pointer_cast<nn::Dropout>(gan.critic[3])->p = 0;
    optim::SGD first({gan.critic.parameters()}, {.lr = 0.1}),
        second({gan.generator.parameters()}, {.lr = 0.1});
    const Sampler sampler(job.options().seed(), kBatch, true);
    Tensor real = Tensor::empty_channels_last({kBatch, 1, 4, 4});
    std::int64_t label = 0;
    for (std::int64_t i = 0; i < kBatch; ++i)
      dataset.get(sampler.index(0, i), real.data<float>() + 16 * i, &label);
    const Tensor made = gan.fake(real, 0, 0);
    gan.critic_loss(real, made).backward();
    first.step();
    gan.generator_loss(made).backward();
    second.step();
    return parameters_of(gan);
  });
  EXPECT_EQ(wrapped, plain);
}

TEST(Models, APassThatIsLeftEarlyIsAnError) {
  const Waves dataset(2 * kBatch);
  const JobOptions options = options_of(1, 2);
  const std::string message = test::error_of([&] {
    run_job(1, options, [&](Job& job) {
      nn::Sequential model = convolutional();
      DistributedDataParallel ddp(model, job);
      for (auto& step : job.steps(dataset)) {
        for (auto& shard : step.shards()) {
          step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
          break;
        }
        for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
      }
      return std::vector<float>{};
    });
  });
  EXPECT_NE(message.find("run through step.shards() to the end"), std::string::npos) << message;
}

TEST(Models, NeedNamesOfTheirOwn) {
  const std::string message = test::error_of([&] {
    run_job(1, options_of(1, 1), [&](Job& job) {
      nn::Sequential one = convolutional(), other = convolutional();
      DistributedDataParallel first(one, job), second(other, job);
      return std::vector<float>{};
    });
  });
  EXPECT_NE(message.find("two models are called model"), std::string::npos) << message;
}

/// Expects that each of three ranks throws an error that contains `part` when it runs `body(job)`.
void expect_on_all_ranks(const std::string& part, std::int64_t steps, const std::function<void(Job&)>& body) {
  run_local_ranks(3, std::chrono::seconds(20), [&](Communicator& comm) {
    const std::string message = test::error_of([&] {
      Job job(options_of(steps, 5), comm);
      body(job);
    });
    EXPECT_NE(message.find(part), std::string::npos) << "rank " << comm.rank() << ": " << message;
  });
}

TEST(Models, InTurnLeaveNoRoomForAHookThatLearns) {
  const Waves dataset(2 * kBatch);
  JobOptions options = options_of(2, 2);
  options.set_comm_hook("powersgd");
  options.set_powersgd_rank(1);
  const std::string message =
      test::error_of([&] { run_job(2, options, [&](Job& job) { return train_gan(job, dataset, false); }); });
  EXPECT_NE(message.find("a second pass over the shards, but the communication hook of"), std::string::npos)
      << message;
}

TEST(Models, MustBeBuiltAlikeOnAllRanks) {
  expect_on_all_ranks(
      "rank 1: tensors of model are not those of rank 0: 1.weight (3, 16) of float32, trained, there (2, 16)",
      1, [](Job& job) {
        nn::Sequential model{nn::Flatten(), nn::Linear(16, job.rank() == 1 ? 3 : 2)};
        DistributedDataParallel ddp(model, job);
      });
}

TEST(Models, ThatOneRankChangesAreNoticed) {
  const Waves dataset(20);
  expect_on_all_ranks("rank 2: step 100: the checksums of weights are not those of rank 0: model.1.bias ",
                      120, [&](Job& job) {
                        nn::Sequential model{nn::Flatten(), nn::Linear(16, 2)};
                        DistributedDataParallel ddp(model, job);
                        optim::SGD sgd(ddp.parameters(), {.lr = 0.01});
                        for (auto& step : job.steps(dataset)) {
                          for (auto& shard : step.shards())
                            step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
                          sgd.step();
                          if (step.index() != 40 || job.rank() != 2) continue;
                          model.parameters()[1].tensor.data<float>()[0] += 1;
                        }
                      });
}

TEST(Models, DropOutDifferentlyEvenIfBuiltAlike) {
  run_job(2, options_of(1, 2), [&](Job& job) {
    nn::Sequential one(nn::Dropout(0.5)), other(nn::Dropout(0.5));
    DistributedDataParallel first(one, job, "one"), second(other, job, "other");
    const Tensor x = Tensor::ones({4, 64});
    EXPECT_NE(one(x).to_vector<float>(), other(x).to_vector<float>());
    return std::vector<float>{};
  });
}

TEST(Models, DropOutDifferentlyInEveryPass) {
  const Waves dataset(2 * kBatch);
  run_job(1, options_of(2, 2), [&](Job& job) {
    nn::Sequential model(nn::Dropout(0.5));
    DistributedDataParallel ddp(model, job);
    std::set<std::vector<float>> masks;
    for (auto& step : job.steps(dataset))
      for (int pass = 0; pass < 2; ++pass)
        for (const auto& shard : step.shards())
          masks.insert(ddp(Tensor::ones(shard.x.shape())).to_vector<float>());
    EXPECT_EQ(masks.size(), 8u);
    return std::vector<float>{};
  });
}

/// A module with a frozen layer, a buffer that counts calls, and running statistics.
struct Mixed : nn::Module {
  nn::Linear frozen{16, 8}, head{8, 2};
  Tensor calls = Tensor::zeros({1}, DType::kInt64);
  Tensor forward(const Tensor& x) override { return head(relu(frozen(flatten(x, 1)))); }
  void visit(nn::Visitor& v) override {
    v.module("frozen", frozen);
    v.module("head", head);
    v.buffer("calls", calls);
  }
};

TEST(Models, MayHoldFrozenParametersAndBuffersOfAnyKind) {
  const Waves dataset(2 * kBatch);
  run_job(3, options_of(2, 5), [&](Job& job) {
    Mixed model;
    model.frozen.weight.set_requires_grad(false);
    model.frozen.bias.set_requires_grad(false);
    model.calls.data<std::int64_t>()[0] = job.rank();
    const auto before = model.frozen.weight.to_vector<float>();
    DistributedDataParallel ddp(model, job);
    EXPECT_EQ(model.calls.data<std::int64_t>()[0], 0) << "buffers start as rank 0's";
    EXPECT_EQ(ddp.parameters().items.size(), 2u) << "only what is trained is reduced";
    optim::SGD sgd(ddp.parameters(), {.lr = 0.1, .momentum = 0.9});
    for (auto& step : job.steps(dataset)) {
      for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
      sgd.step();
      model.calls.data<std::int64_t>()[0] += 1;
    }
    EXPECT_EQ(model.frozen.weight.to_vector<float>(), before);
    EXPECT_EQ(model.calls.data<std::int64_t>()[0], 2);
    return model.head.weight.to_vector<float>();
  });
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
