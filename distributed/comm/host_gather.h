// The all-gather for ranks that share hosts.
#pragma once

#include <chrono>
#include <span>
#include <vector>

#include "distributed/comm/agreement.h"
#include "distributed/comm/host_group.h"
#include "distributed/comm/host_plan.h"
#include "distributed/comm/transport.h"

namespace trireme {

/// A slice crosses once to each other host, and inside a host every rank copies from where it lies. That
/// needs slices in memory that the host's ranks see (Communicator::allocate()); others travel by messages.
///
/// Used by one thread, that of the transport.
class HostGather {
 public:
  /// `patience` bounds each wait for peers.
  HostGather(Transport& transport, std::chrono::milliseconds patience);

  /// Whether any host has several ranks.
  bool shares_hosts() const { return places_.ranks_of.size() < mine_.size(); }
  /// Whether slices of these sizes are worth it; all ranks that agree on sizes answer alike.
  bool serves(std::span<const Bytes> slices) const;
  /// Collective and blocking: slices[r] is filled on rank r beforehand, on all ranks afterwards. Throws as
  /// Transport::exchange(), and Error(kPeer) where ranks disagree.
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
      sources_;  ///< where other members of the host have its slice; null: it is here
};

}  // namespace trireme
