// Trains a decoder-only transformer on text, and prints a sample of text from it.
#include <trireme/trireme.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "distributed/train/memory.h"
#include "examples/optimizer.h"
#include "examples/train_gpt/model.h"
#include "examples/train_gpt/text.h"

namespace trireme {

namespace {

/// Two optimizers: one with weight decay for matrices, and one without it for biases and norms.
struct Optimizers {
  Optimizers(const JobOptions& o, const ParameterList& parameters) {
    ParameterList matrices({}, parameters.source), others({}, parameters.source);
    for (const NamedTensor& p : parameters.items)
      (p.tensor.dim() >= 2 ? matrices : others).items.push_back(p);
    JobOptions without_decay = o;
    without_decay.set_weight_decay(0);
    all.push_back(make_optimizer(o, matrices, {.beta2 = 0.95}));
    all.push_back(make_optimizer(without_decay, others, {.beta2 = 0.95}));
  }
  void step(double lr) {
    for (const auto& optimizer : all) {
      optimizer->set_lr(lr);
      optimizer->step();
    }
  }
  std::vector<std::unique_ptr<optim::Optimizer>> all;
};

/// Returns the mean cross-entropy of logits (B,T,V) and the tokens that follow (B,T).
Tensor loss_of(const Tensor& logits, const Tensor& next) {
  return cross_entropy(flatten(logits, 0, 1), flatten(next));
}

double test_loss(Job& job, Gpt& model, const Windows& test) {
  model.eval();
  const auto sums = sum_over(job, test, 8, 1, [&](const Batch& b, std::span<double> figures) {
    figures[0] = loss_of(model(b.x), b.y).item() * static_cast<double>(b.x.size(0));
  });
  model.train();
  return sums[0] / static_cast<double>(test.size());
}

/// Returns a token drawn from the distribution of these logits (V). `chance` is a random number in [0, 1).
std::int64_t draw(const Tensor& logits, double chance) {
  const std::vector<double> probabilities = softmax(logits).to_vector<double>();
  for (std::size_t i = 0; i + 1 < probabilities.size(); ++i)
    if ((chance -= probabilities[i]) < 0) return static_cast<std::int64_t>(i);
  return static_cast<std::int64_t>(probabilities.size()) - 1;
}

/// Returns `tokens` followed by `count` tokens that the model generates. All ranks generate the same tokens.
std::vector<std::int64_t> write(Gpt& model, Device device, std::vector<std::int64_t> tokens,
                                std::int64_t count, std::uint64_t seed) {
  const NoGrad off;
  model.eval();
  for (std::int64_t i = 0; i < count; ++i) {
    const auto length = std::min(static_cast<std::int64_t>(tokens.size()), model.options.context);
    const std::vector<std::int64_t> seen(tokens.end() - length, tokens.end());
    const Tensor logits = select(select(model(to(Tensor::from(seen, {1, length}), device)), 0, 0), 0, -1);
    const auto bits = philox(random_key(seed, 0x7772697465, 0), 0, static_cast<std::uint64_t>(i));
    tokens.push_back(draw(logits, to_unit_double(bits[0], bits[1])));
  }
  model.train();
  return tokens;
}

void train(Job& job) {
  const JobOptions& o = job.options();
  GptOptions options;
  std::shared_ptr<const TokenFile> file;
  std::optional<Windows> training, test;
  agree(job.comm(), "data", [&] {
    options = parse_gpt(o.model());
    file = std::make_shared<const TokenFile>(o.data());
    training.emplace(file, options.context, Split::kTrain);
    test.emplace(file, options.context, Split::kTest);
    options.vocabulary = file->vocabulary();
    options.dropout = o.dropout();
    check_model_fits(o, parameter_count(options));
  });
  Gpt model(options);
  DistributedDataParallel ddp(model, job);
  Optimizers optimizers(o, ddp.parameters());

  double last = NAN;
  for (auto& step : job.steps(*training)) {
    for (auto& shard : step.shards()) step.add(loss_of(ddp(shard.x), shard.y)).backward();
    step.clip_gradients(ddp.parameters());
    optimizers.step(step.lr());
    if (step.is_evaluated()) {
      last = test_loss(job, model, *test);
      step.report("eval_loss", last);
    }
  }
  if (std::isnan(last)) last = test_loss(job, model, *test);  // the resumed job had no step left
  const std::vector<std::int64_t> sample =
      write(model, job.device(), {'\n'}, file->is_text() ? 256 : 32, o.seed());
  job.say(fmt::format("sample:{}", shown(sample, file->is_text())));
  job.say(fmt::format("test loss: {:.4f} per token, perplexity {:.2f}", last, std::exp(last)));
  job.say_summary();
}

}  // namespace

}  // namespace trireme

int main(int argc, char** argv) {
  trireme::JobOptions defaults;
  defaults.set_model("nano");
  defaults.set_data("text:README.md");
  defaults.set_global_batch(32);
  defaults.set_optimizer("adamw");
  defaults.set_lr(1e-3);
  defaults.set_weight_decay(0.1);
  defaults.set_schedule("cosine");
  defaults.set_warmup_steps(20);
  defaults.set_clip_norm(1);
  return trireme::run(argc, argv,
                      {"Trains a decoder-only transformer (GPT-2) on text, and lets it write some.\n"
                       "--model nano|gpt2-124m|gpt:layers=L,width=W,heads=H,context=T\n"
                       "--data text:FILE (each byte is a token) or tokens:FILE (uint16, GPT-2's vocabulary).",
                       defaults,
                       {"--augment", "--label-smoothing"}},
                      trireme::train);
}
