// Trains an image classifier on any number of ranks.
#include <trireme/trireme.h>

#include "examples/optimizer.h"
#include "examples/train_classifier/models/models.h"

namespace trireme {

namespace {

void train(Job& job) {
  const JobOptions& o = job.options();
  std::unique_ptr<ImageDataset> training, test;
  agree(job.comm(), "data", [&] {
    training = open_dataset(o.data(), Split::kTrain);
    test = open_dataset(o.data(), Split::kTest);
  });
  std::unique_ptr<nn::Module> model;
  agree(job.comm(), "model", [&] {
    model = make_model(o.model(), {training->sample_shape(), training->classes(), o.dropout()});
  });
  DistributedDataParallel ddp(*model, job);
  const auto optimizer = make_optimizer(o, ddp.parameters());
  const Augmentation augmentation = o.augment() ? Augmentation{.padding = 2, .flip = true} : Augmentation{};

  Evaluation last;
  for (auto& step : job.steps(*training, augmentation)) {
    for (auto& shard : step.shards()) {
      const Tensor logits = ddp(shard.x);
      step.count_correct(logits, shard.y);
      step.add(cross_entropy(logits, shard.y, {.label_smoothing = o.label_smoothing()})).backward();
    }
    step.clip_gradients(ddp.parameters());
    optimizer->set_lr(step.lr());
    optimizer->step();
    if (step.is_evaluated()) {
      last = evaluate(job, *model, *test);
      step.report("eval_loss", last.loss);
      step.report("eval_accuracy", last.accuracy);
    }
  }
  if (last.samples == 0) last = evaluate(job, *model, *test);  // the resumed job had no step left
  job.say(fmt::format("test accuracy: {:.2f} % of {} images", 100 * last.accuracy, last.samples));
  job.say_summary();
}

}  // namespace

}  // namespace trireme

int main(int argc, char** argv) {
  trireme::JobOptions defaults;
  defaults.set_model("resnet8");
  defaults.set_data("idx:/usr/share/datasets/fashion-mnist");
  return trireme::run(
      argc, argv,
      {fmt::format("Trains an image classifier: --model {}\n"
                   "Images with a side below 64 pixels get the stems customary for CIFAR. The "
                   "papers train alexnet and vgg19 with --dropout 0.5.",
                   trireme::model_names()),
       defaults},
      trireme::train);
}
