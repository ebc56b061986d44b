#include "distributed/comm/ordered_reduce.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "distributed/comm/memory.h"
#include "kernels/error.h"
#include "kernels/table.h"

namespace trireme {

namespace {

constexpr std::size_t kSliceUnit = 8;

// One sum: kept alive by the work that adds, which a communicator holds until its device has done it.
struct Reduction {
  std::size_t element;                    // bytes
  Slice own;                              // the slice that this rank sums
  std::vector<int> nodes_of_rank;         // how many nodes each rank brings
  std::vector<TreeNode> nodes;            // of all ranks, in shard order
  std::vector<const void*> partials;      // own slice of each node
  std::vector<std::byte*> rooms;          // where own slices of peers' nodes arrive; null for own nodes
  std::unique_ptr<DeviceMemory> scratch;  // what `rooms` points into

  template <class Byte>
  std::span<Byte> bytes_of(Byte* vector, Slice slice) const {
    return {vector + slice.first * element, slice.count * element};
  }
};

// Everybody's nodes are a pure function of shards and world size, so nothing has to be said about them.
std::shared_ptr<Reduction> plan_reduction(const Communicator& comm, const OrderedSum& sum) {
  auto plan = std::make_shared<Reduction>();
  plan->element = size_of(sum.dtype);
  plan->own = slice_of_rank(sum, comm.size(), comm.rank());
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto nodes = maximal_subtrees(sum.shards, shards_of_rank(sum.shards, comm.size(), rank));
    plan->nodes_of_rank.push_back(static_cast<int>(nodes.size()));
    plan->nodes.insert(plan->nodes.end(), nodes.begin(), nodes.end());
  }
  const int own_nodes = plan->nodes_of_rank[comm.rank()];
  const std::size_t room_bytes = plan->own.count * plan->element;
  plan->scratch =
      std::make_unique<DeviceMemory>(comm.device(), (plan->nodes.size() - own_nodes) * room_bytes);
  std::byte* room = plan->scratch->get();
  for (int rank = 0; rank < comm.size(); ++rank) {
    for (int k = 0; k < plan->nodes_of_rank[rank]; ++k) {
      const bool mine = rank == comm.rank();
      plan->partials.push_back(
          mine ? static_cast<const std::byte*>(sum.partials[k]) + plan->own.first * plan->element : room);
      plan->rooms.push_back(mine ? nullptr : room);
      if (!mine) room += room_bytes;
    }
  }
  return plan;
}

// One all-to-all per partial rather than one of packed partials: buckets are sent from where they lie.
void exchange_partials(Communicator& comm, const Reduction& plan, const OrderedSum& sum,
                       const std::string& label) {
  const int rounds = std::ranges::max(plan.nodes_of_rank);
  for (int k = 0; k < rounds; ++k) {
    std::vector<std::span<const std::byte>> sends(comm.size());
    std::vector<std::span<std::byte>> recvs(comm.size());
    int node = k;
    for (int peer = 0; peer < comm.size(); ++peer) {
      const Slice slice = slice_of_rank(sum, comm.size(), peer);
      if (peer != comm.rank()) {
        if (k < std::ssize(sum.partials))
          sends[peer] = plan.bytes_of(static_cast<const std::byte*>(sum.partials[k]), slice);
        if (k < plan.nodes_of_rank[peer]) recvs[peer] = plan.bytes_of(plan.rooms[node], {0, plan.own.count});
      }
      node += plan.nodes_of_rank[peer];
    }
    comm.all_to_all(sends, recvs, label);
  }
}

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
  if (auto summed = comm.sum(sum, label)) return *summed;
  return ordered_sum_by_messages(comm, sum, label);
}

Event ordered_all_reduce(Communicator& comm, int shards, std::vector<const void*> partials, DType dtype,
                         std::size_t count, float scale, void* out, const std::string& label) {
  return ordered_sum(comm, {shards, std::move(partials), dtype, count, scale, out, {}, false}, label);
}

Event ordered_sum_by_messages(Communicator& comm, const OrderedSum& sum, const std::string& label) {
  const auto plan = plan_reduction(comm, sum);
  auto* const whole = static_cast<std::byte*>(sum.out);
  if (comm.size() > 1) exchange_partials(comm, *plan, sum, label);
  const View to{plan->bytes_of(whole, plan->own).data(),
                sum.dtype,
                1,
                {static_cast<std::int64_t>(plan->own.count)},
                {1}};
  Event summed = comm.run(
      [plan, shards = sum.shards, scale = sum.scale, to, device = comm.device()] {
        kernels_of(device).tree_sum(to, plan->nodes, plan->partials, shards, scale);
      },
      label);
  if (comm.size() == 1 || sum.own_slice_only) return summed;

  std::vector<std::span<std::byte>> slices;
  for (int peer = 0; peer < comm.size(); ++peer)
    slices.push_back(plan->bytes_of(whole, slice_of_rank(sum, comm.size(), peer)));
  return comm.all_gather(slices, label);
}

}  // namespace trireme
