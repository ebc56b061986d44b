// HostCommunicator implements collectives on CPUs with one thread and a Transport.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "distributed/comm/agreement.h"
#include "distributed/comm/communicator.h"
#include "distributed/comm/host_gather.h"
#include "distributed/comm/host_sum.h"
#include "distributed/comm/transport.h"
#include "distributed/comm/work_queue.h"

namespace trireme {

/// A Communicator whose queue is a thread. Only that thread uses the transport, so collectives make progress
/// without the caller's thread.
class HostCommunicator final : public Communicator {
 public:
  /// `patience` bounds each wait for peers.
  HostCommunicator(std::unique_ptr<Transport> transport, std::chrono::milliseconds patience);

  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }
  std::string_view backend() const override { return transport_->backend(); }
  std::vector<int> hosts() const override { return transport_->hosts(); }
  Event all_to_all(std::span<const ConstBytes> sends, std::span<const Bytes> recvs,
                   std::string label) override;
  Event all_gather(std::span<const Bytes> slices, std::string label) override;
  Event all_gather_each(std::vector<std::vector<Bytes>> sets, std::function<void(std::size_t)> arrived,
                        std::string label) override;
  Event all_reduce_fastest(Bytes data, DType dtype, std::string label) override;
  std::shared_ptr<std::byte> allocate(std::size_t bytes) override;
  Event sum(OrderedSum sum, std::string label) override;
  Event broadcast(Bytes data, int root, std::string label) override;
  Event barrier(std::string label) override;
  Event run(std::function<void()> fn, std::string label) override;
  std::unique_ptr<Communicator> split(int color) override;
  void abort(const std::string& reason) override;

  /// Turns packing on or off for later calls, as Transport::pack_messages() does.
  void pack_messages(bool on);
  Transport::Traffic traffic() const { return transport_->traffic(); }
  /// Returns true if the ranks are on more than one node.
  bool spans_hosts() const;
  /// Traces all later calls.
  void set_trace(JobTrace trace) { queue_.set_trace(std::move(trace)); }

 private:
  struct Call {
    Collective op;
    const std::string& label;
    std::uint64_t total_bytes = 0;
    int root = -1;
  };
  Event push(Collective op, std::string label, std::size_t bytes, std::function<void(Call)> work);
  CallHeader header_of(const Call& call) const;
  void exchange_agreed(const Call& call, std::span<const ConstBytes> sends, std::span<const Bytes> recvs);
  void gather_each_now(const Call& call, const std::vector<std::vector<Bytes>>& sets,
                       const std::function<void(std::size_t)>& arrived);
  void send_frames(const Call& call, std::span<const ConstBytes> sends, std::span<const Bytes> recvs);
  void broadcast_now(const Call& call, Bytes data);
  Deadline deadline() const { return std::chrono::steady_clock::now() + patience_; }

  std::unique_ptr<Transport> transport_;
  HostSum sum_;
  HostGather gather_;
  std::chrono::milliseconds patience_;
  // Only the queue's thread uses the following members.
  std::uint64_t sequence_ = 0;
  std::vector<Frame> outgoing_;
  std::vector<Frame> incoming_;
  // This is the last member, because its destructor runs the remaining calls, which use the other members.
  WorkQueue queue_;
};

/// Returns a communicator for a world of one rank. Its collectives at most copy, in queue order. backend() is
/// "alone".
std::unique_ptr<HostCommunicator> make_alone_communicator();

}  // namespace trireme
