// The sum of ordered_reduce.h through memory that all ranks see.
#pragma once

#include <memory>
#include <vector>

#include "distributed/comm/agreement.h"
#include "distributed/comm/communicator.h"
#include "distributed/comm/host_group.h"
#include "kernels/tree.h"

namespace trireme {

/// Each rank sums its slice of the vector straight from where the others' partials lie, and writes it to
/// where each of them wants it: what must be read and written is, once. Vectors of a few bytes ride on the
/// cards of the meeting. A rank whose buffers the others do not see copies them through some that they do.
///
/// Of a group that has all ranks of a communicator; used by one thread.
class MemorySum {
 public:
  explicit MemorySum(HostGroup& group) : group_(group) {}

  /// Collective and blocking. `call` is what ranks agree on, beside shards and size. Throws as
  /// Transport::exchange(), and Error(kPeer) where ranks disagree.
  void run(CallHeader call, const OrderedSum& sum, Deadline deadline);

 private:
  /// The nodes of all ranks, in shard order, and whose they are.
  struct Tree {
    int shards = 0;
    std::vector<TreeNode> nodes;
    std::vector<std::size_t> owners, places;  ///< of each: member, and number among that member's
    std::size_t most = 0;                     ///< nodes of one rank
  };
  /// Where everybody's vectors lie.
  struct Buffers {
    std::vector<const std::byte*> partials;  ///< by node
    std::vector<std::byte*> outs;            ///< by member
    std::vector<bool> staged;                ///< by member: these have a piece at a time
  };
  struct Card;
  const Tree& tree_of(int shards);
  Card& own_card() const;
  const Card& card_of(std::size_t member) const;
  void sum_cards(const CallHeader& call, const OrderedSum& sum, Deadline deadline);
  void sum_in_place(const CallHeader& call, const OrderedSum& sum, Deadline deadline);
  void show_buffers(const OrderedSum& sum, std::size_t stage_bytes);
  Buffers buffers_of_all() const;
  void sum_slice(const OrderedSum& sum, const Buffers& all, std::size_t first, std::size_t count) const;

  HostGroup& group_;
  Tree tree_;
  std::shared_ptr<std::byte> stage_;  ///< visible: room for pieces of partials and result
};

}  // namespace trireme
