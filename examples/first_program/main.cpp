// The smallest training program: a network, an optimizer, and the program's own training loop.
//
//   build/bin/first_program --data idx:/usr/share/datasets/fashion-mnist --epochs 1
//   mpirun --bind-to none -np 2 build/bin/first_program --epochs 1 --shards 2
//
// The second run gives the same bits as a run on one rank with --shards 2.
#include <trireme/trireme.h>

int main(int argc, char** argv) {
  trireme::Program program;
  program.defaults.set_data("synthetic");
  program.unused = {"--model",        "--augment",   "--dropout",      "--label-smoothing",
                    "--eval-every",   "--optimizer", "--lr",           "--momentum",
                    "--weight-decay", "--schedule",  "--warmup-steps", "--clip-norm"};
  trireme::Job job(argc, argv, program);  // parses options, joins the other ranks, resumes from a checkpoint
  const auto dataset = trireme::open_dataset(job.options().data(), trireme::Split::kTrain);
  using namespace trireme::nn;
  Sequential model{Flatten(), Linear(dataset->sample_shape().elements(), 64), ReLU(),
                   Linear(64, dataset->classes())};
  trireme::DistributedDataParallel ddp(model, job);  // reduces gradients in buckets during backward
  trireme::optim::SGD sgd(ddp.parameters(), {.lr = 0.1, .momentum = 0.9});
  for (auto& step : job.steps(*dataset)) {  // a step is one global batch
    for (auto& shard : step.shards())       // the shards of the batch that this rank computes
      step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
    sgd.step();  // waits until the gradients are reduced
  }
}
