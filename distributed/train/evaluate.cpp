#include "distributed/train/evaluate.h"

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

struct BatchResult {
  double loss = 0;
  std::int64_t correct = 0;
};

BatchResult measure(nn::Module& model, const Batch& batch) {
  const Tensor logits = model.forward(batch.x);
  const Tensor hits = to_dtype(eq(argmax(logits), batch.y), DType::kInt64);
  return {cross_entropy(logits, batch.y).item() * static_cast<double>(batch.y.numel()),
          static_cast<std::int64_t>(sum(hits).item())};
}

}  // namespace

Evaluation evaluate(Job& job, nn::Module& model, const Dataset& dataset, std::int64_t batch) {
  const auto begin = std::chrono::steady_clock::now();
  const TraceScope scope(job.trace(), "evaluate", "evaluation");
  const std::int64_t batches = (dataset.size() + batch - 1) / batch;
  const int world = job.world_size();
  const auto first_of = [&](int rank) { return batches * rank / world; };
  std::vector<BatchResult> results(static_cast<std::size_t>(batches));
  std::int64_t at = first_of(job.rank());
  const std::int64_t end = first_of(job.rank() + 1);
  Loader loader(
      std::shared_ptr<const Dataset>(std::shared_ptr<void>(), &dataset), Sampler(0, dataset.size(), false),
      {.workers = static_cast<int>(job.options().loader_workers()), .patience = patience_of(job.options())},
      [next = at, end, batch, &dataset]() mutable -> std::optional<Request> {
        if (next >= end) return std::nullopt;
        const std::int64_t first = next++ * batch;
        return Request{0, first, std::min(batch, dataset.size() - first)};
      });
  {
    const NoGrad off;
    model.eval();
    for (; at < end; ++at) results[static_cast<std::size_t>(at)] = measure(model, loader.next().value());
    model.train();
  }
  std::vector<std::span<std::byte>> slices;
  for (int r = 0; r < world; ++r)
    slices.push_back(std::as_writable_bytes(std::span(results).subspan(
        static_cast<std::size_t>(first_of(r)), static_cast<std::size_t>(first_of(r + 1) - first_of(r)))));
  job.comm().all_gather(slices, "evaluation").wait();
  Evaluation total{.samples = dataset.size()};
  std::int64_t correct = 0;
  for (const BatchResult& r : results) {
    total.loss += r.loss;
    correct += r.correct;
  }
  total.loss /= static_cast<double>(total.samples);
  total.accuracy = static_cast<double>(correct) / static_cast<double>(total.samples);
  job.exclude(std::chrono::steady_clock::now() - begin);
  return total;
}

}  // namespace trireme
