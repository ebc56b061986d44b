#include "distributed/comm/host_sum.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "kernels/table.h"

namespace trireme {

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kStageBytes = std::size_t{4} << 20;
/// The bytes that a rank sums before it copies them to the other ranks. They are still in the L2 cache then.
constexpr std::size_t kChunkBytes = std::size_t{64} << 10;
/// The bytes that a rank sums of one piece between hosts. A piece is long enough for the network, and a
/// bucket consists of several.
constexpr std::size_t kPieceBytes = std::size_t{512} << 10;
constexpr std::size_t kMostNodes = 64;  // of a rank: 2 log2(shards)

View vector_at(void* data, DType dtype, std::size_t count) {
  return {data, dtype, 1, {static_cast<std::int64_t>(count)}, {1}};
}

void grow(std::vector<std::byte>& memory, std::size_t bytes) {
  if (memory.size() < bytes) memory.resize(bytes);
}

}  // namespace

/// The card on which a rank shows the other ranks of its host where its vectors are.
struct HostSum::Card {
  static constexpr std::size_t kRoom = 3072;
  CallHeader call;  ///< written by HostGroup::meet_in()
  bool staged;      ///< true if the rank's vectors pass through its stage, a piece at a time
  std::array<std::uint64_t, kMostNodes> partials;
  std::uint64_t out;
  std::array<std::byte, kRoom> payload;  ///< short partial sums, one after the other
};

HostSum::HostSum(Transport& transport, std::chrono::milliseconds patience)
    : transport_(transport),
      patience_(patience),
      group_(transport.group()),
      places_(transport.hosts(), transport.rank()),
      theirs_(static_cast<std::size_t>(transport.size())) {
  for (auto& merged : merged_) merged.resize(places_.owners.size());
  for (auto& received : received_) received.resize(places_.ranks_of.size());
}

HostSum::Card& HostSum::own_card() const {
  static_assert(sizeof(Card) <= Board::kCardBytes);
  return *reinterpret_cast<Card*>(group_.own_card().data());
}

const HostSum::Card& HostSum::card_of(std::size_t member) const {
  return *reinterpret_cast<const Card*>(group_.card_of(member).data());
}

void HostSum::run(CallHeader call, const OrderedSum& sum) try {
  if (plan_.shards != sum.shards) plan_ = plan_hosts(sum.shards, places_.ranks_of, places_.own_host);
  TRIREME_CHECK(plan_.most_nodes <= kMostNodes,
                "sum of {} shards: a rank has {} nodes, at most {} are expected", sum.shards,
                plan_.most_nodes, kMostNodes);
  call.root = sum.shards;
  call.total_bytes = sum.count * size_of(sum.dtype);
  const std::size_t bytes = call.total_bytes * plan_.most_nodes;
  if (bytes <= (is_one_host() ? Card::kRoom : Frame::kRoom))
    sum_short(call, sum);
  else
    sum_in_place(call, sum);
} catch (...) {
  group_.memory().keep_all();
  throw;
}

/// Everybody gets all partials, and sums them.
void HostSum::sum_short(const CallHeader& call, const OrderedSum& sum) {
  const std::size_t bytes = sum.count * size_of(sum.dtype);
  std::byte* const payload = is_one_host() ? own_card().payload.data() : mine_.payload.data();
  for (std::size_t k = 0; k < sum.partials.size() && bytes > 0; ++k)
    std::memcpy(payload + k * bytes, sum.partials[k], bytes);
  if (is_one_host())
    group_.meet_in(call, deadline());
  else
    send_frame(call);
  std::vector<const void*> parts;
  for (std::size_t i = 0; i < plan_.all_nodes.size(); ++i) {
    const std::size_t rank = plan_.owners[i];
    const std::byte* const from = is_one_host() ? card_of(rank).payload.data() : theirs_[rank].payload.data();
    parts.push_back(from + plan_.places[i] * bytes);
  }
  kernels_of(kCpu).tree_sum(vector_at(sum.out, sum.dtype, sum.count), plan_.all_nodes, parts, sum.shards,
                            sum.scale);
}

