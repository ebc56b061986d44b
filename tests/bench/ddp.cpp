// Times steps of data-parallel training on synthetic data. ddp_vs_pytorch.py runs this program.
//
//   mpirun -np 2 build/tests/bench_ddp --model resnet18 --steps 20 --global-batch 64
#include <fmt/format.h>

#include <trireme/trireme.h>

#include <algorithm>
#include <cstring>

#include "examples/train_classifier/models/models.h"
#include "examples/train_gpt/model.h"

namespace trireme {
namespace {

constexpr GptOptions kNano{.layers = 6, .width = 384, .heads = 6, .context = 256, .vocabulary = 256};

/// Synthetic samples: images (C,H,W) and their classes, or tokens (T) and the tokens that follow.
class MadeUp final : public Dataset {
 public:
  explicit MadeUp(std::vector<SampleField> fields) : fields_(std::move(fields)) {}
  std::int64_t size() const override { return 1 << 20; }
  std::vector<SampleField> fields() const override { return fields_; }
  void read(const SampleId& id, std::span<std::byte* const> to) const override {
    for (std::size_t f = 0; f < fields_.size(); ++f)
      for (std::int64_t i = 0; i < fields_[f].shape.numel(); ++i) {
        const std::int64_t value = (id.index + i) * 7919 % 10;
        const float pixel = static_cast<float>(value) / 10;
        if (fields_[f].dtype == DType::kInt64)
          std::memcpy(to[f] + i * 8, &value, 8);
        else
          std::memcpy(to[f] + i * 4, &pixel, 4);
      }
  }

 private:
  std::vector<SampleField> fields_;
};

void train(Job& job) {
  const bool is_gpt = job.options().model() == "gpt";
  const SampleShape image = job.options().model() == "mlp" ? SampleShape{1, 28, 28} : SampleShape{3, 32, 32};
  const SampleField tokens{{kNano.context}, DType::kInt64};
  const MadeUp data(
      is_gpt ? std::vector<SampleField>{tokens, tokens}
             : std::vector<SampleField>{{{image.channels, image.height, image.width}, DType::kFloat32, true},
                                        {{}, DType::kInt64}});
  const std::unique_ptr<nn::Module> model =
      is_gpt ? std::make_unique<Gpt>(kNano)
             : make_model(job.options().model(), {.input = image, .classes = 10});
  DistributedDataParallel ddp(*model, job);
  std::unique_ptr<optim::Optimizer> optimizer;
  if (is_gpt)
    optimizer =
        std::make_unique<optim::AdamW>(ddp.parameters(), AdamWOptions{.lr = 1e-3, .weight_decay = 0.1});
  else
    optimizer = std::make_unique<optim::SGD>(ddp.parameters(),
                                             SgdOptions{.lr = 0.01, .momentum = 0.9, .weight_decay = 5e-4});
  std::vector<double> times;
  auto begin = std::chrono::steady_clock::now();
  for (auto& step : job.steps(data)) {
    for (auto& shard : step.shards()) {
      const Tensor out = ddp(shard.x);
      step.add(cross_entropy(reshape(out, {shard.y.numel(), out.size(-1)}),
                             reshape(shard.y, {shard.y.numel()})))
          .backward();
    }
    optimizer->step();
    const auto end = std::chrono::steady_clock::now();
    times.push_back(std::chrono::duration<double, std::milli>(end - begin).count());
    begin = end;
  }
  // Leave out the first steps, which plan buckets, fill caches and test whether packing is worthwhile.
  times.erase(times.begin(),
              times.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(10, times.size() - 1)));
  std::ranges::sort(times);
  if (job.rank() == 0) fmt::print("ms_a_step {:.3f}\n", times[times.size() / 2]);
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  trireme::JobOptions defaults;
  defaults.set_model("mlp");
  defaults.set_quiet(true);
  return trireme::run(argc, argv, {"Times steps: --model mlp|resnet18|gpt", defaults}, trireme::train);
}
