#include "distributed/train/schedule.h"

namespace trireme {

optim::Schedule schedule_of(const JobOptions& o, std::int64_t total_steps) {
  using Kind = optim::Schedule::Kind;
  const Kind kind = o.schedule() == "cosine"     ? Kind::kCosine
                    : o.schedule() == "onecycle" ? Kind::kOneCycle
                    : o.schedule() == "step"     ? Kind::kStep
                                                 : Kind::kConstant;
  return {kind, o.lr(), o.warmup_steps(), total_steps};
}

std::int64_t total_steps_of(const JobOptions& o, std::int64_t steps_per_epoch) {
  return o.has_steps() ? o.steps() : steps_per_epoch * (o.has_epochs() ? o.epochs() : 1);
}

std::optional<std::string> warmup_warning(const JobOptions& o, std::int64_t total_steps) {
  if (o.warmup_steps() <= total_steps || o.schedule() == "onecycle") return {};
  const double last = optim::learning_rate(schedule_of(o, total_steps), total_steps - 1);
  return fmt::format(
      "--warmup-steps {} is longer than the run of {} steps: the learning rate rises to {:.4g} and never "
      "reaches --lr {}",
      o.warmup_steps(), total_steps, last, o.lr());
}

std::optional<std::string> length_warning(const JobOptions& o, std::int64_t step, std::int64_t planned_steps,
                                          std::int64_t total_steps) {
  if (planned_steps == total_steps || o.schedule() == "constant") return {};
  const optim::Schedule planned = schedule_of(o, planned_steps), now = schedule_of(o, total_steps);
  for (; step < total_steps; ++step) {
    const double before = optim::learning_rate(planned, step), after = optim::learning_rate(now, step);
    if (before == after) continue;
    return fmt::format(
        "the run was planned for {} steps and now has {}: with --schedule {} the learning rate after {} "
        "steps is "
        "{:.4g} instead of {:.4g}",
        planned_steps, total_steps, o.schedule(), step, after, before);
  }
  return {};
}

}  // namespace trireme
