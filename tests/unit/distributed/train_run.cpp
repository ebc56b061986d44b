// Tests that any exception of a training program becomes one line of output and an exit code.
#include "distributed/train/run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <new>
#include <stdexcept>

#include "core/metrics/jsonl.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "distributed/ddp/data_parallel.h"
#include "distributed/train/evaluate.h"
#include "distributed/train/memory.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

int run_and_throw(const std::function<void(Job&)>& body, std::string* line) {
  std::string program = "test", quiet = "--quiet";
  char* argv[] = {program.data(), quiet.data(), nullptr};
  testing::internal::CaptureStderr();
  const int code = run(2, argv, {}, body);
  *line = testing::internal::GetCapturedStderr();
  return code;
}

TEST(Run, SaysInOneLineWhatWasThrown) {
  std::string line;
  EXPECT_EQ(run_and_throw([](Job&) {}, &line), 0);
  EXPECT_EQ(line, "");
  EXPECT_EQ(run_and_throw([](Job&) { fail(ExitCode::kData, "no such file"); }, &line), 3);
  EXPECT_EQ(line, "no such file\n");
  EXPECT_EQ(run_and_throw([](Job&) { throw std::runtime_error("odd"); }, &line),
            static_cast<int>(ExitCode::kInternal));
  EXPECT_EQ(line, "unexpected error: odd\n");
  EXPECT_EQ(run_and_throw([](Job&) { throw 7; }, &line), static_cast<int>(ExitCode::kInternal));
  EXPECT_EQ(line, "unexpected error: something was thrown that is no std::exception\n");
}

TEST(Run, SaysHowMuchMemoryThereIsWhenItIsNotEnough) {
  std::string line;
  EXPECT_EQ(run_and_throw([](Job&) { throw std::bad_alloc(); }, &line), static_cast<int>(ExitCode::kUsage));
  test::expect_holds(
      line, {"out of memory: this process has ", " GB and may take ", " GB more; use a smaller --model"});
  EXPECT_EQ(std::ranges::count(line, '\n'), 1);
}

TEST(Run, EvaluatesThroughHooks) {
  std::string line;
  const int code = run_and_throw(
      [](Job& job) {
        nn::Sequential model(nn::Flatten(), nn::Linear(16, 3));
        int calls = 0;
        model.register_forward_hook([&](const auto&, const auto&) {
          ++calls;
          return std::vector<Tensor>{};
        });
        EXPECT_EQ(evaluate(job, model, *open_dataset("synthetic:1,4,4,3,64", Split::kTest)).samples, 10);
        EXPECT_EQ(calls, 1);
      },
      &line);
  EXPECT_EQ(code, 0) << line;
}

TEST(Metrics, HaveTheLearningRateThatTheOptimizerUsed) {
  const std::string path = testing::TempDir() + "/lr.jsonl";
  std::filesystem::remove(path);
  std::vector<std::string> words = {"test", "--quiet", "--metrics", path,         "--steps",
                                    "3",    "--lr",    "0.7",       "--schedule", "cosine"};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  testing::internal::CaptureStdout();
  const int code = run(static_cast<int>(argv.size()), argv.data(), {}, [](Job& job) {
    nn::Sequential model(nn::Flatten(), nn::Linear(16, 3));
    DistributedDataParallel ddp(model, job);
    optim::SGD sgd(ddp.parameters(), {.lr = 0.03});
    const auto dataset = open_dataset("synthetic:1,4,4,3,384", Split::kTrain);
    for (auto& step : job.steps(*dataset)) {
      for (auto& shard : step.shards()) step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
      sgd.step();
      sgd.set_lr(sgd.lr() / 2);  // takes effect in the next step
    }
  });
  testing::internal::GetCapturedStdout();
  EXPECT_EQ(code, 0);
  std::vector<double> rates;
  read_metrics(path, [&](const Record& line) { rates.push_back(line.number("lr").value_or(-1)); });
  EXPECT_EQ(rates, (std::vector<double>{0.03, 0.015, 0.0075}));
}

TEST(Memory, BoundsModelsByWhatIsLeft) {
  JobOptions options;
  options.set_model("m");
  options.set_optimizer("sgd");
  options.set_momentum(0.9);
  const double left = static_cast<double>(available_memory());
  EXPECT_GT(left, 1e6);
  EXPECT_NO_THROW(check_model_fits(options, left / 12 * 0.7));
  EXPECT_THROW(check_model_fits(options, left / 12 * 1.4), Error);
  options.set_optimizer("adamw");
  const std::string error = test::error_of([&] { check_model_fits(options, 1e13); });
  test::expect_holds(error,
                     {"--model 'm': 10000000000000 parameters", "adamw need 160000.0 GB on 1 rank of this"});
}

}  // namespace
}  // namespace trireme
