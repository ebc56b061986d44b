// Trains a generator of images against a discriminator that tells them from real ones: two models, two
// optimizers, one loop. I. Goodfellow et al., "Generative adversarial nets", 2014.
#include <trireme/trireme.h>

#include <filesystem>
#include <optional>

#include "examples/optimizer.h"
#include "examples/train_gan/models.h"
#include "examples/train_gan/png.h"

namespace trireme {

namespace {

constexpr std::uint64_t kSampleNoise = 0x67616e;  // in place of a step, for noise that no step uses

/// Returns `count` rows of noise. Row i depends only on (seed, step, first + i), not on the rank. It is
/// computed on the CPU, so that it has the same bits on every device.
Tensor noise(Device device, std::uint64_t seed, std::uint64_t step, std::int64_t first, std::int64_t count) {
  std::vector<Tensor> rows;
  for (std::int64_t i = 0; i < count; ++i)
    rows.push_back(
        normal({Generator::kLatent}, random_key(seed, step, static_cast<std::uint64_t>(first + i))));
  return to(stack(rows), device);
}

/// Returns the noise for the samples of a shard in the current step.
Tensor noise_for(const Shard& shard) {
  const nn::RandomContext& now = nn::random_context();
  return noise(shard.x.device(), now.seed, now.step, now.first_sample, shard.count);
}

Tensor loss_of(const Tensor& logits, bool real) {
  return bce_with_logits(logits, Tensor::full(logits.shape(), real ? 1 : 0, logits.dtype(), logits.device()));
}

/// Returns a grid of 8 x 8 images that the generator makes from 64 fixed rows of noise.
Picture draw_samples(Generator& generator, Device device, std::uint64_t seed) {
  const NoGrad off;
  generator.eval();
  const Tensor made = generator(noise(device, seed, kSampleNoise, 0, 64));
  generator.train();
  const std::int64_t c = made.size(1), h = made.size(2), w = made.size(3);
  // (8,8,C,H,W) -> (8,H,8,W,C)
  const Tensor grid = permute(reshape(made, {8, 8, c, h, w}), {0, 3, 1, 4, 2});
  Picture picture{8 * h, 8 * w, c == 3 ? 3 : 1, {}};
  for (const float value : narrow(grid, 4, 0, picture.channels).to_vector<float>())
    picture.pixels.push_back(static_cast<std::uint8_t>(127.5f * (value + 1) + 0.5f));
  return picture;
}

struct Judgement {
  /// The discriminator's mean probability that an image is real, for real and for generated images.
  double real = 0, generated = 0;
};

Judgement judge(Job& job, Discriminator& discriminator, Generator& generator, const ImageDataset& test,
                const Contrast& contrast) {
  discriminator.eval();
  generator.eval();
  const auto sums = sum_over(job, test, 250, 2, [&](const Batch& b, std::span<double> figures) {
    const Tensor made =
        generator(noise(b.x.device(), job.options().seed(), ~kSampleNoise, b.first_position, b.x.size(0)));
    figures[0] = sum(sigmoid(discriminator(contrast(b.x)))).item();
    figures[1] = sum(sigmoid(discriminator(made))).item();
  });
  discriminator.train();
  generator.train();
  const auto count = static_cast<double>(test.size());
  return {sums[0] / count, sums[1] / count};
}

/// Throws if the output folder holds pictures of an earlier run that this run does not resume. All ranks must
/// call it.
void claim_samples(Job& job) {
  agree(job.comm(), "samples", [&] {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(OutputPaths(job.options()).folder, ignored))
      if (entry.path().filename().string().starts_with("samples-") && entry.path().extension() == ".png")
        job.claim_output(entry.path());
  });
}

/// Writes a picture of samples into the output folder on rank 0. All ranks must call it, and all throw if the
/// picture cannot be written.
void write_samples(Job& job, Generator& generator, std::int64_t epoch) {
  const std::filesystem::path folder = OutputPaths(job.options()).folder;
  if (folder.empty()) return;
  agree(job.comm(), "samples", [&] {
    if (!job.is_root()) return;
    const auto path = folder / fmt::format("samples-{:04}.png", epoch);
    write_png(path, draw_samples(generator, job.device(), job.options().seed()));
    job.say("samples: " + path.string());
  });
}

void train(Job& job) {
  const JobOptions& o = job.options();
  std::unique_ptr<ImageDataset> training, test;
  agree(job.comm(), "data", [&] {
    training = open_dataset(o.data(), Split::kTrain);
    test = open_dataset(o.data(), Split::kTest);
    check_sides(training->sample_shape());
  });
  const Contrast contrast(*training);
  Discriminator discriminator(training->sample_shape());
  Generator generator(training->sample_shape());
  // Wrap the model that is nearer to the loss first, because its gradients are complete first.
  DistributedDataParallel critic(discriminator, job, "discriminator"), maker(generator, job, "generator");
  const auto critic_optimizer = make_optimizer(o, critic.parameters(), {.beta1 = 0.5});
  const auto maker_optimizer = make_optimizer(o, maker.parameters(), {.beta1 = 0.5});

  claim_samples(job);
  std::optional<Judgement> last;
  for (auto& step : job.steps(*training)) {
    critic_optimizer->set_lr(step.lr());
    maker_optimizer->set_lr(step.lr());
    std::vector<Tensor> made;
    for (auto& shard : step.shards()) {  // (1) train the discriminator
      made.push_back(maker(noise_for(shard)));
      const Tensor of_made = critic(made.back().detach());
      step.add(loss_of(critic(contrast(shard.x)), true) + loss_of(of_made, false)).backward();
    }
    critic_optimizer->step();
    auto next = made.begin();
    for ([[maybe_unused]] auto& shard : step.shards())  // (2) train the generator through the discriminator
      step.add(loss_of(critic(*next++), true)).backward();
    maker_optimizer->step();

    if (!step.ends_epoch() && !step.is_last()) continue;
    write_samples(job, generator, step.epoch() + 1);
    if (!step.is_evaluated()) continue;
    last = judge(job, discriminator, generator, *test, contrast);
    step.report("eval_real", last->real);
    step.report("eval_generated", last->generated);
  }
  if (!last) last = judge(job, discriminator, generator, *test, contrast);  // no step left
  job.say(fmt::format("found real by the discriminator: {:.1f} % of test images, {:.1f} % of generated ones",
                      100 * last->real, 100 * last->generated));
  job.say_summary();
}

}  // namespace

}  // namespace trireme

int main(int argc, char** argv) {
  trireme::JobOptions defaults;
  defaults.set_data("idx:/usr/share/datasets/fashion-mnist");
  defaults.set_optimizer("adamw");
  defaults.set_lr(2e-4);
  return trireme::run(
      argc, argv,
      {"Trains a generator of images against a discriminator (DCGAN).\n"
       "--out DIR gets a grid of generated images after each epoch: DIR/samples-0001.png, ...",
       defaults,
       {"--model", "--augment", "--dropout", "--label-smoothing", "--clip-norm"}},
      trireme::train);
}
