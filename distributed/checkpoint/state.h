// JobState is the state of a job that a checkpoint holds in addition to its tensors.
#pragma once

#include <cstdint>
#include <string>

#include "core/interchange/tensor_slot.h"

namespace trireme {

/// The contents of a checkpoint other than tensors. Together they are all that a job needs to go on with the
/// same bits.
struct JobState {
  std::string run_id;
  std::int64_t step = 0;    ///< number of finished steps, and so the index of the next one
  std::int64_t shards = 0;  ///< V, fixed for the life of the job
  std::uint64_t seed = 0;
  std::int64_t global_batch = 0;
  std::int64_t threads = 0;       ///< threads per shard: part of the job's identity
  std::int64_t dataset_size = 0;  ///< samples in the training set
  std::string model;              ///< free text, for the reader
  std::string optimizer;          ///< free text, for the reader
  std::string build;              ///< build and library versions, compared on resume
  std::string job;                ///< the whole job as text (job.proto), compared on resume
  std::string data;               ///< digest of the training set, compared on resume; "": not known
  /// The cost of a sum over the ranks that wrote this, for human readers; "" if it was not measured. It
  /// describes the machines and not the job, so comparisons of jobs ignore it.
  std::string link;
  /// The engine of a GPU library that computes each operation, one a line; "" on CPUs. Bits depend on them.
  /// Runs of the same job may have met different operations, so a save ignores this field, like `link`, when
  /// it compares states.
  std::string engines;

  bool operator==(const JobState&) const = default;
};

/// Calls fn(name, member) for each member of a JobState, in order. Manifests and plain files name them so.
template <class State, class Fn>
void for_each_field(State& state, Fn&& fn) {
  fn("run_id", state.run_id);
  fn("step", state.step);
  fn("shards", state.shards);
  fn("seed", state.seed);
  fn("global_batch", state.global_batch);
  fn("threads", state.threads);
  fn("dataset_size", state.dataset_size);
  fn("model", state.model);
  fn("optimizer", state.optimizer);
  fn("build", state.build);
  fn("job", state.job);
  fn("data", state.data);
  fn("link", state.link);
  fn("engines", state.engines);
}

}  // namespace trireme
