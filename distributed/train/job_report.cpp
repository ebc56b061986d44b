// What a job tells of its steps: digests, metrics, the summary; and the checks that ride along.
#include <cmath>

#include "core/base/crc32c.h"
#include "distributed/comm/agree.h"
#include "distributed/train/digest.h"
#include "distributed/train/job.h"

namespace trireme {

namespace {

double milliseconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

}  // namespace

std::chrono::nanoseconds Job::waited_in_reads() const {
  std::chrono::nanoseconds waited{0};
  for (const auto& replica : replicas_) waited += replica->reducer().exposed_in_reads();
  return waited;
}

std::string Job::digest() const {
  if (left_behind_) std::rethrow_exception(left_behind_);
  return digest_of(*comm_, state());
}

std::string Job::write_digest() {
  const std::vector<StateTensor> tensors = state();
  if (!is_root() && !has_parts(tensors)) return "";
  if (options_.digest_trail().empty()) return digest_of(*comm_, tensors);
  TensorDigests each;
  const std::string all = digest_of(*comm_, tensors, &each);
  if (reporter_) reporter_->digests(step_, all, each);
  return all;
}

void Job::check_weights() {
  if (world_size() == 1 || !device().is_cpu()) return;
  std::vector<Fact> facts;
  for (const auto& replica : replicas_)
    for (const NamedTensor& t : replica->weights())
      facts.push_back(
          {t.name, fmt::format("{:08x}", crc32c(t.tensor.raw(), static_cast<std::size_t>(t.tensor.numel()) *
                                                                    size_of(t.tensor.dtype())))});
  agree_same(*comm_, fmt::format("step {}: the checksums of weights", step_), facts, ExitCode::kInternal,
             "some rank changes its model apart from the others, or has bad memory");
}

void Job::gather_engines() {
  for (const std::string& line : engines_->gather(*comm_))
    if (is_root()) reporter_->warn(line);
}

void Job::check_engines() const {
  if (engines_->difference().empty() || options_.reduction() == "fastest") return;
  throw AgreedError(
      ExitCode::kUsage,
      fmt::format("{}: bits would depend on the rank; use the same kind of GPU, driver and libraries on "
                  "all nodes, or --reduction fastest",
                  engines_->difference()));
}

void Job::fail_not_finite(std::int64_t step, double loss) const {
  const std::string kept =
      saved_step_ < 0
          ? ""
          : fmt::format("; the last checkpoint is of step {}: run again to go on from there", saved_step_);
  throw AgreedError(
      ExitCode::kNonFinite,
      fmt::format("step {}: the loss is {}; lower --lr, use --clip-norm, or look at the data of this step{}",
                  step, loss, kept));
}

double Job::last_lr() const {
  for (const auto& replica : replicas_)
    if (const double lr = replica->last_lr(); !std::isnan(lr)) return lr;
  return current_.lr();
}

Job::EndedStep Job::ended_step(int ticket, std::chrono::nanoseconds waited) {
  const auto now = Clock::now();
  std::chrono::nanoseconds exposed{-exposed_before_};
  for (const auto& replica : replicas_) exposed += replica->reducer().exposed();
  packing_.observe(now - step_began_ - excluded_, exposed);
  StepReport report{.step = step_,
                    .steps = total_steps_,
                    .epoch = current_.epoch(),
                    .epochs = epochs_,
                    .samples = current_.plan_.count};
  report.lr = last_lr();
  report.step_ms = milliseconds(now - step_began_ - excluded_);
  report.forward_ms = milliseconds(forward_);
  report.backward_ms = milliseconds(backward_);
  // The host does not wait for a GPU while it computes: how long its collectives take is not known here.
  const bool measures = world_size() > 1 && device().is_cpu();
  report.comm_ms = measures ? milliseconds(communication_time() - excluded_comm_) : 0;
  report.comm_exposed_ms = measures ? milliseconds(exposed) : 0;
  report.data_wait_ms = milliseconds(loader_->wait_time() - data_wait_);
  report.optimizer_ms = std::max(0.0, report.step_ms - report.forward_ms - report.backward_ms -
                                          milliseconds(exposed + waited) - report.data_wait_ms);
  report.world_size = world_size();
  report.shards = shards_;
  report.ends_epoch = current_.ends_epoch();
  report.extra = current_.extra_;
  return {std::move(report), totals_, ticket};
}

void Job::add_totals(std::array<double, kStepSumSize>& totals, int ticket) const {
  const std::span<const float> notes = step_sum_->notes(ticket);
  for (std::size_t i = 0; i < kStepSumSize; ++i) totals[i] += static_cast<double>(notes[i]);
}

void Job::settle(EndedStep ended) {
  auto& [report, totals, ticket] = ended;
  for (const auto& replica : replicas_) replica->check_up_to(report.step - 1);
  add_totals(totals, ticket);
  stops_ = stops_ || totals[kStop] > 0;
  report.loss = totals[kLoss] / shards_;
  if (!std::isfinite(report.loss)) fail_not_finite(report.step, report.loss);
  const bool wants_digest = options_.digest_every() > 0 && report.step % options_.digest_every() == 0;
  const std::string hex = wants_digest ? write_digest() : "";
  if (!is_root()) return;
  if (totals[kCounted] > 0) report.accuracy = totals[kCorrect] / totals[kCounted];
  std::string digest_line;
  if (wants_digest) {
    report.extra.set("digest", hex);
    digest_line = fmt::format("digest step={} sha256={}", report.step, hex);
  }
  reporter_->step(report);
  if (wants_digest) say(digest_line);
}

void Job::say_summary() {
  if (left_behind_) std::rethrow_exception(left_behind_);
  if (!reporter_) return;
  if (reporter_->samples_per_second() > 0)
    say(fmt::format("throughput: {:.0f} {}/s on {} rank{}", reporter_->samples_per_second(), unit_,
                    world_size(), world_size() == 1 ? "" : "s"));
  if (reducer_options_.link.bytes_per_second > 0)
    say(fmt::format("link: {} over the ranks", reducer_options_.link.to_string()));
  if (const std::string packed = packing_.text(); !packed.empty()) say("packed: " + packed);
  if (const RecordingStatistics s = kernels_of(device()).recording_statistics(); s.rounds > 0)
    say(
        fmt::format("cuda graphs: {:.1f} a step, of {:.1f} kernels and calls; {} made, {:.1f} kernels a step "
                    "given other parameters",
                    static_cast<double>(s.graphs) / static_cast<double>(s.rounds),
                    static_cast<double>(s.work) / static_cast<double>(s.rounds), s.made,
                    static_cast<double>(s.changed) / static_cast<double>(s.rounds)));
  const std::filesystem::path curves = reporter_->draw_curves();
  if (!curves.empty()) say("curves: " + curves.string());
  const OutputPaths& paths = reporter_->paths();
  if (!paths.metrics.empty()) say("metrics: " + paths.metrics.string());
  if (!paths.tensorboard.empty()) say("tensorboard: " + paths.tensorboard.string());
  if (checkpoints_->enabled()) say("checkpoint: " + (paths.checkpoints / checkpoint_name(step_)).string());
}

}  // namespace trireme