/// Tells where this rank's vectors are; if others do not see all of them, where its stage has room for
/// pieces.
void HostSum::show_buffers(const OrderedSum& sum, std::size_t stage_bytes) {
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

HostSum::Buffers HostSum::buffers_of_host() const {
  Buffers all;
  const VisibleMemory& memory = group_.memory();
  for (std::size_t member = 0; member < group_.size(); ++member) {
    all.outs.push_back(memory.find(member, card_of(member).out));
    all.staged.push_back(card_of(member).staged);
  }
  for (const HostNodes::Part& part : own_nodes().parts)
    all.partials.push_back(memory.find(part.owner, card_of(part.owner).partials[part.place]));
  return all;
}

/// This rank's frame to all others, as any collective begins where there are several hosts.
void HostSum::send_frame(const CallHeader& call) {
  mine_.header = call;
  theirs_[static_cast<std::size_t>(transport_.rank())] = mine_;
  swap_frames(
      transport_, [this](int) -> const Frame& { return mine_; }, theirs_, deadline());
}

void HostSum::sum_in_place(const CallHeader& call, const OrderedSum& sum) {
  const std::size_t element = size_of(sum.dtype), own = sum.partials.size(), self = group_.self();
  const std::size_t stage_bytes = kStageBytes / (plan_.most_nodes + 1) / kLine * kLine;
  show_buffers(sum, stage_bytes);
  if (!is_one_host()) {
    mine_.payload[0] = std::byte{own_card().staged};
    send_frame(call);
  }
  group_.meet_in(call, deadline());
  const Buffers all = buffers_of_host();  // cards are those of the last meeting
  const bool in_pieces =
      is_one_host()
          ? std::ranges::find(all.staged, true) != all.staged.end()
          : std::ranges::any_of(theirs_, [](const Frame& f) { return f.payload[0] != std::byte{0}; });
  if (!in_pieces) {
    reduce({sum, all, 0, slices_of(sum, 0, sum.count)});
    return group_.meet(deadline());
  }
  const std::size_t step = stage_bytes / element;
  for (std::size_t first = 0; first < sum.count; first += step) {
    const std::size_t count = std::min(step, sum.count - first);
    for (std::size_t k = 0; all.staged[self] && k < own; ++k)
      std::memcpy(stage_.get() + k * stage_bytes,
                  static_cast<const std::byte*>(sum.partials[k]) + first * element, count * element);
    group_.meet(deadline());
    const std::vector<Slice> slices = slices_of(sum, first, count);
    reduce({sum, all, first, slices});
    group_.meet(deadline());
    if (!all.staged[self]) continue;
    const Slice told =
        sum.own_slice_only ? slices[static_cast<std::size_t>(transport_.rank())] : Slice{first, count};
    std::memcpy(static_cast<std::byte*>(sum.out) + told.first * element,
                stage_.get() + own * stage_bytes + (told.first - first) * element, told.count * element);
  }
}

/// Between hosts in small pieces, of which one arrives while another is summed and a third goes back.
void HostSum::reduce(const Piece& whole) {
  if (is_one_host()) return sum_slice(whole);
  const std::size_t step = kPieceBytes / size_of(whole.sum.dtype);
  std::size_t longest = 0;
  for (const Slice& slice : whole.slices) longest = std::max(longest, slice.count);
  std::vector<Piece> pieces;
  for (std::size_t done = 0; done < longest; done += step) {
    Piece& piece = pieces.emplace_back(whole);
    for (Slice& slice : piece.slices) {
      const std::size_t skip = std::min(done, slice.count);
      slice = {slice.first + skip, std::min(step, slice.count - skip)};
    }
    piece.turn = pieces.size() % 2;
  }
  const bool hands_out = !whole.sum.own_slice_only;
  begin_partials(pieces.front());
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (i + 1 < pieces.size()) begin_partials(pieces[i + 1]);
    transport_.finish(deadline());
    sum_slice(pieces[i]);
    if (hands_out) begin_sums(pieces[i]);
    if (hands_out && i > 0) finish_sums(pieces[i - 1]);
  }
  if (hands_out) finish_sums(pieces.back());
}

/// Returns for each rank the slice that it sums of the elements [first, first + count).
std::vector<Slice> HostSum::slices_of(const OrderedSum& sum, std::size_t first, std::size_t count) const {
  std::vector<Slice> slices;
  for (int rank = 0; rank < transport_.size(); ++rank) {
    if (sum.cuts.empty()) {
      const Slice slice = slice_of_rank(count, transport_.size(), rank);
      slices.push_back({first + slice.first, slice.count});
    } else {
      const Slice slice = slice_of_rank(sum, transport_.size(), rank);
      const std::size_t begin = std::clamp(slice.first, first, first + count),
                        end = std::clamp(slice.first + slice.count, first, first + count);
      slices.push_back({begin, end - begin});
    }
  }
  return slices;
}

/// Returns the address of an element in `vector`, which belongs to the rank at index `owner` of this host.
/// The vector of a staged rank begins with the element `staged_first`.
std::byte* HostSum::in(const Piece& piece, std::byte* vector, std::size_t owner, std::size_t element) const {
  return vector + (element - (piece.all.staged[owner] ? piece.staged_first : 0)) * size_of(piece.sum.dtype);
}

