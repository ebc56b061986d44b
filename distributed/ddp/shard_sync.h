// Sums over the shards of a step while they run, for synchronized batch normalization.
#pragma once

#include <memory>

#include "core/nn/batch_sync.h"
#include "distributed/comm/communicator.h"

namespace trireme {

/// For a world with one shard a rank. Sums are made in the canonical tree, by a communicator of their own,
/// because they come between the buckets of gradients. Collective; must not outlive `comm`.
std::unique_ptr<nn::BatchSync> make_shard_sync(Communicator& comm);

}  // namespace trireme
