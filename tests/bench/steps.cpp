// Measures whole training steps (forward, backward, optimizer) of networks on generated data.
//
//   ninja -C build trireme_bench && OMP_NUM_THREADS=2 build/tests/bench_steps
//   build/tests/bench_steps cuda bfloat16 graph     on a GPU, with autocast, with CUDA graphs
//   build/tests/bench_steps --help                  lists the options
//
// tests/bench/steps.py alternates these with the same steps in PyTorch.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string>
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

constexpr const char* kHelp =
    "usage: bench_steps [cpu|cuda] [float32|bfloat16] [eager|graph] [options]\n"
    "  --iterations N   time exactly N steps of each network (default: as many as Google Benchmark chooses,\n"
    "                   which runs each network several times to find their number)\n"
    "  --batch N        samples per step of gpt (default: 8)\n"
    "  --vocabulary N   tokens that gpt knows (default: 50257 on a GPU, 256 on a CPU)\n"
    "  --gpt SPEC       size of gpt: nano, gpt2-124m or gpt:layers=L,width=W,heads=H,context=T\n"
    "  --benchmark_*    Google Benchmark's own options\n";

struct Setting {
  Device device = kCpu;
  bool bfloat16 = false, graph = false;
  std::int64_t iterations = 0;  ///< number of timed steps; 0: Google Benchmark chooses it
  std::int64_t batch = 8, vocabulary = 0;
  std::string gpt;
};

/// Returns shuffled whole numbers from 0 to below - 1.
Tensor ramp(const Shape& shape, std::int64_t below) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int64_t>(i) * 7919 % below;
  return Tensor::from(values, shape);
}

void time_steps(benchmark::State& state, const Setting& setting, nn::Module& model,
                optim::Optimizer& optimizer, Tensor x, Tensor labels) {
  constexpr int kWarmUp = 3;
  x = to_device(x, setting.device);
  labels = to_device(labels, setting.device);
  Tensor loss;
  const KernelTable& kernels = kernels_of(setting.device);
  int steps = 0;
  const auto step = [&] {
    // The first two steps load libraries and make plans, which must not happen while kernels are recorded.
    if (setting.graph && steps++ >= 2) kernels.begin_recording();
    optimizer.zero_grad();
    {
      const amp::Autocast mixed(setting.bfloat16);
      const Tensor out = model(x);
      loss = cross_entropy(reshape(out, {labels.numel(), out.size(-1)}), labels);
    }
    loss.backward();
    optimizer.step();
  };
  for (int i = 0; i < kWarmUp; ++i) step();
  // The CPU runs ahead of a GPU, and waits for it at the end of each round.
  const auto most = std::min<std::int64_t>(setting.iterations > 0 ? setting.iterations : 10, 10);
  const auto round = setting.device.is_cpu() ? 1 : static_cast<int>(most);
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
constexpr ImageCase kOnCpu[] = {{"mlp", 128, 1, 28, 10},
                                {"lenet", 64, 1, 28, 10},
                                {"resnet18", 64, 3, 32, 10},
                                {"mobilenet", 8, 3, 224, 1000}};
constexpr ImageCase kOnGpu[] = {{"mlp", 128, 1, 28, 10}, {"resnet50", 128, 3, 224, 1000}};

void image_steps(benchmark::State& state, const Setting& setting, const ImageCase& c) {
  const auto model = make_model(c.name, {.input = {c.channels, c.side, c.side}, .classes = c.classes});
  nn::move_to(*model, setting.device);
  optim::SGD sgd(model->parameters(), {.lr = 0.01, .momentum = 0.9, .weight_decay = 5e-4});
  const Tensor x = to(ramp({c.batch, c.channels, c.side, c.side}, 255), DType::kFloat32) * (1.0 / 255);
  time_steps(state, setting, *model, sgd, x, ramp({c.batch}, 10));
}

void gpt_steps(benchmark::State& state, const Setting& setting, const GptOptions& o) {
  Gpt model(o);
  nn::move_to(model, setting.device);
  optim::AdamW adamw(model.parameters(), {.lr = 1e-3, .weight_decay = 0.1});
  time_steps(state, setting, model, adamw, ramp({setting.batch, o.context}, o.vocabulary),
             ramp({setting.batch * o.context}, o.vocabulary));
}

GptOptions gpt_of(const Setting& setting) {
  const bool cpu = setting.device.is_cpu();
  GptOptions o = parse_gpt(!setting.gpt.empty() ? setting.gpt
                           : cpu                ? "gpt:layers=6,width=384,heads=6,context=256"
                                                : "gpt2-124m");
  o.vocabulary = setting.vocabulary > 0 ? setting.vocabulary : cpu ? 256 : 50257;
  return o;
}

void add_benchmarks(const Setting& setting) {
  const auto add = [&](const std::string& name, auto fn) {
    auto* const one = benchmark::RegisterBenchmark(("steps/" + name).c_str(), fn);
    one->Unit(benchmark::kMillisecond)->UseRealTime();
    if (setting.iterations > 0) one->Iterations(setting.iterations);
  };
  const auto add_images = [&](const auto& cases) {
    for (const ImageCase& c : cases)
      add(c.name, [setting, c](benchmark::State& s) { image_steps(s, setting, c); });
  };
  if (setting.device.is_cpu())
    add_images(kOnCpu);
  else
    add_images(kOnGpu);
  add("gpt", [setting, gpt = gpt_of(setting)](benchmark::State& s) { gpt_steps(s, setting, gpt); });
}

std::int64_t positive(const std::string& option, std::string_view text) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < 1)
    fail(ExitCode::kUsage, "{} '{}': must be a whole number from 1", option, text);
  return value;
}

/// Parses the arguments that Google Benchmark has left. Throws Error(kUsage) if one is unknown.
Setting parse(int argc, char** argv) {
  Setting setting;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool takes_value =
        word == "--iterations" || word == "--batch" || word == "--vocabulary" || word == "--gpt";
    if (takes_value && i + 1 == argc) fail(ExitCode::kUsage, "{}: a value must follow", word);
    if (word == "--iterations")
      setting.iterations = positive(word, argv[++i]);
    else if (word == "--batch")
      setting.batch = positive(word, argv[++i]);
    else if (word == "--vocabulary")
      setting.vocabulary = positive(word, argv[++i]);
    else if (word == "--gpt")
      setting.gpt = argv[++i];
    else if (word == "cuda")
      setting.device = {DeviceType::kCuda, 0};
    else if (word == "bfloat16")
      setting.bfloat16 = true;
    else if (word == "graph")
      setting.graph = true;
    else if (word != "cpu" && word != "float32" && word != "eager")
      fail(ExitCode::kUsage, "unknown argument '{}': --help lists them all", word);
  }
  return setting;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  const auto is_help = [](std::string_view word) { return word == "--help"; };
  if (std::any_of(argv + 1, argv + argc, is_help)) {
    std::fputs(trireme::kHelp, stdout);
    return 0;
  }
  try {
    benchmark::Initialize(&argc, argv);
    trireme::add_benchmarks(trireme::parse(argc, argv));
    benchmark::RunSpecifiedBenchmarks();
    return 0;
  } catch (const trireme::Error& e) {
    std::fprintf(stderr, "bench_steps: %s\n", e.what());
    return static_cast<int>(e.code());
  }
}
