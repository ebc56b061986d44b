// Decides when messages between nodes are packed.
#pragma once

#include <chrono>
#include <string>

#include "distributed/comm/host_communicator.h"
#include "distributed/comm/link_cost.h"

namespace trireme {

/// Packing (Transport::pack_messages()) takes processor time of who sends, and less of who receives, which is
/// there while ranks wait. By itself it begins once a rank has waited for more than a quarter of its first
/// steps, over a link slower than packing. It changes no bits, so each rank decides alone.
class LinkPacking {
 public:
  LinkPacking() = default;
  /// `wish` is the value of --compress-links. Nothing is packed if all ranks are on one node.
  LinkPacking(HostCommunicator& comm, const std::string& wish, const LinkCost& link);
  /// Records a finished step: its duration, and the part of it in which the rank waited for communication.
  void observe(std::chrono::nanoseconds step, std::chrono::nanoseconds waited);
  /// Returns what packing has saved so far, or an empty text. Rank 0 prints it, for example "rank 0 sent 3.7
  /// MB to other hosts as 3.2".
  std::string text() const;

 private:
  HostCommunicator* comm_ = nullptr;
  Transport::Traffic before_;  // when packing began
  bool undecided_ = false;
  int steps_ = 0;
  std::chrono::nanoseconds time_{0}, waited_{0};
};

}  // namespace trireme
