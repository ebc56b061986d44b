#include "distributed/comm/ordered_reduce.h"

#include <algorithm>
#include <array>
#include <bit>
#include <memory>
#include <utility>

#include "kernels/error.h"

namespace trireme {

namespace {

// Floats per block of sum_tree: 8 KiB, so that the blocks of a deep tree stay in the first two caches.
constexpr std::size_t kBlock = 2048;
constexpr std::size_t kSliceUnit = 16 / sizeof(float);

// The level of the root: the tree has 2^root_level leaves, the last of which may be padding.
int root_level(int shards) { return std::bit_width(static_cast<unsigned>(shards) - 1); }

long first_shard(TreeNode node) { return static_cast<long>(node.index) << node.level; }

// The binary counter: pending[i] is the sum over a node that waits for its right sibling.
class TreeSum {
 public:
  explicit TreeSum(int shards)
      : shards_(shards), scratch_(std::make_unique_for_overwrite<float[]>(kBlock * root_level(shards))) {}

  // Takes `count` floats of the next node in shard order.
  void add(TreeNode node, const float* data, std::size_t count) {
    while (first_shard(node) > 0 || (1L << node.level) < shards_) {
      if (node.index % 2 == 0) {
        // The right sibling is either still to come, or all padding and passed over.
        if (first_shard({node.level, node.index + 1}) < shards_) break;
      } else {
        --depth_;
        float* sum = scratch_.get() + depth_ * kBlock;
        add_in_order(sum, pending_[depth_], data, count);
        data = sum;
      }
      node = {node.level + 1, node.index / 2};
    }
    pending_[depth_++] = data;
  }

  // After the last node: the root's block. Ready for the next block then.
  const float* take_root() { return pending_[--depth_]; }

 private:
  int shards_;
  int depth_ = 0;
  std::array<const float*, 33> pending_{};
  std::unique_ptr<float[]> scratch_;
};

// One call of ordered_all_reduce: kept alive by the job that sums.
struct Reduction {
  Slice own;                           // the slice that this rank sums
  std::vector<int> nodes_of_rank;      // how many nodes each rank brings
  std::vector<TreeNode> nodes;         // of all ranks, in shard order
  std::vector<const float*> partials;  // own slice of each node
  std::vector<float*> rooms;           // where own slices of peers' nodes arrive; null for own nodes
  std::unique_ptr<float[]> scratch;    // what `rooms` points into
};

// Everybody's nodes are a pure function of shards and world size, so nothing has to be said about them.
std::shared_ptr<Reduction> plan_reduction(const Communicator& comm, int shards,
                                          std::span<const float* const> partials, std::size_t count) {
  auto plan = std::make_shared<Reduction>();
  plan->own = slice_of_rank(count, comm.size(), comm.rank());
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto nodes = maximal_subtrees(shards, shards_of_rank(shards, comm.size(), rank));
    plan->nodes_of_rank.push_back(static_cast<int>(nodes.size()));
    plan->nodes.insert(plan->nodes.end(), nodes.begin(), nodes.end());
  }
  const int own_nodes = plan->nodes_of_rank[comm.rank()];
  TRIREME_CHECK(partials.size() == static_cast<std::size_t>(own_nodes),
                "ordered_all_reduce: rank {} of {} needs {} partials for {} shards, got {}", comm.rank(),
                comm.size(), own_nodes, shards, partials.size());

  plan->scratch = std::make_unique_for_overwrite<float[]>((plan->nodes.size() - own_nodes) * plan->own.count);
  float* room = plan->scratch.get();
  for (int rank = 0; rank < comm.size(); ++rank) {
    for (int k = 0; k < plan->nodes_of_rank[rank]; ++k) {
      const bool mine = rank == comm.rank();
      plan->partials.push_back(mine ? partials[k] + plan->own.first : room);
      plan->rooms.push_back(mine ? nullptr : room);
      if (!mine) room += plan->own.count;
    }
  }
  return plan;
}

// One all-to-all per partial rather than one of packed partials: buckets are sent from where they lie.
void exchange_partials(Communicator& comm, const Reduction& plan, std::span<const float* const> partials,
                       std::size_t count, const std::string& label) {
  const int rounds = std::ranges::max(plan.nodes_of_rank);
  for (int k = 0; k < rounds; ++k) {
    std::vector<std::span<const std::byte>> sends(comm.size());
    std::vector<std::span<std::byte>> recvs(comm.size());
    int node = k;
    for (int peer = 0; peer < comm.size(); ++peer) {
      const Slice slice = slice_of_rank(count, comm.size(), peer);
      if (peer != comm.rank()) {
        if (k < std::ssize(partials))
          sends[peer] = std::as_bytes(std::span(partials[k] + slice.first, slice.count));
        if (k < plan.nodes_of_rank[peer]) {
          recvs[peer] = std::as_writable_bytes(std::span(plan.rooms[node], plan.own.count));
        }
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

void add_in_order(float* out, const float* left, const float* right, std::size_t count) {
  // An operand may be `out` itself: that is no dependence from one element to another.
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) out[i] = left[i] + right[i];
}

void sum_tree(int shards, std::span<const TreeNode> nodes, std::span<const float* const> partials,
              std::size_t count, float scale, float* out) {
  TRIREME_CHECK(shards >= 1 && nodes.size() == partials.size(),
                "sum_tree: {} nodes but {} partials for {} shards", nodes.size(), partials.size(), shards);
  long next = 0;
  for (const TreeNode node : nodes) {
    TRIREME_CHECK(first_shard(node) == next, "sum_tree: a node begins at shard {}, expected {}",
                  first_shard(node), next);
    next += 1L << node.level;
  }
  TRIREME_CHECK(next >= shards, "sum_tree: nodes end at shard {} of {}", next, shards);

  TreeSum sum(shards);
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t size = std::min(kBlock, count - begin);
    for (std::size_t k = 0; k < nodes.size(); ++k) sum.add(nodes[k], partials[k] + begin, size);
    const float* root = sum.take_root();
    float* to = out + begin;
#pragma GCC ivdep
    for (std::size_t i = 0; i < size; ++i) to[i] = root[i] * scale;
  }
}

Event ordered_all_reduce(Communicator& comm, int shards, std::vector<const float*> partials,
                         std::size_t count, float scale, float* out, const std::string& label) {
  const auto plan = plan_reduction(comm, shards, partials, count);
  if (comm.size() > 1) exchange_partials(comm, *plan, partials, count, label);
  Event summed = comm.run(
      [plan, shards, scale, out] {
        sum_tree(shards, plan->nodes, plan->partials, plan->own.count, scale, out + plan->own.first);
      },
      label);
  if (comm.size() == 1) return summed;

  std::vector<std::span<std::byte>> slices;
  for (int peer = 0; peer < comm.size(); ++peer) {
    const Slice slice = slice_of_rank(count, comm.size(), peer);
    slices.push_back(std::as_writable_bytes(std::span(out + slice.first, slice.count)));
  }
  return comm.all_gather(slices, label);
}

}  // namespace trireme
