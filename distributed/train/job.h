// Job, its steps and their shards, for a training loop that the user writes:
//
//   trireme::Job job(argc, argv);
//   trireme::DistributedDataParallel ddp(model, job);
//   trireme::optim::SGD sgd(ddp.parameters(), {.lr = 0.1, .momentum = 0.9});
//   for (auto& step : job.steps(dataset)) {
//     for (auto& shard : step.shards())
//       step.add(cross_entropy(ddp(shard.x), shard.y)).backward();
//     sgd.step();
//   }
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <iterator>
#include <memory>
#include <optional>
#include <string>

#include "core/amp/autocast.h"
#include "core/data/augment.h"
#include "core/data/loader.h"
#include "core/metrics/trace.h"
#include "core/profiler/profile.h"
#include "distributed/ddp/data_parallel.h"
#include "distributed/train/checkpoints.h"
#include "distributed/train/engine_log.h"
#include "distributed/train/link_packing.h"
#include "distributed/train/options.h"
#include "distributed/train/reporter.h"

namespace trireme {

class Job;
class JobRuntime;
class Step;

/// A fixed part of a global batch.
struct Shard {
  int index = 0;               ///< number of the shard, from 0 to --shards minus 1
  std::int64_t count = 0;      ///< number of samples, at least 1
  std::vector<Tensor> fields;  ///< the data set's fields, with `count` samples in dimension 0
  Tensor x, y;                 ///< the first two fields
};

/// A shard's loss that was added to a step.
class StepLoss {
 public:
  StepLoss(Step& step, Tensor loss) : step_(step), loss_(std::move(loss)) {}
  /// Runs backward. Gradients are weighted by the shard's fraction of the global batch and multiplied by
  /// `scale` (amp::GradScaler::scale()).
  void backward(double scale = 1);

 private:
  Step& step_;
  Tensor loss_;
};

/// The training step of one global batch. It is valid only in the loop body.
class Step {
 public:
  std::int64_t index() const { return index_; }  ///< counted from 0 over all epochs
  std::int64_t epoch() const { return plan_.epoch; }
  bool ends_epoch() const { return ends_epoch_; }
  bool is_last() const { return is_last_; }
  /// Returns the learning rate that --lr, --schedule and --warmup-steps give for this step.
  double lr() const;
  /// Returns true if the model should be evaluated after this step: according to --eval-every, and at the
  /// end.
  bool is_evaluated() const;

  class Shards;
  /// Returns this rank's shards that have samples. Each loop over them is a pass. A pass gives every model
  /// the gradients of this pass's losses only, and the next pass discards them, even if they were not used.
  /// So two models can train in turn:
  ///
  ///   for (auto& shard : step.shards()) step.add(critic_loss(shard)).backward();
  ///   critic_optimizer.step();
  ///   for (auto& shard : step.shards()) step.add(generator_loss(shard)).backward();  // through the critic
  ///   generator_optimizer.step();
  ///
  /// All ranks must make the same passes and complete each of them. A step keeps its samples until it ends.
  Shards shards();

  /// Adds a loss of one element, the mean over the shard's samples. Its mean over the global batch is
  /// reported. Losses of one step are added.
  StepLoss add(const Tensor& loss);
  /// Counts correct rows of logits (N,C) for the reported training accuracy.
  void count_correct(const Tensor& logits, const Tensor& y);
  /// Scales all gradients down to --clip-norm, if it is given, and reports their norm as "grad_norm".
  void clip_gradients(const ParameterList& parameters);
  /// Adds a number to this step's line of metrics (all ranks may call; rank 0 writes).
  void report(const std::string& key, double value) { extra_.set(key, value); }

 private:
  friend class Job;
  friend class StepLoss;
  friend class ShardIterator;
  explicit Step(Job& job) : job_(job) {}
  Job& job_;
  std::int64_t index_ = 0;
  StepPlan plan_;
  bool ends_epoch_ = false, is_last_ = false;
  Record extra_;
};

class ShardIterator {
 public:
  using value_type = Shard;
  using difference_type = std::ptrdiff_t;
  explicit ShardIterator(Step* step);
  Shard& operator*() const;
  ShardIterator& operator++();
  bool operator==(std::default_sentinel_t) const { return !step_; }

