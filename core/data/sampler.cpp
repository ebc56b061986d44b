#include "core/data/sampler.h"

#include <algorithm>
#include <bit>

#include "kernels/error.h"
#include "kernels/rng.h"

namespace trireme {
namespace {

constexpr std::uint64_t kShufflePurpose = 0x73687566666c65;  // "shuffle"
constexpr std::uint64_t kRounds = 8;
/// Parts narrower than four bits mix badly: with the least that holds 5 samples, some of the 120 orders came
/// up twice as often as others.
constexpr int kMinBits = 8;

constexpr std::uint64_t low_mask(int bits) { return (std::uint64_t{1} << bits) - 1; }

std::int64_t cut(std::int64_t count, std::int64_t shards, std::int64_t shard) {
  // floor(shard * count / shards), written so that the large product never appears.
  return shard * (count / shards) + shard * (count % shards) / shards;
}

}  // namespace

Sampler::Sampler(std::uint64_t seed, std::int64_t size, bool shuffle)
    : seed_(seed), size_(size), shuffle_(shuffle) {
  if (size < 1)
    fail(ExitCode::kData, "sampler: the data set has {} samples, but must have at least 1; check --data",
         size);
  const int bits = std::max(kMinBits, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(size - 1))));
  high_bits_ = bits / 2;
  low_bits_ = bits - high_bits_;
}

std::int64_t Sampler::index(std::int64_t epoch, std::int64_t position) const {
  TRIREME_CHECK(epoch >= 0 && position >= 0 && position < size_,
                "sampler: epoch {} must not be negative and position {} must lie in 0..{}", epoch, position,
                size_ - 1);
  if (!shuffle_) return position;
  // A Feistel network permutes a power of two that holds the data set. Each round changes one part by a
  // random function of the other, which can be undone whatever that function is, so the parts need not be
  // equally wide. A value outside the data set is permuted again: walking along the cycle must come back
  // inside, and no two positions can meet there. Fewer than two walks on average from 128 samples on.
  const RandomKey key = random_key(seed_, static_cast<std::uint64_t>(epoch), kShufflePurpose);
  std::uint64_t value = static_cast<std::uint64_t>(position);
  do {
    std::uint64_t low = value & low_mask(low_bits_), high = value >> low_bits_;
    for (std::uint64_t round = 0; round < kRounds; round += 2) {
      low ^= philox(key, round, high)[0] & low_mask(low_bits_);
      high ^= philox(key, round + 1, low)[0] & low_mask(high_bits_);
    }
    value = high << low_bits_ | low;
  } while (value >= static_cast<std::uint64_t>(size_));
  return static_cast<std::int64_t>(value);
}

std::int64_t steps_per_epoch(std::int64_t dataset_size, std::int64_t global_batch) {
  TRIREME_CHECK(dataset_size >= 1 && global_batch >= 1,
                "steps: data set of {} and global batch of {} must both be at least 1", dataset_size,
                global_batch);
  return (dataset_size - 1) / global_batch + 1;
}

StepPlan plan_step(std::int64_t step, std::int64_t dataset_size, std::int64_t global_batch) {
  TRIREME_CHECK(step >= 0, "steps: step {} must not be negative", step);
  const std::int64_t steps = steps_per_epoch(dataset_size, global_batch);
  const std::int64_t first = step % steps * global_batch;
  return {step / steps, first, std::min(global_batch, dataset_size - first)};
}

PositionRange shard_positions(std::int64_t count, std::int64_t shards, std::int64_t shard) {
  TRIREME_CHECK(count >= 0 && shards >= 1 && shard >= 0 && shard < shards,
                "shards: count {} must not be negative and shard {} must lie in [0, {})", count, shard,
                shards);
  return {cut(count, shards, shard), cut(count, shards, shard + 1)};
}

}  // namespace trireme
