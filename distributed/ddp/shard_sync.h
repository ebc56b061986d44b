// Sums batch statistics over the shards of a step while they run, for synchronized batch normalization.
#pragma once

#include <memory>

#include "core/nn/batch_sync.h"
#include "distributed/comm/communicator.h"

namespace trireme {

/// Returns a BatchSync for a world with one shard per rank. It sums in the canonical tree and splits off its
/// own communicator, because its sums happen between the buckets of gradients. This call is collective. The
/// result must not outlive `comm`.
std::unique_ptr<nn::BatchSync> make_shard_sync(Communicator& comm);

}  // namespace trireme
