#include "distributed/comm/host_gather.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace trireme {

namespace {

constexpr std::size_t kMostRanks = 400;                // names of as many slices fit on a card
constexpr std::size_t kShort = std::size_t{64} << 10;  // bytes in all that messages carry as fast

std::size_t total_bytes(std::span<const Bytes> slices) {
  std::size_t total = 0;
  for (const Bytes slice : slices) total += slice.size();
  return total;
}

}  // namespace

/// The card on which a rank shows the other ranks of its host what it brings to a gather.
struct HostGather::Card {
  CallHeader call;          ///< written by HostGroup::meet_in()
  std::uint64_t own_bytes;  ///< the size of the rank's own slice
  bool visible;             ///< true if the host's other ranks can read every slice that this rank brings
  /// The names, in the host's shared memory, of the rank's own slice and then of the slices that it receives
  /// from other hosts on behalf of its host.
  std::array<std::uint64_t, kMostRanks> names;
};

HostGather::HostGather(Transport& transport, std::chrono::milliseconds patience)
    : transport_(transport),
      patience_(patience),
      group_(transport.group()),
      places_(transport.hosts(), transport.rank()),
      mine_(static_cast<std::size_t>(transport.size())),
      theirs_(mine_.size()),
      sources_(mine_.size()) {}

bool HostGather::serves(std::span<const Bytes> slices) const {
  return shares_hosts() && slices.size() <= kMostRanks && total_bytes(slices) >= kShort;
}

void HostGather::run(CallHeader call, std::span<const Bytes> slices) try {
  call.total_bytes = total_bytes(slices);
  show(slices);
  const bool all_visible = agree(call, slices);
  send(slices, !all_visible);
  if (!all_visible) return;
  if (places_.ranks_of.size() > 1) group_.meet(deadline());  // what came from other hosts is there
  copy_from_host(slices);
  group_.meet(deadline());
} catch (...) {
  group_.memory().keep_all();
  throw;
}

/// Puts on this rank's card what it brings to its host.
void HostGather::show(std::span<const Bytes> slices) const {
  static_assert(sizeof(Card) <= Board::kCardBytes);
  Card& card = *reinterpret_cast<Card*>(group_.own_card().data());
  card.own_bytes = slices[static_cast<std::size_t>(transport_.rank())].size();
  card.visible = true;
  std::size_t at = 0;
  const auto add = [&](int rank) {
    const Bytes slice = slices[static_cast<std::size_t>(rank)];
    const auto name = group_.memory().name_of(slice.data());
    card.visible = card.visible && (name || slice.empty());
    card.names[at++] = name.value_or(0);
  };
  add(transport_.rank());
  for (const int owner : places_.owners) add(owner);
}

/// Throws unless all ranks are in the same call, with the same sizes. Returns whether they see all they need.
bool HostGather::agree(const CallHeader& call, std::span<const Bytes> slices) {
  const auto self = static_cast<std::size_t>(transport_.rank());
  bool all_visible = true;
  if (places_.ranks_of.size() > 1) {
    const bool visible = reinterpret_cast<const Card*>(group_.own_card().data())->visible;
    for (std::size_t peer = 0; peer < slices.size(); ++peer) {
      mine_[peer].header = call;
      mine_[peer].header.sends_bytes = slices[self].size();
      mine_[peer].header.expects_bytes = slices[peer].size();
      mine_[peer].payload[0] = std::byte{visible};
    }
    theirs_[self] = mine_[self];
    swap_frames(
        transport_, [this](int peer) -> const Frame& { return mine_[static_cast<std::size_t>(peer)]; },
        theirs_, deadline());
    all_visible = std::ranges::all_of(theirs_, [](const Frame& f) { return f.payload[0] != std::byte{0}; });
  }
  group_.meet_in(call, deadline());
  for (std::size_t member = 0; member < group_.size(); ++member) {
    const Card& card = *reinterpret_cast<const Card*>(group_.card_of(member).data());
    const int rank = group_.rank_of(member);
    const std::size_t expected = slices[static_cast<std::size_t>(rank)].size();
    if (card.own_bytes != expected)
      fail(ExitCode::kPeer, "ranks {} and {} disagree: {} bytes of rank {} are expected, it brings {}",
           transport_.rank(), rank, expected, rank, card.own_bytes);
    all_visible = all_visible && card.visible;
    if (member != group_.self()) look_up(member);
  }
  return all_visible;
}

/// Finds the addresses of the slices that a member brings. Call before the next meeting, because the member's
/// card can be read only until then.
void HostGather::look_up(std::size_t member) {
  const Card& card = *reinterpret_cast<const Card*>(group_.card_of(member).data());
  if (!card.visible) return;
  const int rank = group_.rank_of(member);
  std::size_t at = 0;
  const auto find = [&](int owner) {
    sources_[static_cast<std::size_t>(owner)] = group_.memory().find(member, card.names[at++]);
  };
  find(rank);
  for (std::size_t h = 0; h < places_.ranks_of.size(); ++h) {
    if (h == places_.own_host) continue;
    for (const int owner : places_.ranks_of[h])
      if (agent_of(places_.own_ranks(), owner) == rank) find(owner);
  }
}

/// The own slice goes to one rank of each other host, or to all ranks.
void HostGather::send(std::span<const Bytes> slices, bool to_all) {
  const auto self = static_cast<std::size_t>(transport_.rank());
  std::vector<ConstBytes> sends(slices.size());
  std::vector<Bytes> recvs(slices.size());
  if (to_all) {
    std::ranges::fill(sends, slices[self]);
    std::ranges::copy(slices, recvs.begin());
    sends[self] = {};
    recvs[self] = {};
  } else {
    for (const int agent : places_.agents) sends[static_cast<std::size_t>(agent)] = slices[self];
    for (const int owner : places_.owners)
      recvs[static_cast<std::size_t>(owner)] = slices[static_cast<std::size_t>(owner)];
  }
  transport_.exchange(sends, recvs, deadline());
}

/// Copies the slices that other members of the host have brought into this rank's `slices`.
void HostGather::copy_from_host(std::span<const Bytes> slices) const {
  for (std::size_t rank = 0; rank < slices.size(); ++rank)
    if (sources_[rank] && !slices[rank].empty())
      std::memcpy(slices[rank].data(), sources_[rank], slices[rank].size());
}

}  // namespace trireme
