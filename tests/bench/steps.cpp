// What a whole step costs: forward, backward and the optimizer, of networks on made-up data.
//
//   ninja -C build trireme_bench && OMP_NUM_THREADS=2 build/tests/bench_steps
//   build/tests/bench_steps cuda bfloat16 graph     on a GPU, in the type of --dtype, as --cuda-graph
//
// tests/bench/steps.py runs the same steps in PyTorch, in turns with these.
#include <benchmark/benchmark.h>

#include <string_view>
#include <vector>

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "core/optim/optimizer.h"
#include "examples/train_classifier/models/models.h"
#include "examples/train_gpt/model.h"

namespace trireme {
namespace {

struct Setting {
  Device device;
  bool bfloat16 = false, graph = false;
};

/// Whole numbers from 0 to below - 1 in a mixed order.
Tensor ramp(const Shape& shape, std::int64_t below) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int64_t>(i) * 7919 % below;
  return Tensor::from(values, shape);
}

void time_steps(benchmark::State& state, const Setting& setting, nn::Module& model,
                optim::Optimizer& optimizer, Tensor x, Tensor labels) {
  x = to_device(x, setting.device);
  labels = to_device(labels, setting.device);
  Tensor loss;
  const KernelTable& kernels = kernels_of(setting.device);
  const auto step = [&] {
    if (setting.graph) kernels.begin_recording();
    optimizer.zero_grad();
    {
      const amp::Autocast mixed(setting.bfloat16);
      const Tensor out = model(x);
      loss = cross_entropy(reshape(out, {labels.numel(), out.size(-1)}), labels);
    }
    loss.backward();
    optimizer.step();
  };
  for (int i = 0; i < 3; ++i) step();
  // The host runs ahead of a GPU, whose work is waited for at the end of each round.
  const int round = setting.device.is_cpu() ? 1 : 10;
  loss.item();
  while (state.KeepRunningBatch(round)) {
    for (int i = 0; i < round; ++i) step();
    benchmark::DoNotOptimize(loss.item());
  }
  kernels.end_recording();
}

struct ImageCase {
  const char* name;
  std::int64_t batch, channels, side, classes;
};
constexpr ImageCase kOnCpu[] = {
    {"mlp", 128, 1, 28, 10}, {"lenet", 64, 1, 28, 10}, {"resnet18", 64, 3, 32, 10}};
constexpr ImageCase kOnGpu[] = {{"mlp", 128, 1, 28, 10}, {"resnet50", 128, 3, 224, 1000}};

void image_steps(benchmark::State& state, const Setting& setting, const ImageCase& c) {
  const auto model = make_model(c.name, {.input = {c.channels, c.side, c.side}, .classes = c.classes});
  nn::move_to(*model, setting.device);
  optim::SGD sgd(model->parameters(), {.lr = 0.01, .momentum = 0.9, .weight_decay = 5e-4});
  const Tensor x = to(ramp({c.batch, c.channels, c.side, c.side}, 255), DType::kFloat32) * (1.0 / 255);
  time_steps(state, setting, *model, sgd, x, ramp({c.batch}, 10));
}

void gpt_steps(benchmark::State& state, const Setting& setting, const GptOptions& o) {
  constexpr std::int64_t kBatch = 8;
  Gpt model(o);
  nn::move_to(model, setting.device);
  optim::AdamW adamw(model.parameters(), {.lr = 1e-3, .weight_decay = 0.1});
  time_steps(state, setting, model, adamw, ramp({kBatch, o.context}, o.vocabulary),
             ramp({kBatch * o.context}, o.vocabulary));
}

void add_benchmarks(const Setting& setting) {
  const auto add = [](const std::string& name, auto fn) {
    benchmark::RegisterBenchmark(("steps/" + name).c_str(), fn)->Unit(benchmark::kMillisecond)->UseRealTime();
  };
  const auto add_images = [&](const auto& cases) {
    for (const ImageCase& c : cases)
      add(c.name, [setting, c](benchmark::State& s) { image_steps(s, setting, c); });
  };
  if (setting.device.is_cpu())
    add_images(kOnCpu);
  else
    add_images(kOnGpu);
  const GptOptions small{.layers = 6, .width = 384, .heads = 6, .context = 256, .vocabulary = 256};
  GptOptions gpt2 = parse_gpt("gpt2-124m");
  gpt2.vocabulary = 50257;
  const GptOptions gpt = setting.device.is_cpu() ? small : gpt2;
  add("gpt", [setting, gpt](benchmark::State& s) { gpt_steps(s, setting, gpt); });
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  trireme::Setting setting{trireme::kCpu};
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "cuda") setting.device = {trireme::DeviceType::kCuda, 0};
    if (word == "bfloat16") setting.bfloat16 = true;
    if (word == "graph") setting.graph = true;
  }
  trireme::add_benchmarks(setting);
  benchmark::RunSpecifiedBenchmarks();
}
