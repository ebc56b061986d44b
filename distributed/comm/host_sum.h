// The sum of ordered_reduce.h for ranks that share hosts.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <vector>

#include "distributed/comm/agreement.h"
#include "distributed/comm/communicator.h"
#include "distributed/comm/host_group.h"
#include "distributed/comm/host_plan.h"
#include "distributed/comm/ordered_reduce.h"
#include "distributed/comm/transport.h"

namespace trireme {

/// Inside a host each rank sums its slice straight from where the others' partials lie, and writes it to
/// where each of them wants it: what must be read and written is, once. Between hosts the partials of a slice
/// are merged where siblings meet, sent to the slice's owner, and the sum comes back, once to each host.
/// Short vectors of ranks that are all of one host ride on the cards of their meeting. A rank whose buffers
/// the others do not see copies them through some that they do.
///
/// Used by one thread, that of the transport.
class HostSum {
 public:
  /// `patience` bounds each wait for peers.
  HostSum(Transport& transport, std::chrono::milliseconds patience);

  /// Computes the sum. Collective and blocking. Ranks must agree on `call`, on the number of shards and on
  /// the size. Throws the errors of Transport::exchange(), and Error(kPeer) if ranks disagree.
  void run(CallHeader call, const OrderedSum& sum);

 private:
  /// The addresses of the vectors of this host's ranks.
  struct Buffers {
    std::vector<const std::byte*> partials;  ///< in the order of HostNodes::parts
    std::vector<std::byte*> outs;            ///< results, by the rank's index on the host
    std::vector<bool> staged;                ///< by the rank's index: its vectors hold one piece at a time
  };
  /// Elements that are summed together: some of each rank's slice.
  struct Piece {
    const OrderedSum& sum;
    const Buffers& all;
    std::size_t staged_first;   ///< the first element in the vectors of staged ranks
    std::vector<Slice> slices;  ///< by rank: the elements that it sums, counted from the first of the vector
    std::size_t turn = 0;       ///< 0 or 1, in alternation: which of the two sets of message buffers it uses
  };
  struct Card;
  Card& own_card() const;
  const Card& card_of(std::size_t member) const;
  Deadline deadline() const { return std::chrono::steady_clock::now() + patience_; }
  bool is_one_host() const { return places_.ranks_of.size() == 1; }
  const std::vector<int>& own_ranks() const { return places_.own_ranks(); }
  const HostNodes& own_nodes() const { return plan_.hosts[places_.own_host]; }

  void sum_short(const CallHeader& call, const OrderedSum& sum);
  void sum_in_place(const CallHeader& call, const OrderedSum& sum);
  void show_buffers(const OrderedSum& sum, std::size_t stage_bytes);
  Buffers buffers_of_host() const;
  void send_frame(const CallHeader& call);

  std::vector<Slice> slices_of(const OrderedSum& sum, std::size_t first, std::size_t count) const;
  Slice slice_of(const Piece& piece, int rank) const { return piece.slices[static_cast<std::size_t>(rank)]; }
  std::byte* in(const Piece& piece, std::byte* vector, std::size_t owner, std::size_t element) const;
  void reduce(const Piece& whole);
  void begin_partials(const Piece& piece);
  void merge(const Piece& piece, Slice slice, std::byte* rows) const;
  void sum_slice(const Piece& piece);
  Bytes own_out(const Piece& piece, int rank) const;
  void begin_sums(const Piece& piece);
  void finish_sums(const Piece& piece);

  Transport& transport_;
  const std::chrono::milliseconds patience_;
  HostGroup& group_;
  const HostPlaces places_;
  HostPlan plan_;
  Frame mine_;
  std::vector<Frame> theirs_;         ///< by rank
  std::shared_ptr<std::byte> stage_;  ///< visible: room for pieces of partials and result
  /// Message buffers, by turn. merged_ holds, in the order of places_.owners, the rows that this host sends
  /// to each owner. received_ holds, by host, the rows of this rank's slice that come from there.
  std::array<std::vector<std::vector<std::byte>>, 2> merged_, received_;
};

}  // namespace trireme
