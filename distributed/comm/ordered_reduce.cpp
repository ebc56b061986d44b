#include "distributed/comm/ordered_reduce.h"

#include <algorithm>
#include <utility>

#include "kernels/error.h"

namespace trireme {

namespace {

constexpr std::size_t kSliceUnit = 8;

}  // namespace

ShardRange shards_of_rank(int shards, int world_size, int rank) {
  TRIREME_CHECK(world_size >= 1 && rank >= 0 && rank < world_size, "rank {} is not in a world of {}", rank,
                world_size);
  if (shards < world_size) {
    fail(ExitCode::kUsage,
         "{} ranks for {} shards: each rank needs a shard; start with --shards {} or fewer ranks", world_size,
         shards, world_size);
  }
  const int base = shards / world_size;
  const int extra = shards % world_size;
  const int first = rank * base + std::min(rank, extra);
  return {first, first + base + (rank < extra ? 1 : 0)};
}

std::vector<TreeNode> maximal_subtrees(int shards, ShardRange range) {
  TRIREME_CHECK(0 <= range.first && range.first <= range.last && range.last <= shards,
                "shards {}..{} are not a range of {} shards", range.first, range.last, shards);
  const int root = root_level(std::max(shards, 1));
  const long last = range.last == shards ? 1L << root : range.last;  // padding belongs to whoever is last
  std::vector<TreeNode> nodes;
  for (long first = range.first; first < range.last;) {
    int level = 0;
    while (level < root && first % (2L << level) == 0 && first + (2L << level) <= last) ++level;
    nodes.push_back({level, static_cast<int>(first >> level)});
    first += 1L << level;
  }
  return nodes;
}

Slice slice_of_rank(std::size_t count, int world_size, int rank) {
  const std::size_t even = (count + world_size - 1) / world_size;
  const std::size_t share = (even + kSliceUnit - 1) / kSliceUnit * kSliceUnit;
  const std::size_t first = std::min(count, share * rank);
  return {first, std::min(share, count - first)};
}

Slice slice_of_rank(const OrderedSum& sum, int world_size, int rank) {
  if (sum.cuts.empty()) return slice_of_rank(sum.count, world_size, rank);
  const auto r = static_cast<std::size_t>(rank);
  return {sum.cuts[r], sum.cuts[r + 1] - sum.cuts[r]};
}

Event ordered_sum(Communicator& comm, const OrderedSum& sum, const std::string& label) {
  const auto own = maximal_subtrees(sum.shards, shards_of_rank(sum.shards, comm.size(), comm.rank()));
  TRIREME_CHECK(sum.partials.size() == own.size(),
                "ordered_sum: rank {} of {} needs {} partials for {} shards, got {}", comm.rank(),
                comm.size(), own.size(), sum.shards, sum.partials.size());
  TRIREME_CHECK(sum.cuts.empty() ||
                    (sum.cuts.size() == static_cast<std::size_t>(comm.size()) + 1 && sum.cuts.front() == 0 &&
                     sum.cuts.back() == sum.count && std::ranges::is_sorted(sum.cuts)),
                "ordered_sum: {} cuts for {} ranks; they must rise from 0 to {} elements", sum.cuts.size(),
                comm.size(), sum.count);
  return comm.sum(sum, label);
}

Event ordered_all_reduce(Communicator& comm, int shards, std::vector<const void*> partials, DType dtype,
                         std::size_t count, float scale, void* out, const std::string& label) {
  return ordered_sum(comm, {shards, std::move(partials), dtype, count, scale, out, {}, false}, label);
}

}  // namespace trireme