 private:
  Step* step_;
};

class Step::Shards {
 public:
  explicit Shards(Step& step) : step_(step) {}
  ShardIterator begin() { return ShardIterator(&step_); }
  std::default_sentinel_t end() { return {}; }

 private:
  Step& step_;
};

class StepIterator {
 public:
  using value_type = Step;
  using difference_type = std::ptrdiff_t;
  explicit StepIterator(Job* job);
  Step& operator*() const;
  StepIterator& operator++();
  bool operator==(std::default_sentinel_t) const { return !job_; }

 private:
  Job* job_;
};

/// A training job on this rank: its communicator, options, data order, checkpoints and reports.
///
/// trireme::run creates it in a program that can run its ranks as threads; other programs create it from
/// main's arguments. Errors are thrown as Error. A job made from main's arguments also turns an Error that
/// leaves main into one line and an exit code.
class Job : public DataParallelContext {
 public:
  Job(int argc, char** argv, const Program& program = {});
  /// Creates a job on ranks that are already connected. `comm` must outlive the job.
  Job(const JobOptions& options, Communicator& comm);
  ~Job() override;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  const JobOptions& options() const { return options_; }
  int rank() const { return comm_->rank(); }
  int world_size() const { return comm_->size(); }
  bool is_root() const { return rank() == 0; }
  /// Writes a line to standard output on rank 0.
  void say(const std::string& line);
  /// Makes sure that the program may write `file`, which is in the output folder. Throws Error(kUsage) if an
  /// earlier run left something in the file and this run does not resume that run. Does nothing on ranks
  /// other than 0. Call it before steps().
  void claim_output(const std::filesystem::path& file);
  Trace& trace() { return timing_->trace; }

  class Steps {
   public:
    explicit Steps(Job& job) : job_(job) {}
    ~Steps();
    Steps(const Steps&) = delete;
    Steps& operator=(const Steps&) = delete;
    StepIterator begin() { return StepIterator(&job_); }
    std::default_sentinel_t end() { return {}; }

   private:
    Job& job_;
    const int exceptions_ = std::uncaught_exceptions();
  };
  /// Returns the remaining steps: after a resume, those after the checkpoint. Call this once, after models
  /// have been wrapped and optimizers created. The data set must outlive the loop. The last checkpoint is
  /// saved at its end.
  Steps steps(const Dataset& dataset);
  Steps steps(const ImageDataset& dataset, const Augmentation& augmentation);

  std::int64_t total_steps() const { return total_steps_; }
  std::int64_t finished_steps() const { return step_; }
  /// Returns the SHA-256 of all state: see digest.h. Collective with --zero 1 or a hook that has state.
  /// Throws the error that was found when a loop over steps was left, if there was one.
  std::string digest() const;
  /// Says rank 0's results after training: throughput, digest, where things lie.
  void say_summary();
  /// Returns how long collectives of this step have run so far on the host's communicator.
  std::chrono::nanoseconds communication_time() const {
    return std::chrono::nanoseconds(timing_->comm_ns.load());
  }
  /// Excludes `time`, and the communication in it, from the step's times. Evaluation uses this.
  void exclude(std::chrono::nanoseconds time, std::chrono::nanoseconds communication = {}) {
    excluded_ += time;
    excluded_comm_ += communication;
  }

 private:
  friend class Step;
  friend class StepLoss;
  friend class ShardIterator;
  friend class StepIterator;
  using Clock = std::chrono::steady_clock;

  /// The measurements that the communicator's thread writes. They outlive the job if calls are in flight.
  struct Timing {
    Trace trace;
    std::atomic<std::int64_t> comm_ns{0};
    Timing() = default;
    Timing(const std::string& directory, int rank) : trace(directory, rank) {}
  };

  /// The numbers of a step that are summed over all shards, apart from the gradients. The first two are
  /// computed on the device, so that the host need not wait for them. The others come from the host.
  enum StepSum : std::size_t { kLoss, kCorrect, kCounted, kStop, kStepSumSize };

