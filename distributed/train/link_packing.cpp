#include "distributed/train/link_packing.h"

#include <fmt/format.h>

namespace trireme {

namespace {

/// Bytes a second of a sum from which on packing takes longer than what it saves.
constexpr double kFastLink = 300e6;
constexpr int kFirst = 3, kSteps = 8;  // the first ones plan buckets and make connections
constexpr int kShareToWait = 4;        // one of so many parts

}  // namespace

LinkPacking::LinkPacking(HostCommunicator& comm, const std::string& wish, const LinkCost& link)
    : comm_(&comm),
      before_(comm.traffic()),
      undecided_(wish == "auto" && link.bytes_per_second > 0 && link.bytes_per_second < kFastLink) {
  if (!comm.spans_hosts()) undecided_ = false;
  if (wish == "on") comm.pack_messages(true);
}

void LinkPacking::observe(std::chrono::nanoseconds step, std::chrono::nanoseconds waited) {
  if (!undecided_ || ++steps_ < kFirst) return;
  time_ += step;
  waited_ += waited;
  if (steps_ < kSteps) return;
  undecided_ = false;
  if (kShareToWait * waited_ <= time_) return;
  before_ = comm_->traffic();
  comm_->pack_messages(true);
}

std::string LinkPacking::text() const {
  const Transport::Traffic now = comm_ ? comm_->traffic() : Transport::Traffic();
  const double plain = static_cast<double>(now.plain - before_.plain),
               sent = static_cast<double>(now.sent - before_.sent);
  if (sent == plain) return "";
  return fmt::format("rank 0 sent {:.1f} MB to other hosts as {:.1f}", plain / 1e6, sent / 1e6);
}

}  // namespace trireme
