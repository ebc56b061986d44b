// What a whole step costs: forward, backward and the optimizer, of four networks on made-up data.
//
//   ninja -C build trireme_bench && OMP_NUM_THREADS=2 build/tests/bench_steps
//
// tests/bench/steps.py runs the same steps in PyTorch, in turns with these.
#include <benchmark/benchmark.h>

#include <vector>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "core/optim/optimizer.h"
#include "examples/train_classifier/models/models.h"
#include "examples/train_gpt/model.h"

namespace trireme {
namespace {

/// Whole numbers from 0 to below - 1 in a mixed order.
Tensor ramp(const Shape& shape, std::int64_t below) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int64_t>(i) * 7919 % below;
  return Tensor::from(values, shape);
}

void time_steps(benchmark::State& state, nn::Module& model, optim::Optimizer& optimizer, const Tensor& x,
                const Tensor& labels) {
  const auto step = [&] {
    optimizer.zero_grad();
    const Tensor out = model(x);
    cross_entropy(reshape(out, {labels.numel(), out.size(-1)}), labels).backward();
    optimizer.step();
  };
  for (int i = 0; i < 3; ++i) step();
  for (auto _ : state) step();
}

void image_steps(benchmark::State& state, const std::string& name, std::int64_t batch, std::int64_t channels,
                 std::int64_t side) {
  const auto model = make_model(name, {.input = {channels, side, side}});
  optim::SGD sgd(model->parameters(), {.lr = 0.01, .momentum = 0.9, .weight_decay = 5e-4});
  const Tensor x = to(ramp({batch, channels, side, side}, 255), DType::kFloat32) * (1.0 / 255);
  time_steps(state, *model, sgd, x, ramp({batch}, 10));
}

void gpt_steps(benchmark::State& state) {
  constexpr std::int64_t kBatch = 8, kContext = 256, kVocabulary = 256;
  Gpt model({.layers = 6, .width = 384, .heads = 6, .context = kContext, .vocabulary = kVocabulary});
  optim::AdamW adamw(model.parameters(), {.lr = 1e-3, .weight_decay = 0.1});
  time_steps(state, model, adamw, ramp({kBatch, kContext}, kVocabulary),
             ramp({kBatch * kContext}, kVocabulary));
}

BENCHMARK_CAPTURE(image_steps, mlp, "mlp", 128, 1, 28)
    ->Name("steps/mlp")
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(image_steps, lenet, "lenet", 64, 1, 28)
    ->Name("steps/lenet")
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(image_steps, resnet18, "resnet18", 64, 3, 32)
    ->Name("steps/resnet18")
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(gpt_steps)->Name("steps/gpt")->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace trireme

BENCHMARK_MAIN();
