#include "distributed/train/job.h"

#include <algorithm>
#include <iterator>
#include <set>

#include <fmt/ranges.h>

#include "core/base/progress.h"
#include "distributed/comm/agree.h"
#include "distributed/comm/device_communicator.h"
#include "distributed/comm/host_communicator.h"
#include "distributed/ddp/power_sgd.h"
#include "distributed/ddp/shard_sync.h"
#include "distributed/train/debugger.h"
#include "distributed/train/digest.h"
#include "distributed/train/identity.h"
#include "distributed/train/initial_weights.h"
#include "distributed/train/run.h"
#include "distributed/train/schedule.h"
#include "distributed/train/signals.h"

namespace trireme {

namespace {

constexpr std::int64_t kStepsBetweenChecks = 100;  // of weights

ReducerOptions reducer_options_of(const JobOptions& o) {
  const bool is_bf16 = o.comm_hook() == "bf16", is_fp16 = o.comm_hook() == "fp16";
  return {.reduction = o.reduction() == "fastest" ? Reduction::kFastest : Reduction::kInvariant,
          .dtype = is_bf16   ? DType::kBFloat16
                   : is_fp16 ? DType::kFloat16
                             : DType::kFloat32,
          .bucket_bytes = static_cast<std::size_t>(o.bucket_mb() * 1024 * 1024),
          .overlap = o.overlap(),
          .zero = o.zero() != 0,
          .shuffle_ready = o.shuffle_ready()};
}

/// Returns the options of a job that resumes from the checkpoint of --replay-from. Throws Error if there is
/// no such checkpoint.
JobOptions replay_of(JobOptions options, const std::filesystem::path& directory) {
  const std::int64_t step = options.replay_from();
  if (directory.empty())
    fail(ExitCode::kUsage, "--replay-from {}: needs the --checkpoint-dir of the run that is replayed", step);
  std::vector<std::int64_t> steps;
  for (const Checkpoint& found : CheckpointStore(std::make_shared<RealFileSystem>(), directory).list()) {
    steps.push_back(found.step);
    if (found.step == step) options.set_resume(found.path.string());
  }
  if (std::ranges::find(steps, step) == steps.end())
    fail(ExitCode::kCheckpoint, "--replay-from {}: {} has no checkpoint of that step; it has {}", step,
         directory.string(), steps.empty() ? "none" : fmt::format("those of {}", fmt::join(steps, ", ")));
  return options;
}

void check_inspection(const JobOptions& o, int ranks, int rank) {
  const std::int64_t shard = o.inspect_shard();
  if (shard < 0) return;
  if (shard >= o.shards())
    fail(ExitCode::kUsage, "--inspect-shard {}: the job has shards 0 to {}", shard, o.shards() - 1);
  const ShardRange own = shards_of_rank(static_cast<int>(o.shards()), ranks, rank);
  if (own.first <= shard && shard < own.last && !has_debugger())
    fail(ExitCode::kUsage,
         "--inspect-shard {}: no debugger is there to stop; start with gdb --args PROGRAM ... --replay-ranks "
         "N",
         shard);
}

}  // namespace

Job::Job(int argc, char** argv, const Program& program)
    : runtime_(JobRuntime::from_main(argc, argv, program)), options_(runtime_->options()) {
  comm_ = &runtime_->comm();
  start();
}

Job::Job(const JobOptions& options, Communicator& comm) : options_(options) {
  comm_ = &comm;
  start();
}

Job::~Job() {
  if (auto* host = dynamic_cast<HostCommunicator*>(comm_)) host->set_trace({});
  try {
    timing_->trace.close();
  } catch (const Error& error) {
    if (reporter_) reporter_->warn(error.what());
  }
}

void Job::start() {
  agree_same(*comm_, "flags and program", facts_of(options_), ExitCode::kUsage,
             "start all ranks with the same program and flags");
  agree(*comm_, "threads", [&] {
    check_cpu();
    set_threads(static_cast<int>(options_.threads()));
  });
  if (options_.shards() == 0 && options_.replay_ranks() > 0) options_.set_shards(options_.replay_ranks());
  std::filesystem::path directory = OutputPaths(options_).checkpoints;
  JobOptions how = options_;
  if (options_.replay_from() > 0) {
    agree(*comm_, "what is replayed", [&] { how = replay_of(options_, directory); });
    directory.clear();  // nothing is kept
  }
  checkpoints_ = std::make_unique<JobCheckpoints>(*comm_, how, directory);
  if (options_.shards() == 0)
    options_.set_shards(checkpoints_->resumed() ? checkpoints_->resumed()->shards : world_size());
  agree(*comm_, "options", [&] {
    validate(options_, world_size());
    check_inspection(options_, world_size(), rank());
    timing_ = options_.trace().empty() ? std::make_shared<Timing>()
                                       : std::make_shared<Timing>(options_.trace(), rank());
    timing_->trace.set_kept(false);  // A job that ends before begin_training() leaves no trace.
  });
  shards_ = static_cast<int>(options_.shards());
  start_communication();
  engines_.emplace(device());
  if (checkpoints_->resumed()) engines_->resume(checkpoints_->resumed()->engines);
  if (options_.sync_batchnorm()) {
    shard_sync_ = make_shard_sync(gradient_comm());
    batch_sync_ = shard_sync_.get();
  }
  if (options_.comm_hook() == "powersgd")
    make_hook_ = [this] {
      return std::make_shared<PowerSgd>(
          PowerSgdOptions{.rank = static_cast<int>(options_.powersgd_rank()), .seed = options_.seed()});
    };
  nn::manual_seed(options_.seed());
  step_sum_ = std::make_unique<ShardSum>(gradient_comm(), shards_, kStepSumSize, kStepSumSize,
                                         SumOptions{reducer_options_.reduction}, "loss");
  if (is_root()) {
    reporter_ = std::make_unique<Reporter>(options_);
    for (const std::string& note : checkpoints_->notes()) reporter_->warn(note);
    if (options_.reduction() == "fastest")
      reporter_->note("reduction fastest: bits are not promised to be the same at other world sizes");
  }
}

void Job::start_communication() {
  if (options_.device() == "cuda") {
    device_comm_ = make_device_communicator(*comm_, patience_of(options_));
    gradient_comm_ = device_comm_.get();
  }
  reducer_options_ = reducer_options_of(options_);
  auto* const host = dynamic_cast<HostCommunicator*>(comm_);
  if (host) host->pack_messages(false);  // an earlier job's; what is measured would be packed to nothing
  if (reducer_options_.bucket_bytes == 0 || options_.compress_links() == "auto")
    reducer_options_.link = measure_link(gradient_comm());
  if (!host) return;
  // Gradients that go by NCCL tell nothing of this communicator's link.
  const bool carries_gradients = comm_ == &gradient_comm();
  packing_ = {*host, options_.compress_links(), carries_gradients ? reducer_options_.link : LinkCost()};
  host->set_trace([timing = timing_](const TracedJob& job) {
    timing->comm_ns += job.end_ns - job.begin_ns;
    record(timing->trace, job);
  });
}

void Job::claim_output(const std::filesystem::path& file) {
  if (reporter_) reporter_->claim({"--out", file}, checkpoints_->resumed() && options_.replay_from() == 0);
}

void Job::say(const std::string& line) {
  if (reporter_) reporter_->say(line);
}

Job::Steps Job::steps(const Dataset& dataset) {
  begin_training(dataset);
  return Steps(*this);
}

Job::Steps Job::steps(const ImageDataset& dataset, const Augmentation& augmentation) {
  augmented_ = std::make_unique<AugmentedImages>(dataset, augmentation);
  return steps(*augmented_);
}

void Job::begin_training(const Dataset& dataset) {
  TRIREME_CHECK(!training_, "job: steps() was called twice");
  training_ = true;
  dataset_size_ = dataset.size();
  unit_ = dataset.unit();
  const std::int64_t per_epoch = steps_per_epoch(dataset_size_, options_.global_batch());
  total_steps_ = total_steps_of(options_, per_epoch);
  epochs_ = (total_steps_ + per_epoch - 1) / per_epoch;
  const std::int64_t last_batch = dataset_size_ % options_.global_batch();
  if (options_.sync_batchnorm() && last_batch > 0 && last_batch < shards_)
    throw AgreedError(
        ExitCode::kUsage,
        fmt::format(
            "--sync-batchnorm: the last batch of an epoch has {} samples for {} shards, and all of them "
            "take part in every sum of statistics; use another --global-batch or fewer shards",
            last_batch, shards_));
  if (checkpoints_->enabled() || checkpoints_->resumed())
    agree(*comm_, "training data", [&] { dataset_digest_ = digest_of(dataset); });
  const JobState now = job_state();
  std::vector<std::string> differences;
  agree(*comm_, "same job", [&] { differences = checkpoints_->check_same_job(now); });
  if (checkpoints_->resumed()) {
    resume(now, differences);
  } else if (!options_.init().empty()) {
    std::vector<NamedTensor> weights;
    for (const auto& replica : replicas_) std::ranges::move(replica->weights(), std::back_inserter(weights));
    load_initial_weights(*comm_, options_, std::move(weights));
  }
  if (reporter_) say_schedule(per_epoch);
  profile_first_ = std::min(step_ + 1, total_steps_ - 1);  // memory and kernels are made ready once
  // Nothing of an earlier run is touched before all else is known to be right.
  agree(*comm_, "outputs", [&] {
    if (!is_root()) return;
    // A replay must not cut off the lines of the run that it looks at.
    const bool continues = checkpoints_->resumed() && options_.replay_from() == 0;
    reporter_->open(continues ? std::optional(step_) : std::nullopt, unit_);
    // The run that is resumed may have had more ranks; their traces would be taken for traces of this run.
    std::set<std::filesystem::path> written;
    for (int r = 0; r < world_size(); ++r) written.insert(Trace::file_path(options_.trace(), r));
    std::error_code ignored;
    for (const std::filesystem::path& trace : traces_in(options_.trace()))
      if (!written.contains(trace)) std::filesystem::remove(trace, ignored);
    if (const std::filesystem::path folder = checkpoints_->set_aside(); !folder.empty())
      reporter_->note(
          fmt::format("checkpoints that this run does not go on from are set aside in {}", folder.string()));
  });
  timing_->trace.set_kept(true);
  start_loader(dataset);
}

void Job::say_schedule(std::int64_t per_epoch) {
  if (dataset_size_ < options_.global_batch())
    reporter_->warn(
        fmt::format("--global-batch {} is larger than the training set: each step has its {} samples",
                    options_.global_batch(), dataset_size_));
  if (step_ >= total_steps_) return;
  std::optional<std::string> changed;
  if (const std::optional<JobState>& then = checkpoints_->resumed())
    changed = length_warning(options_, step_, total_steps_of(from_text(then->job), per_epoch), total_steps_);
  for (const auto& line : {changed, warmup_warning(options_, total_steps_)})
    if (line) reporter_->warn(*line);
}

void Job::start_loader(const Dataset& dataset) {
  requests_ = {step_, shard_range().first};
  // The loader runs ahead of training: it asks for this rank's shards of step after step.
  const auto next_request = [this]() -> std::optional<Request> {
    for (; requests_.step < total_steps_; ++requests_.step, requests_.shard = shard_range().first) {
      const StepPlan plan = plan_step(requests_.step, dataset_size_, options_.global_batch());
      while (requests_.shard < shard_range().last) {
        const PositionRange part = shard_positions(plan.count, shards_, requests_.shard++);
        if (part.count() > 0) return Request{plan.epoch, plan.first + part.first, part.count()};
      }
    }
    return std::nullopt;
  };
  LoaderOptions loader{.workers = static_cast<int>(options_.loader_workers()),
                       .seed = options_.seed(),
                       .patience = patience_of(options_),
                       .device = device()};
  loader_ = std::make_unique<Loader>(std::shared_ptr<const Dataset>(std::shared_ptr<void>(), &dataset),
                                     Sampler(options_.seed(), dataset_size_, true), loader, next_request);
}

Job::Steps::~Steps() {
  job_.loader_.reset();
  try {
    kernels_of(job_.device()).end_recording();
    if (std::uncaught_exceptions() > exceptions_) return;
    // The loop may have been left in the middle of a step.
    if (auto last = std::exchange(job_.ended_, {})) job_.settle(*std::move(last));
    for (const auto& replica : job_.replicas_) replica->check_up_to(job_.step_);
  } catch (const std::exception&) {
    job_.left_behind_ = std::current_exception();
  }
}

void Job::follow_profile() {
  if (!is_root() || options_.profile() == 0) return;
  if (profile_ && (step_ == total_steps_ || step_ == profile_first_ + options_.profile())) {
    profile_->stop();
    say(fmt::format("ops of steps {} to {} on rank 0:\n{}", profile_first_ + 1, step_, profile_->table()));
    profile_.reset();
  } else if (step_ == profile_first_ && step_ < total_steps_) {
    profile_ = std::make_unique<profiler::Profile>(profiler::ProfileOptions{.trace = &timing_->trace});
  }
}

bool Job::begin_step() {
  follow_profile();
  program_phase() = Phase::kSteps;
  if (step_ >= total_steps_) {
    end_training();
    return false;
  }
  current_.index_ = step_;
  current_.plan_ = plan_step(step_, dataset_size_, options_.global_batch());
  current_.ends_epoch_ = current_.plan_.first + current_.plan_.count == dataset_size_;
  current_.is_last_ = step_ + 1 == total_steps_;
  current_.extra_ = Record();
  step_began_ = Clock::now();
  forward_ = backward_ = excluded_ = excluded_comm_ = {};
  data_wait_ = loader_->wait_time();
  timing_->comm_ns = 0;
  exposed_before_ = {};
  for (const auto& replica : replicas_) exposed_before_ += replica->reducer().exposed();
  loaded_.clear();
  shard_ = {};  // so that the next batch can lie where the last one lay
  totals_ = {};
  round_ = 0;
  // In the first two steps memory and libraries are made ready, and buckets are planned.
  ++steps_here_;
  if (options_.cuda_graph() && steps_here_ > 2) kernels_of(device()).begin_recording();
  open_round();
  return true;
}

void Job::begin_pass() {
  if (shard_cursor_ < shard_range().first) return;  // the step's first
  add_totals(totals_, end_round(false));
  // The next round's sum takes the place of the last step's.
  if (auto before = std::exchange(ended_, {})) settle(*std::move(before));
  for (const auto& replica : replicas_)
    if (!replica->reducer().hook_state().empty())
      throw AgreedError(
          ExitCode::kUsage,
          fmt::format("step {}: a second pass over the shards, but the communication hook of {} "
                      "learns from the gradients of every pass, used or not; use another "
                      "--comm-hook",
                      step_ + 1, replica->name()));
  ++round_;
  open_round();
}

void Job::open_round() {
  DataParallelContext::begin_round(step_);
  shard_cursor_ = shard_range().first - 1;
}

int Job::end_round(bool later) {
  if (shard_cursor_ < shard_range().last)
    fail(ExitCode::kUsage,
         "job: step {} ran {} of its {} shards on rank {}; run through step.shards() to the end", step_ + 1,
         std::max(0, shard_cursor_ - shard_range().first), shard_range().size(), rank());
  for (const auto& replica : replicas_) {
    if (later)
      replica->finish_later();
    else
      replica->finish();
    replica->end_round();
  }
  return step_sum_->finish();
}

bool Job::next_shard() {
  while (++shard_cursor_ < shard_range().last) {
    begin_shard();
    if (shard_.index == options_.inspect_shard()) stop_in_debugger();
    if (shard_.count > 0) return true;
    end_shard();  // the last batch of an epoch may be too small for all shards
  }
  return false;
}

void Job::load_shard() {
  const StepPlan& plan = current_.plan_;
  const PositionRange part = shard_positions(plan.count, shards_, shard_cursor_);
  Shard shard{shard_cursor_, part.count(), {}, {}, {}};
  if (part.count() > 0) {
    const TraceScope scope(timing_->trace, "wait for data", "data");
    kernels_of(device()).submit_recorded();
    Batch batch = loader_->next().value();
    TRIREME_CHECK(batch.first_position == plan.first + part.first && batch.x.size(0) == part.count(),
                  "job: step {} wants samples from {}, the loader brings {}", step_, plan.first + part.first,
                  batch.first_position);
    shard.fields = std::move(batch.fields);
    shard.x = std::move(batch.x);
    shard.y = std::move(batch.y);
  }
  loaded_.push_back(std::move(shard));
}

void Job::begin_shard() {
  const StepPlan& plan = current_.plan_;
  const PositionRange part = shard_positions(plan.count, shards_, shard_cursor_);
  if (round_ == 0) load_shard();
  shard_ = loaded_[static_cast<std::size_t>(shard_cursor_ - shard_range().first)];
  nn::set_random_context({options_.seed(), static_cast<std::uint64_t>(step_), part.first, round_});
  DataParallelContext::begin_shard(
      static_cast<float>(static_cast<double>(part.count()) * shards_ / static_cast<double>(plan.count)));
  const View sums = step_sum_->leaf().view();
  kernels_of(device()).fill(sums, 0);
  counted_ = 0;
  stop_ = shard_cursor_ == shard_range().first && stop_signal() != 0 ? 1 : 0;
  if (options_.dtype() != "float32") autocast_.emplace();
  begin_forward();
}

void Job::begin_forward() {
  waited_before_forward_ = waited_in_reads();
  forward_began_ = Clock::now();
}

void Job::end_shard() {
  note_progress();
  autocast_.reset();
  DataParallelContext::end_shard();
  step_sum_->push(std::array{counted_, stop_});
  if (step_sum_->complete()) step_sum_->launch();
}

bool Job::looks_later() const {
  const auto is_due = [this](std::int64_t every) { return every > 0 && (step_ + 1) % every == 0; };
  return !device().is_cpu() && round_ == 0 && !current_.is_last_ && !is_due(options_.digest_every()) &&
         !is_due(options_.checkpoint_every());
}

void Job::end_step() {
  const bool later = looks_later();
  const int ticket = end_round(later);
  kernels_of(device()).end_recording();
  gradient_comm().mark();
  ++step_;
  if (timing_->trace.enabled())
    timing_->trace.span(fmt::format("step {}", step_), "step", Trace::ns(step_began_), Trace::now_ns());
  const auto waits = Clock::now();
  if (auto before = std::exchange(ended_, {})) settle(*std::move(before));
  ended_ = ended_step(ticket, Clock::now() - waits);
  if (EngineLog::is_due(steps_here_)) {
    gather_engines();
    check_engines();
  }
  if (later && !stops_) return;
  settle(*std::exchange(ended_, {}));
  if (step_ % kStepsBetweenChecks == 0) check_weights();
  if (options_.checkpoint_every() > 0 && step_ % options_.checkpoint_every() == 0) save_checkpoint();
  stop_if_asked();
}

void Job::end_training() {
  save_checkpoint();
  const bool said = options_.digest_every() > 0 && step_ % options_.digest_every() == 0 && current_.is_last_;
  if (!said) {
    // A run that had nothing left to train has said it, and its trail has this step.
    const std::string hex = current_.is_last_ ? write_digest() : digest();
    say(fmt::format("digest step={} sha256={}", step_, hex));
  }
  timing_->trace.close();
  program_phase() = Phase::kAfterSteps;
}

}  // namespace trireme
