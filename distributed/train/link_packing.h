// When messages between hosts travel packed.
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
  /// `wish` is --compress-links. Of a communicator of one host, nothing is packed.
  LinkPacking(HostCommunicator& comm, const std::string& wish, const LinkCost& link);
  /// A step is over that took so long, of which the rank has waited for communication.
  void observe(std::chrono::nanoseconds step, std::chrono::nanoseconds waited);
  /// What was gained since packing began, for rank 0 to say: "rank 0 sent 3.7 MB to other hosts as 3.2", or
  /// nothing.
  std::string text() const;

 private:
  HostCommunicator* comm_ = nullptr;
  Transport::Traffic before_;  // when packing began
  bool undecided_ = false;
  int steps_ = 0;
  std::chrono::nanoseconds time_{0}, waited_{0};
};

}  // namespace trireme
