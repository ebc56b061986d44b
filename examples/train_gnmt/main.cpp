// Trains an encoder-decoder with attention to translate, and scores complete translations from beam search.
#include <trireme/trireme.h>

#include "distributed/train/memory.h"
#include "examples/optimizer.h"
#include "examples/train_gnmt/model.h"
#include "examples/train_gnmt/task.h"

namespace trireme {

namespace {

constexpr std::int64_t kBeams = 4;

struct Score {
  double loss = 0;      ///< mean loss of a sentence
  double accuracy = 0;  ///< fraction of translations without any error
};

/// Returns the loss per sentence, not per word, so that a sentence has the same weight in every shard.
Tensor loss_of(const Tensor& logits, const Tensor& answers) {
  const Tensor all = cross_entropy(flatten(logits, 0, 1), flatten(answers),
                                   {.ignore_index = kIgnore, .reduction = LossReduction::kSum});
  return all / static_cast<double>(answers.size(0));
}

bool is_right(const std::vector<std::int64_t>& words, const Tensor& answer) {
  const std::vector<std::int64_t> wanted = answer.to_vector<std::int64_t>();
  for (std::size_t i = 0; i < wanted.size() && wanted[i] != kIgnore; ++i)
    if (wanted[i] != (i < words.size() ? words[i] : i == words.size() ? kEnd : kIgnore)) return false;
  return true;
}

Score evaluate(Job& job, Gnmt& model, const Sentences& test) {
  model.eval();
  const auto sums = sum_over(job, test, 25, 2, [&](const Batch& b, std::span<double> figures) {
    const Tensor lengths = b.fields[3];
    const auto count = static_cast<double>(b.x.size(0));
    figures[0] = loss_of(model(b.x, lengths, b.y), b.fields[2]).item() * count;
    for (std::int64_t i = 0; i < b.x.size(0); ++i)
      figures[1] += is_right(model.translate(narrow(b.x, 0, i, 1), narrow(lengths, 0, i, 1), kBeams),
                             select(b.fields[2], 0, i));
  });
  model.train();
  const auto samples = static_cast<double>(test.size());
  return {sums[0] / samples, sums[1] / samples};
}

void train(Job& job) {
  const JobOptions& o = job.options();
  TaskOptions task;
  GnmtOptions options;
  agree(job.comm(), "options", [&] {
    task = parse_task(o.data());
    options = parse_gnmt(o.model());
    options.vocabulary = task.vocabulary();
    options.dropout = o.dropout();
    check_model_fits(o, parameter_count(options));
  });
  const Sentences training(task, Split::kTrain), test(task, Split::kTest);
  Gnmt model(options);
  DistributedDataParallel ddp(model, job);
  const auto optimizer = make_optimizer(o, ddp.parameters());

  std::optional<Score> last;
  for (auto& step : job.steps(training)) {
    for (auto& shard : step.shards())
      step.add(loss_of(model(shard.x, shard.fields[3], shard.y), shard.fields[2])).backward();
    step.clip_gradients(ddp.parameters());
    optimizer->set_lr(step.lr());
    optimizer->step();
    if (step.is_evaluated()) {
      last = evaluate(job, model, test);
      step.report("eval_loss", last->loss);
      step.report("eval_accuracy", last->accuracy);
    }
  }
  if (!last) last = evaluate(job, model, test);  // the resumed job had no step left
  job.say(fmt::format("translations without a fault: {:.1f} % of {}", 100 * last->accuracy, test.size()));
  job.say_summary();
}

}  // namespace

}  // namespace trireme

int main(int argc, char** argv) {
  trireme::JobOptions defaults;
  defaults.set_model("tiny");
  defaults.set_data("reversal");
  defaults.set_global_batch(64);
  defaults.set_optimizer("adamw");
  defaults.set_lr(5e-3);
  defaults.set_schedule("cosine");
  defaults.set_clip_norm(1);
  defaults.set_epochs(2);
  return trireme::run(argc, argv,
                      {"Trains an encoder-decoder with attention (GNMT) to translate a made-up language.\n"
                       "--model tiny|gnmt|gnmt:LAYERS,WIDTH   --data reversal[:WORDS,LENGTH,COUNT]",
                       defaults,
                       {"--augment", "--label-smoothing"}},
                      trireme::train);
}
