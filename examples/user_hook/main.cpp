// Trains a small network whose gradients are reduced by a user's own comm hook, that of majority_vote.h.
#include <trireme/trireme.h>

#include "examples/user_hook/majority_vote.h"

namespace trireme {

namespace {

void train(Job& job) {
  const auto dataset = open_dataset(job.options().data(), Split::kTrain);
  nn::Sequential model{nn::Flatten(), nn::Linear(dataset->sample_shape().elements(), 64), nn::ReLU(),
                       nn::Linear(64, dataset->classes())};
  DistributedDataParallel ddp(model, job);
  ddp.register_comm_hook(majority_vote);
  optim::SGD sgd(ddp.parameters(), {.lr = job.options().lr()});
  for (auto& step : job.steps(*dataset)) {
    for (auto& shard : step.shards()) {
      const Tensor logits = ddp(shard.x);
      step.count_correct(logits, shard.y);
      step.add(cross_entropy(logits, shard.y)).backward();
    }
    sgd.set_lr(step.lr());
    sgd.step();
    if (step.is_last()) step.report("eval_accuracy", evaluate(job, model, *dataset, 256).accuracy);
  }
  job.say_summary();
}

}  // namespace

}  // namespace trireme

int main(int argc, char** argv) {
  trireme::JobOptions defaults;
  defaults.set_data("synthetic");
  defaults.set_lr(1e-3);
  return trireme::run(
      argc, argv,
      {"Trains by the votes of its shards: each sends the signs of its gradient.",
       defaults,
       {"--model", "--augment", "--dropout", "--label-smoothing", "--eval-every", "--optimizer", "--momentum",
        "--weight-decay", "--clip-norm", "--comm-hook", "--powersgd-rank"}},
      trireme::train);
}