  void start();
  void start_communication();
  std::vector<StateTensor> state() const;
  /// Returns the digest, which rank 0 prints. It is also written to --digest-trail.
  std::string write_digest();
  JobState job_state() const;
  void begin_training(const Dataset& dataset);
  void resume(const JobState& now, const std::vector<std::string>& differences);
  /// Warns of what the learning rate does that its flags alone do not tell.
  void say_schedule(std::int64_t per_epoch);
  /// Returns the learning rate that the optimizer used last; the schedule's if there was no optimizer.
  double last_lr() const;
  void follow_profile();
  void start_loader(const Dataset& dataset);
  bool begin_step();
  void end_step();
  void begin_pass();
  void open_round();
  /// Returns the ticket of the step's sum.
  int end_round(bool later);
  bool next_shard();
  void load_shard();
  void begin_shard();
  void begin_forward();
  /// For new values of parameters, in all.
  std::chrono::nanoseconds waited_in_reads() const;
  void end_shard();
  void measure(StepSum what, const Tensor& value, double weight);
  [[noreturn]] void fail_not_finite(std::int64_t step, double loss) const;
  /// Returns true if the CPU reads this step's numbers only after the next step, so that it never waits for a
  /// GPU. The result is the same on all ranks.
  bool looks_later() const;
  /// A step that has ended, whose numbers the device may still be computing.
  struct EndedStep {
    StepReport report;
    std::array<double, kStepSumSize> totals;  ///< the sums over all rounds of the step but the last
    int ticket;                               ///< the ticket of the step's sum in the last round
  };
  /// `waited`: for the step before.
  EndedStep ended_step(int ticket, std::chrono::nanoseconds waited);
  void add_totals(std::array<double, kStepSumSize>& totals, int ticket) const;
  /// Waits for the numbers of a step that has ended, checks them and reports them.
  void settle(EndedStep ended);
  /// Throws if ranks have different weights. Collective. It is done on CPUs only, because on a GPU it would
  /// have to wait for the device.
  void check_weights();
  /// Gathers the engines of the GPU libraries that all ranks use, and warns about what makes bits doubtful.
  /// Collective.
  void gather_engines();
  /// Throws if ranks compute an operation by different engines.
  void check_engines() const;
  void save_checkpoint();
  void stop_if_asked();
  void end_training();

  std::unique_ptr<JobRuntime> runtime_;        // MPI and the communicator, when made from main's arguments
  std::unique_ptr<Communicator> device_comm_;  // with --device cuda
  std::unique_ptr<nn::BatchSync> shard_sync_;  // with --sync-batchnorm
  JobOptions options_;
  std::shared_ptr<Timing> timing_;
  std::unique_ptr<JobCheckpoints> checkpoints_;
  std::unique_ptr<Reporter> reporter_;
  std::unique_ptr<ShardSum> step_sum_;
  std::int64_t dataset_size_ = 0, total_steps_ = 0, epochs_ = 0, step_ = 0, saved_step_ = -1;
  std::int64_t steps_here_ = 0;  // steps that began in this run
  std::string dataset_digest_;   // where checkpoints need it
  bool training_ = false;
  std::unique_ptr<profiler::Profile> profile_;  // set with --profile, on rank 0
  std::int64_t profile_first_ = 0;              // step
  std::optional<amp::Autocast> autocast_;       // with --dtype bfloat16, while a shard runs

  Step current_{*this};
  Shard shard_;
  std::vector<Shard> loaded_;  // this step's shards, which its first pass loads
  int shard_cursor_ = 0;
  std::uint64_t round_ = 0;  // of this step
  struct Requests {          // where the loader is, which runs ahead
    std::int64_t step = 0;
    int shard = 0;
  } requests_;
  std::unique_ptr<AugmentedImages> augmented_;
  std::string unit_;                           // the name of a sample
  std::unique_ptr<Loader> loader_;             // behind what its requests use
  float counted_ = 0, stop_ = 0;               // in this shard
  std::array<double, kStepSumSize> totals_{};  // over all shards of the step's rounds so far
  std::optional<EndedStep> ended_;             // not settled yet
  std::exception_ptr left_behind_;             // by the end of the steps, which cannot throw
  bool stops_ = false;                         // true if a rank got a signal
  LinkPacking packing_;
  std::optional<EngineLog> engines_;  // from start() on
  // The times of the current step on this rank.
  Clock::time_point step_began_, forward_began_;
  std::chrono::nanoseconds forward_{0}, backward_{0}, data_wait_{0}, excluded_{0}, excluded_comm_{0},
      exposed_before_{0}, waited_before_forward_{0};
};

}  // namespace trireme
