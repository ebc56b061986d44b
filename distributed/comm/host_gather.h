// HostGather is the all-gather for several ranks per node.
#pragma once

#include <chrono>
#include <span>
#include <vector>

#include "distributed/comm/agreement.h"
#include "distributed/comm/host_group.h"
#include "distributed/comm/host_plan.h"
#include "distributed/comm/transport.h"

namespace trireme {

/// Sends a slice once to each other node; on a node, every rank copies it from the memory where it is. This
/// needs slices in memory that the node's ranks share (Communicator::allocate()). Other slices are sent as
/// messages.
///
/// Only the transport's thread may use it.
class HostGather {
 public:
  /// `patience` bounds each wait for peers.
  HostGather(Transport& transport, std::chrono::milliseconds patience);

  /// Returns true if any node has several ranks.
  bool shares_hosts() const { return places_.ranks_of.size() < mine_.size(); }
  /// Returns true if slices of these sizes should be gathered by run(). All ranks with the same sizes get the
  /// same result.
  bool serves(std::span<const Bytes> slices) const;
  /// Sends slices[r] of rank r to all ranks. Collective and blocking. Throws the errors of
  /// Transport::exchange(), and Error(kPeer) if ranks are in different calls.
  void run(CallHeader call, std::span<const Bytes> slices);

 private:
  struct Card;
  Deadline deadline() const { return std::chrono::steady_clock::now() + patience_; }
  void show(std::span<const Bytes> slices) const;
  bool agree(const CallHeader& call, std::span<const Bytes> slices);
  void send(std::span<const Bytes> slices, bool to_all);
  void look_up(std::size_t member);
  void copy_from_host(std::span<const Bytes> slices) const;

  Transport& transport_;
  const std::chrono::milliseconds patience_;
  HostGroup& group_;
  const HostPlaces places_;
  // By rank.
  std::vector<Frame> mine_, theirs_;
  std::vector<const std::byte*>
      sources_;  ///< address of a slice in another member's memory; null: it is here
};

}  // namespace trireme
