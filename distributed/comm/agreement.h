// How ranks make sure that they are in the same call before data moves.
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

/// "all_to_all", ...: the method's name.
std::string_view name_of(Collective op);

/// What one rank tells one peer about the call it is in. Plain bytes: all ranks run the same program.
struct CallHeader {
  std::uint64_t sequence = 0;  ///< collectives made on this communicator before this one
  Collective op{};
  std::int32_t root = -1;           ///< broadcast; of a sum, the number of shards
  std::uint64_t total_bytes = 0;    ///< broadcast and sums: the size all ranks must have
  std::uint64_t sends_bytes = 0;    ///< from the writer to the reader of this header
  std::uint64_t expects_bytes = 0;  ///< from the reader to the writer
  std::uint64_t label_hash = 0;
  std::array<char, 64> label{};  ///< cut to fit, ended by a zero: for the error message

  void set_label(std::string_view text);
};

/// The header with room for a small message, so that small collectives take one message per peer.
struct Frame {
  static constexpr std::size_t kRoom = 512 - sizeof(CallHeader);
  CallHeader header;
  std::array<std::byte, kRoom> payload;
};
static_assert(std::is_trivially_copyable_v<Frame> && sizeof(Frame) == 512);

/// Throws Error(kPeer), which names both ranks and both calls, unless both headers are of the same call:
/// `mine` is what `rank` sent to `peer`, `theirs` what `peer` sent to `rank`.
void check_agreement(int rank, const CallHeader& mine, int peer, const CallHeader& theirs);

/// Sends frame_for(r) to each other rank r and receives theirs[r], all at once, then checks that all are in
/// the same call. Frames live until it returns. Throws as Transport::exchange() and check_agreement().
void swap_frames(Transport& transport, const std::function<const Frame&(int rank)>& frame_for,
                 std::span<Frame> theirs, Deadline deadline);

}  // namespace trireme
