// A step of the training loop as its body sees it; job.cpp drives it.
#include "core/ops/ops.h"
#include "distributed/train/job.h"
#include "distributed/train/schedule.h"

namespace trireme {

void Job::measure(StepSum what, const Tensor& value, double weight) {
  const Tensor &all = step_sum_->leaf(),
               sum = all.alias({}, {}, all.offset() + static_cast<std::int64_t>(what)),
               here = to_device(value.detach(), device()), share = Tensor::empty_like(sum);
  const KernelTable& kernels = kernels_of(device());
  kernels.copy(share.view(), here.alias({}, {}, here.offset()).view());
  kernels.unary(UnaryOp::mul_scalar, share.view(), share.view(), {weight});
  kernels.binary(BinaryOp::add, sum.view(), sum.view(), share.view());
}

double Step::lr() const {
  return optim::learning_rate(schedule_of(job_.options_, job_.total_steps_), index_);
}

bool Step::is_evaluated() const {
  const std::int64_t every = job_.options_.eval_every();
  return is_last_ || (every > 0 && ends_epoch_ && (epoch() + 1) % every == 0);
}

void Step::clip_gradients(const ParameterList& parameters) {
  const double most = job_.options_.clip_norm();
  if (most > 0) report("grad_norm", optim::clip_grad_norm(parameters, most));
}

Step::Shards Step::shards() { return Shards(*this); }

StepLoss Step::add(const Tensor& loss) {
  TRIREME_CHECK(loss.defined() && loss.numel() == 1, "step: add() needs a loss of one element, got shape {}",
                loss.defined() ? loss.shape().to_string() : "of an undefined tensor");
  job_.forward_ +=
      Job::Clock::now() - job_.forward_began_ - (job_.waited_in_reads() - job_.waited_before_forward_);
  if (job_.timing_->trace.enabled())
    job_.timing_->trace.span(fmt::format("forward shard {}", job_.shard_.index), "compute",
                             Trace::ns(job_.forward_began_), Trace::now_ns());
  const double weight =
      static_cast<double>(job_.shard_.count) * job_.shards_ / static_cast<double>(plan_.count);
  job_.measure(Job::kLoss, loss, weight);
  return {*this, weight == 1 ? loss : mul(loss, weight)};
}

void StepLoss::backward(double scale) {
  const auto begin = Job::Clock::now();
  {
    const TraceScope scope(step_.job_.timing_->trace, "backward", "compute");
    trireme::backward(loss_, Tensor::full(loss_.shape(), scale, loss_.dtype(), loss_.device()));
  }
  step_.job_.backward_ += Job::Clock::now() - begin;
  step_.job_.begin_forward();
}

void Step::count_correct(const Tensor& logits, const Tensor& y) {
  const Tensor hits = to_dtype(eq(argmax(logits.detach()), y), DType::kInt64);
  job_.measure(Job::kCorrect, sum(hits), 1);
  job_.counted_ += static_cast<float>(y.numel());
}

ShardIterator::ShardIterator(Step* step) : step_(step) {
  step->job_.begin_pass();
  if (!step->job_.next_shard()) step_ = nullptr;
}
Shard& ShardIterator::operator*() const { return step_->job_.shard_; }
ShardIterator& ShardIterator::operator++() {
  step_->job_.end_shard();
  if (!step_->job_.next_shard()) step_ = nullptr;
  return *this;
}

StepIterator::StepIterator(Job* job) : job_(job->begin_step() ? job : nullptr) {}
Step& StepIterator::operator*() const { return job_->current_; }
StepIterator& StepIterator::operator++() {
  job_->end_step();
  if (!job_->begin_step()) job_ = nullptr;
  return *this;
}

}  // namespace trireme
