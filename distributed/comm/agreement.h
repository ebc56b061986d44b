// Ranks check that they are in the same collective before data is exchanged.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "distributed/comm/transport.h"

namespace trireme {

enum class Collective : std::uint32_t {
  kAllToAll,
  kAllGather,
  kAllReduceFastest,
  kBroadcast,
  kBarrier,
  kSum
};

/// Returns the name of the Communicator's method, for example "all_to_all".
std::string_view name_of(Collective op);

/// One rank's description of its current call, for one peer. It is sent as plain bytes, because all ranks run
/// the same program.
struct CallHeader {
  std::uint64_t sequence = 0;  ///< number of earlier collectives on this communicator
  Collective op{};
  std::int32_t root = -1;           ///< root of a broadcast, or the number of shards of a sum
  std::uint64_t total_bytes = 0;    ///< size of a broadcast or sum, equal on all ranks
  std::uint64_t sends_bytes = 0;    ///< bytes that the header's sender sends to its receiver
  std::uint64_t expects_bytes = 0;  ///< bytes that the sender expects from the receiver
  std::uint64_t label_hash = 0;
  std::array<char, 64> label{};  ///< for error messages: truncated, and terminated by a zero

  void set_label(std::string_view text);
};

/// A header with room for a small message, so that a small collective needs only one message per peer.
struct Frame {
  static constexpr std::size_t kRoom = 512 - sizeof(CallHeader);
  CallHeader header;
  std::array<std::byte, kRoom> payload;
};
static_assert(std::is_trivially_copyable_v<Frame> && sizeof(Frame) == 512);

/// Throws Error(kPeer), which names both ranks and both calls, unless both headers describe the same call.
/// `rank` sent `mine` to `peer`, and `peer` sent `theirs` to `rank`.
void check_agreement(int rank, const CallHeader& mine, int peer, const CallHeader& theirs);

/// Sends frame_for(r) to each other rank r, receives theirs[r], and then checks that all ranks are in the
/// same call. The frames must live until this returns. Throws the errors of Transport::exchange() and
/// check_agreement().
void swap_frames(Transport& transport, const std::function<const Frame&(int rank)>& frame_for,
                 std::span<Frame> theirs, Deadline deadline);

}  // namespace trireme
