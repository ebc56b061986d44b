#include "distributed/train/evaluate.h"

#include "core/autograd/autograd.h"
#include "core/base/progress.h"
#include "core/ops/ops.h"

namespace trireme {

std::vector<double> sum_over(Job& job, const Dataset& dataset, std::int64_t batch, std::size_t figures,
                             const std::function<void(const Batch&, std::span<double>)>& measure) {
  kernels_of(job.device()).end_recording();  // a step has no measurement most of the time
  // A GPU may still be at the steps before, whose time is theirs.
  if (!job.device().is_cpu()) Tensor::zeros({1}, DType::kFloat32, job.device()).item();
  const auto begin = std::chrono::steady_clock::now();
  const auto communication_before = job.communication_time();
  const TraceScope scope(job.trace(), "evaluate", "evaluation");
  const std::int64_t batches = (dataset.size() + batch - 1) / batch;
  const int world = job.world_size();
  const auto first_of = [&](int rank) { return static_cast<std::size_t>(batches * rank / world); };
  std::vector<double> results(static_cast<std::size_t>(batches) * figures);
  const auto results_of = [&](std::size_t first, std::size_t last) {
    return std::span(results).subspan(first * figures, (last - first) * figures);
  };
  const std::size_t first = first_of(job.rank()), end = first_of(job.rank() + 1);
  Loader loader(std::shared_ptr<const Dataset>(std::shared_ptr<void>(), &dataset),
                Sampler(0, dataset.size(), false),
                {.workers = static_cast<int>(job.options().loader_workers()),
                 .seed = job.options().seed(),
                 .patience = patience_of(job.options()),
                 .device = job.device()},
                [next = first, end, batch, &dataset]() mutable -> std::optional<Request> {
                  if (next >= end) return std::nullopt;
                  const std::int64_t from = static_cast<std::int64_t>(next++) * batch;
                  return Request{0, from, std::min(batch, dataset.size() - from)};
                });
  {
    const NoGrad off;
    const amp::Autocast autocast(job.options().dtype() != "float32");
    for (std::size_t at = first; at < end; ++at) {
      measure(loader.next().value(), results_of(at, at + 1));
      note_progress();
    }
  }
  std::vector<std::span<std::byte>> slices;
  for (int r = 0; r < world; ++r)
    slices.push_back(std::as_writable_bytes(results_of(first_of(r), first_of(r + 1))));
  job.comm().all_gather(slices, "evaluation").wait();
  std::vector<double> sums(figures);
  for (std::size_t i = 0; i < results.size(); ++i) sums[i % figures] += results[i];
  job.exclude(std::chrono::steady_clock::now() - begin, job.communication_time() - communication_before);
  return sums;
}

Evaluation evaluate(Job& job, nn::Module& model, const Dataset& dataset, std::int64_t batch) {
  model.eval();
  const auto sums = sum_over(job, dataset, batch, 2, [&](const Batch& b, std::span<double> figures) {
    const Tensor logits = model(b.x);
    const Tensor hits = to_dtype(eq(argmax(logits), b.y), DType::kInt64);
    figures[0] = cross_entropy(logits, b.y).item() * static_cast<double>(b.y.numel());
    figures[1] = sum(hits).item();
  });
  model.train();
  const auto samples = static_cast<double>(dataset.size());
  return {.loss = sums[0] / samples, .accuracy = sums[1] / samples, .samples = dataset.size()};
}

}  // namespace trireme
