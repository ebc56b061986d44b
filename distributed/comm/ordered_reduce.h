// The canonical sum over shards: the same bits at any world size.
//
// A job has V shards, fixed for its life. A rank holds a contiguous range of them. Shard gradients
// are summed in one binary tree over the shard index, neighbours first (0+1, 2+3, (0+1)+(2+3), ...),
// the lower index as the left operand, padded on the right with -0.0 (x + -0.0 is x for every x, so
// an absent operand is simply passed over). Ranks exchange the raw partial sums of their maximal
// subtrees, each rank sums its own slice in tree order, then slices are gathered: no floating-point
// sum ever happens inside a transport.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "distributed/comm/communicator.h"
#include "kernels/dtype.h"
#include "kernels/tree.h"

namespace trireme {

/// The contiguous shards [first, last).
struct ShardRange {
  int first = 0;
  int last = 0;
  int size() const { return last - first; }
};

/// Returns the contiguous shards of `rank`. The first (shards % world_size) ranks hold one shard more.
/// Throws Error(kUsage) if there are more ranks than shards.
ShardRange shards_of_rank(int shards, int world_size, int rank);

/// Returns the smallest set of tree nodes that covers exactly `range`, in shard order. A node may extend past
/// the last shard, because the rest is padding. There are at most 2 * log2(shards) nodes.
std::vector<TreeNode> maximal_subtrees(int shards, ShardRange range);

/// The contiguous elements of a vector that one rank sums or updates.
struct Slice {
  std::size_t first = 0;
  std::size_t count = 0;
};
/// Returns the elements of a vector of `count` that `rank` sums. Their number is a multiple of 8 (16 bytes or
/// more), except in the last slice that is not empty.
Slice slice_of_rank(std::size_t count, int world_size, int rank);
/// Returns the elements of a sum that `rank` sums, according to the sum's cuts if there are any.
Slice slice_of_rank(const OrderedSum& sum, int world_size, int rank);

/// Sums per-shard vectors of `count` elements over all shards and ranks. They are on comm's device and are
/// float32, bfloat16 or float16. With 16 bits, the sum of every node of the tree is rounded, so that the data
/// that is sent does not depend on which nodes are on the same rank.
///
/// `partials[k]` holds this rank's sum over the k-th of its maximal subtrees. After the returned event,
/// `out` (count elements) holds scale * sum on every rank. With own_slice_only, each rank has only its slice
/// of it. The bits are the same at every world size. `out` may be one of the partials. Everything is enqueued
/// on `comm`; buffers must outlive the event. All ranks must give the same shards, count, scale and cuts.
/// Elements sent by a host: about 2 * count * (H-1)/H when the ranks of each of H hosts own one subtree
/// together.
Event ordered_sum(Communicator& comm, const OrderedSum& sum, const std::string& label);

/// Performs ordered_sum() so that every rank gets the whole sum.
Event ordered_all_reduce(Communicator& comm, int shards, std::vector<const void*> partials, DType dtype,
                         std::size_t count, float scale, void* out, const std::string& label);

}  // namespace trireme
