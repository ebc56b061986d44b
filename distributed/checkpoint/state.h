// What a checkpoint says besides its tensors: the state of the job.
#pragma once

#include <cstdint>
#include <string>

#include "core/interchange/tensor_slot.h"

namespace trireme {

/// What a checkpoint says besides its tensors. Everything a job needs to go on with the same bits.
struct JobState {
  std::string run_id;
  std::int64_t step = 0;    ///< finished steps; the next one is this
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
  /// What a sum over the ranks cost that made this, for the reader; "": not measured. Of the machines, not of
  /// the job: who looks for the same job passes over it.
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
