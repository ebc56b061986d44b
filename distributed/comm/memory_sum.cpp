#include "distributed/comm/memory_sum.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "distributed/comm/ordered_reduce.h"
#include "kernels/table.h"

namespace trireme {

namespace {

constexpr std::size_t kStageBytes = std::size_t{4} << 20;
/// Of the sum, before it is copied to all: it is still in the second cache then.
constexpr std::size_t kChunkBytes = std::size_t{64} << 10;
constexpr std::size_t kMostNodes = 64;  // of a rank: 2 log2(shards)

View vector_at(void* data, DType dtype, std::size_t count) {
  return {data, dtype, 1, {static_cast<std::int64_t>(count)}, {1}};
}

}  // namespace

/// What a rank shows at the first meeting of a sum.
struct MemorySum::Card {
  static constexpr std::size_t kRoom = 3072;
  CallHeader call;  ///< written by the meeting
  bool staged;      ///< its buffers are pieces of its stage
  std::array<std::uint64_t, kMostNodes> partials;
  std::uint64_t out;
  std::array<std::byte, kRoom> payload;  ///< short partials, one behind the other
};

MemorySum::Card& MemorySum::own_card() const {
  static_assert(sizeof(Card) <= Board::kCardBytes);
  return *reinterpret_cast<Card*>(group_.own_card().data());
}

const MemorySum::Card& MemorySum::card_of(std::size_t member) const {
  return *reinterpret_cast<const Card*>(group_.card_of(member).data());
}

const MemorySum::Tree& MemorySum::tree_of(int shards) {
  if (tree_.shards == shards) return tree_;
  Tree made{.shards = shards};
  const int ranks = static_cast<int>(group_.size());
  for (std::size_t member = 0; member < group_.size(); ++member) {
    const auto nodes = maximal_subtrees(shards, shards_of_rank(shards, ranks, static_cast<int>(member)));
    for (std::size_t k = 0; k < nodes.size(); ++k) {
      made.nodes.push_back(nodes[k]);
      made.owners.push_back(member);
      made.places.push_back(k);
    }
    made.most = std::max(made.most, nodes.size());
  }
  TRIREME_CHECK(made.most <= kMostNodes, "sum of {} shards: a rank has {} nodes, at most {} are expected",
                shards, made.most, kMostNodes);
  return tree_ = std::move(made);
}

void MemorySum::run(CallHeader call, const OrderedSum& sum, Deadline deadline) {
  const Tree& tree = tree_of(sum.shards);
  call.root = sum.shards;
  call.total_bytes = sum.count * size_of(sum.dtype);
  if (call.total_bytes * tree.most <= Card::kRoom)
    sum_cards(call, sum, deadline);
  else
    sum_in_place(call, sum, deadline);
}

void MemorySum::sum_cards(const CallHeader& call, const OrderedSum& sum, Deadline deadline) {
  const std::size_t bytes = sum.count * size_of(sum.dtype);
  for (std::size_t k = 0; k < sum.partials.size() && bytes > 0; ++k)
    std::memcpy(own_card().payload.data() + k * bytes, sum.partials[k], bytes);
  group_.meet_in(call, deadline);
  std::vector<const void*> parts;
  for (std::size_t i = 0; i < tree_.nodes.size(); ++i)
    parts.push_back(card_of(tree_.owners[i]).payload.data() + tree_.places[i] * bytes);
  kernels_of(kCpu).tree_sum(vector_at(sum.out, sum.dtype, sum.count), tree_.nodes, parts, sum.shards,
                            sum.scale);
}

/// Tells where this rank's vectors are; if others do not see all of them, where its stage has room for
/// pieces.
void MemorySum::show_buffers(const OrderedSum& sum, std::size_t stage_bytes) {
  VisibleMemory& memory = group_.memory();
  Card& card = own_card();
  card.staged = !memory.name_of(sum.out);
  for (const void* partial : sum.partials) card.staged = card.staged || !memory.name_of(partial);
  if (card.staged && !stage_) stage_ = memory.allocate(kStageBytes);
  if (card.staged && !stage_)
    fail(ExitCode::kInternal, "no memory is left for the ranks of this host to share: {} bytes are needed",
         kStageBytes);
  const auto name = [&](const void* vector, std::size_t place) {
    return *memory.name_of(card.staged ? stage_.get() + place * stage_bytes : vector);
  };
  for (std::size_t k = 0; k < sum.partials.size(); ++k) card.partials[k] = name(sum.partials[k], k);
  card.out = name(sum.out, sum.partials.size());
}

MemorySum::Buffers MemorySum::buffers_of_all() const {
  Buffers all;
  const VisibleMemory& memory = group_.memory();
  for (std::size_t member = 0; member < group_.size(); ++member) {
    all.outs.push_back(memory.find(member, card_of(member).out));
    all.staged.push_back(card_of(member).staged);
  }
  for (std::size_t i = 0; i < tree_.nodes.size(); ++i)
    all.partials.push_back(memory.find(tree_.owners[i], card_of(tree_.owners[i]).partials[tree_.places[i]]));
  return all;
}

void MemorySum::sum_in_place(const CallHeader& call, const OrderedSum& sum, Deadline deadline) {
  constexpr std::size_t kLine = 64;
  const std::size_t element = size_of(sum.dtype), own = sum.partials.size(), self = group_.self();
  const std::size_t stage_bytes = kStageBytes / (tree_.most + 1) / kLine * kLine;
  show_buffers(sum, stage_bytes);
  group_.meet_in(call, deadline);
  const Buffers all = buffers_of_all();  // cards are those of the last meeting
  const bool in_pieces = std::ranges::find(all.staged, true) != all.staged.end();
  const std::size_t step = in_pieces ? stage_bytes / element : sum.count;
  for (std::size_t first = 0; first < sum.count; first += step) {
    const std::size_t count = std::min(step, sum.count - first);
    for (std::size_t k = 0; all.staged[self] && k < own; ++k)
      std::memcpy(stage_.get() + k * stage_bytes,
                  static_cast<const std::byte*>(sum.partials[k]) + first * element, count * element);
    if (in_pieces) group_.meet(deadline);
    sum_slice(sum, all, first, count);
    group_.meet(deadline);
    if (all.staged[self])
      std::memcpy(static_cast<std::byte*>(sum.out) + first * element, stage_.get() + own * stage_bytes,
                  count * element);
  }
}

/// This rank's share of the elements first..first+count-1, for all.
void MemorySum::sum_slice(const OrderedSum& sum, const Buffers& all, std::size_t first,
                          std::size_t count) const {
  const std::size_t element = size_of(sum.dtype), ranks = group_.size(), self = group_.self();
  const Slice own = slice_of_rank(count, static_cast<int>(ranks), static_cast<int>(self));
  std::vector<const void*> parts(all.partials.size());
  for (std::size_t done = 0; done < own.count; done += kChunkBytes / element) {
    const std::size_t size = std::min(kChunkBytes / element, own.count - done);
    const auto offset = [&](std::size_t member) {
      return ((all.staged[member] ? 0 : first) + own.first + done) * element;
    };
    for (std::size_t i = 0; i < parts.size(); ++i) parts[i] = all.partials[i] + offset(tree_.owners[i]);
    std::byte* const mine = all.outs[self] + offset(self);
    kernels_of(kCpu).tree_sum(vector_at(mine, sum.dtype, size), tree_.nodes, parts, sum.shards, sum.scale);
    for (std::size_t member = 0; member < ranks; ++member)
      if (member != self) std::memcpy(all.outs[member] + offset(member), mine, size * element);
  }
}

}  // namespace trireme
