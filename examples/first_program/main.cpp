// The smallest training program: a network, an optimizer, and a loop that is its own.
//
//   build/bin/first_program --data idx:/usr/share/datasets/fashion-mnist --epochs 1
//   mpirun --bind-to none -np 2 build/bin/first_program --epochs 1 --shards 2
//                                                             the same bits as with one rank and --shards 2
#include <trireme/trireme.h>

int main(int argc, char** argv) {
  trireme::Program program;
  program.defaults.set_data("synthetic");
  program.unused = {"--model",        "--augment",   "--dropout",      "--label-smoothing",
                    "--eval-every",   "--optimizer", "--lr",           "--momentum",
                    "--weight-decay", "--schedule",  "--warmup-steps", "--clip-norm"};
  trireme::Job job(argc, argv, program);  // rank, world, options, data order, resume
  const auto dataset = trireme::open_dataset(job.options().data(), trireme::Split::kTrain);
  using namespace trireme::nn;
  Sequential model{Flatten(), Linear(dataset->sample_shape().elements(), 64), ReLU(),
                   Linear(64, dataset->classes())};
  trireme::DistributedDataParallel ddp(model, job);  // hooks, buckets, overlap
  trireme::optim::SGD sgd(ddp.parameters(), {.lr = 0.1, .momentum = 0.9});
  for (auto& step : job.steps(*dataset)) {  // one global batch
    for (auto& shard : step.shards())       // this rank's part of it
      step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
    sgd.step();  // waits for the reduced gradients only
  }
}
