// How a job keeps its state: what a checkpoint holds, when it is saved, and how a job goes on from one.
#include <iterator>

#include "distributed/comm/agree.h"
#include "distributed/train/job.h"
#include "distributed/train/run.h"
#include "distributed/train/signals.h"

namespace trireme {

namespace {

/// While one is alive, a stop signal waits for what is being saved, however long a disk takes.
class SavingPhase {
 public:
  SavingPhase() : before_(program_phase().exchange(Phase::kEnding)) {}
  ~SavingPhase() { program_phase() = before_; }
  SavingPhase(const SavingPhase&) = delete;
  SavingPhase& operator=(const SavingPhase&) = delete;

 private:
  const Phase before_;
};

}  // namespace

std::vector<StateTensor> Job::state() const {
  std::vector<StateTensor> all;
  for (const auto& replica : replicas_)
    for (StateTensor& t : replica->state()) all.push_back(std::move(t));
  return all;
}

JobState Job::job_state() const {
  JobState state;
  if (reducer_options_.link.bytes_per_second > 0) state.link = reducer_options_.link.to_string();
  state.step = step_;
  state.shards = shards_;
  state.seed = options_.seed();
  state.global_batch = options_.global_batch();
  state.threads = options_.threads();
  state.dataset_size = dataset_size_;
  state.data = dataset_digest_;
  state.model = options_.model();
  state.optimizer = options_.optimizer();
  state.build = build_description();
  if (!device().is_cpu()) state.build += "; " + kernels_of(device()).libraries();
  JobOptions saved = options_;
  saved.clear_quiet();
  state.job = to_text(saved);
  state.engines = engines_->text();
  state.run_id = fmt::format("{:016x}", mix64(options_.seed()));
  if (checkpoints_->resumed()) state.run_id = checkpoints_->resumed()->run_id;
  return state;
}

void Job::resume(const JobState& now, const std::vector<std::string>& differences) {
  const JobState& then = *checkpoints_->resumed();
  checkpoints_->load(state());
  step_ = saved_step_ = then.step;
  if (!reporter_) return;
  reporter_->note(
      fmt::format("going on from {}, after step {}", checkpoints_->resumed_path().string(), step_));
  for (const std::string& line : differences) reporter_->warn(line);
  if (step_ >= total_steps_)
    reporter_->note(
        fmt::format("nothing is left to train: {} steps are done, {} were asked for", step_, total_steps_));
  if (then.build != now.build)
    reporter_->warn(
        fmt::format("the checkpoint was made by another build, so bits may differ: {} then, {} now",
                    then.build, now.build));
}

void Job::save_checkpoint() {
  if (!checkpoints_->enabled() || saved_step_ == step_) return;
  const TraceScope scope(timing_->trace, "save checkpoint", "checkpoint");
  const SavingPhase saving;
  gather_engines();
  checkpoints_->save(job_state(), state());
  saved_step_ = step_;
  check_engines();
}

void Job::stop_if_asked() {
  if (!stops_) return;
  save_checkpoint();
  if (checkpoints_->enabled())
    throw AgreedError(
        ExitCode::kStopped,
        fmt::format("stopped by a signal after step {}; its checkpoint is committed, run again to go on",
                    step_));
  throw AgreedError(static_cast<ExitCode>(128 + std::max(1, stop_signal().load())),
                    fmt::format("stopped by a signal after step {}; nothing was kept; give --checkpoint-dir "
                                "or --out to keep checkpoints",
                                step_));
}

}  // namespace trireme