/// This host's nodes of a slice, one row behind the other. Chunk by chunk, so that sums of sums are in a
/// cache.
void HostSum::merge(const Piece& piece, Slice slice, std::byte* rows) const {
  const std::size_t element = size_of(piece.sum.dtype), row_bytes = slice.count * element;
  const KernelTable& kernels = kernels_of(kCpu);
  for (std::size_t done = 0; done < slice.count; done += kChunkBytes / element) {
    const std::size_t count = std::min(kChunkBytes / element, slice.count - done);
    std::vector<std::byte*> left;
    const auto row = [&](std::size_t i) { return rows + i * row_bytes + done * element; };
    const auto view = [&](std::byte* data) { return vector_at(data, piece.sum.dtype, count); };
    for (std::size_t i = 0; i < own_nodes().parts.size(); ++i) {
      const HostNodes::Part& part = own_nodes().parts[i];
      left.push_back(
          in(piece, const_cast<std::byte*>(piece.all.partials[i]), part.owner, slice.first + done));
      for (int merge = 0; merge < part.merges; ++merge) {
        std::byte* const right = left.back();
        left.pop_back();
        kernels.binary(BinaryOp::add, view(row(left.size() - 1)), view(left.back()), view(right));
        left.back() = row(left.size() - 1);
      }
    }
    for (std::size_t i = 0; i < left.size(); ++i)
      if (left[i] != row(i)) std::memcpy(row(i), left[i], count * element);
  }
}

/// Merged partials go to the owners of their slices on other hosts, and those of the own slice arrive.
void HostSum::begin_partials(const Piece& piece) {
  auto &merged = merged_[piece.turn], &received = received_[piece.turn];
  const auto ranks = static_cast<std::size_t>(transport_.size());
  const std::size_t element = size_of(piece.sum.dtype);
  std::vector<ConstBytes> sends(ranks);
  std::vector<Bytes> recvs(ranks);
  for (std::size_t i = 0; i < places_.owners.size(); ++i) {
    const Slice slice = slice_of(piece, places_.owners[i]);
    const std::size_t row = slice.count * element;
    grow(merged[i], own_nodes().rows * row);
    merge(piece, slice, merged[i].data());
    sends[static_cast<std::size_t>(places_.owners[i])] =
        ConstBytes(merged[i]).first(own_nodes().nodes.size() * row);
  }
  const std::size_t own_bytes = slice_of(piece, transport_.rank()).count * element;
  for (std::size_t h = 0, i = 0; h < places_.ranks_of.size(); ++h) {
    if (h == places_.own_host) continue;
    const std::size_t bytes = plan_.hosts[h].nodes.size() * own_bytes;
    grow(received[h], bytes);
    recvs[static_cast<std::size_t>(places_.agents[i++])] = Bytes(received[h]).first(bytes);
  }
  transport_.begin(sends, recvs);
}

/// This rank's share of a piece, for all of its host.
void HostSum::sum_slice(const Piece& piece) {
  const std::size_t element = size_of(piece.sum.dtype), self = group_.self();
  const Slice own = slice_of(piece, transport_.rank());
  std::vector<const void*> parts(plan_.sources.size());
  for (std::size_t done = 0; done < own.count; done += kChunkBytes / element) {
    const std::size_t count = std::min(kChunkBytes / element, own.count - done), at = own.first + done;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const auto [host, index] = plan_.sources[i];
      if (host == places_.own_host)
        parts[i] =
            in(piece, const_cast<std::byte*>(piece.all.partials[index]), own_nodes().parts[index].owner, at);
      else
        parts[i] = received_[piece.turn][host].data() + (index * own.count + done) * element;
    }
    std::byte* const mine = in(piece, piece.all.outs[self], self, at);
    kernels_of(kCpu).tree_sum(vector_at(mine, piece.sum.dtype, count), plan_.nodes, parts, piece.sum.shards,
                              piece.sum.scale);
    for (std::size_t member = 0; member < group_.size() && !piece.sum.own_slice_only; ++member)
      if (member != self) std::memcpy(in(piece, piece.all.outs[member], member, at), mine, count * element);
  }
}

/// In this rank's result, the slice of a rank.
Bytes HostSum::own_out(const Piece& piece, int rank) const {
  const Slice slice = slice_of(piece, rank);
  const std::size_t self = group_.self();
  return {in(piece, piece.all.outs[self], self, slice.first), slice.count * size_of(piece.sum.dtype)};
}

/// Sums go to one rank of each other host, and those of others' slices come.
void HostSum::begin_sums(const Piece& piece) {
  std::vector<ConstBytes> sends(theirs_.size());
  std::vector<Bytes> recvs(theirs_.size());
  for (const int agent : places_.agents)
    sends[static_cast<std::size_t>(agent)] = own_out(piece, transport_.rank());
  for (const int owner : places_.owners) recvs[static_cast<std::size_t>(owner)] = own_out(piece, owner);
  transport_.begin(sends, recvs);
}

/// They are there, and are handed out to all of this host.
void HostSum::finish_sums(const Piece& piece) {
  transport_.finish(deadline());
  for (const int owner : places_.owners) {
    const Bytes sums = own_out(piece, owner);
    for (std::size_t member = 0; member < group_.size(); ++member)
      if (member != group_.self())
        std::memcpy(in(piece, piece.all.outs[member], member, slice_of(piece, owner).first), sums.data(),
                    sums.size());
  }
}

}  // namespace trireme
