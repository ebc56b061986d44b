// The order of the data: the sample at each position of an epoch, and the samples of each step.
//
// Everything here is a pure function, so a job can resume at any number of ranks without saved state.
#pragma once

#include <cstdint>

namespace trireme {

/// For every epoch a permutation of [0, size): pseudo-random from (seed, epoch), or the identity.
/// An element costs O(1) time and no memory. Safe to use from any thread.
class Sampler {
 public:
  /// Fails with kData unless size >= 1.
  Sampler(std::uint64_t seed, std::int64_t size, bool shuffle);

  std::int64_t size() const { return size_; }

  /// Returns the data set's index of the sample at `position` of [0, size()) in `epoch` >= 0. The result must
  /// not change between versions, because a resumed job must see the same order.
  std::int64_t index(std::int64_t epoch, std::int64_t position) const;

 private:
  std::uint64_t seed_;
  std::int64_t size_;
  bool shuffle_;
  int low_bits_;  ///< an index of [0, 2^(low_bits_ + high_bits_)) is cut into these two parts
  int high_bits_;
};

/// The samples of one global batch: positions [first, first + count) of `epoch`.
struct StepPlan {
  std::int64_t epoch = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
  bool operator==(const StepPlan&) const = default;
};

/// Steps in one pass over the data: the last one may be smaller, no sample is dropped or seen twice.
std::int64_t steps_per_epoch(std::int64_t dataset_size, std::int64_t global_batch);

/// The plan of global step `step` >= 0, counted over all epochs.
StepPlan plan_step(std::int64_t step, std::int64_t dataset_size, std::int64_t global_batch);

/// Positions [first, last).
struct PositionRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
  std::int64_t count() const { return last - first; }
  bool operator==(const PositionRange&) const = default;
};

/// The part of `count` positions that belongs to `shard` of [0, shards): the cuts lie at floor(s * count /
/// shards). Parts differ by at most one sample; some are empty if count < shards.
PositionRange shard_positions(std::int64_t count, std::int64_t shards, std::int64_t shard);

}  // namespace trireme
