// Implements collectives on GPUs. A CPU communicator checks each call, and a library moves device memory.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "distributed/comm/communicator.h"
#include "distributed/comm/transport.h"

namespace trireme {

namespace cuda {
class Mark;
using Stream = struct OpaqueStream*;
}  // namespace cuda

/// Moves device memory between ranks by work that it enqueues on a stream. Only one thread may use it, except
/// for check() and abort(). Throws Error(kPeer) if the library reports a failure.
class DeviceTransport {
 public:
  virtual ~DeviceTransport() = default;
  virtual std::string_view backend() const = 0;  ///< "nccl"
  struct Send {
    int to;
    ConstBytes data;
  };
  struct Recv {
    int from;
    Bytes data;
  };
  /// Enqueues all messages at once. Sender and receiver list the messages between them in the same order and
  /// with the same lengths. An empty message moves nothing.
  virtual void exchange(std::span<const Send> sends, std::span<const Recv> recvs, cuda::Stream stream) = 0;
  virtual void broadcast(Bytes data, int root, cuda::Stream stream) = 0;
  /// Enqueues a sum in place. The library chooses the order of the additions.
  virtual void all_reduce(Bytes data, DType dtype, cuda::Stream stream) = 0;
  /// Throws the error of enqueued work, if there is one. Any thread may call this.
  virtual void check() = 0;
  /// Ends all work in flight, so that streams continue. No other call is allowed afterwards. Any thread may
  /// call this.
  virtual void abort() noexcept = 0;
};

class DeviceRoutes;
class Failure;
class Marks;
struct HostPlan;

/// Works beside a communicator of the same ranks for hosts, whose queue it shares: there ranks agree on each
/// call, as they do on calls for hosts, before it is given to this communicator's own CUDA stream. So a
/// mismatch is found before a GPU waits for it. A call begins when the work is done that the caller's stream
/// has by then; its event is done when the GPU is. A thread watches: work that others keep from its end for
/// longer than the patience is ended, so that nobody waits for the GPU for ever, in whatever call of CUDA's.
///
/// A world of one has nobody to agree with or to wait for: its calls go to the caller's stream at once, and
/// so into the caller's CUDA graphs.
class DeviceCommunicator final : public Communicator {
 public:
  /// `host` must outlive this object, or `owned` must own it. `transport` is null in a world of one rank.
  /// `patience` bounds each Event::wait().
  DeviceCommunicator(Communicator& host, std::shared_ptr<DeviceTransport> transport,
                     std::chrono::milliseconds patience, std::unique_ptr<Communicator> owned = nullptr);
  ~DeviceCommunicator() override;

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  std::string_view backend() const override { return transport_ ? transport_->backend() : "alone"; }
  std::vector<int> hosts() const override { return host_.hosts(); }
  Device device() const override { return {DeviceType::kCuda, 0}; }
  Communicator& host() override { return host_; }
  Event all_to_all(std::span<const ConstBytes> sends, std::span<const Bytes> recvs,
                   std::string label) override;
  Event all_gather(std::span<const Bytes> slices, std::string label) override;
  Event all_reduce_fastest(Bytes data, DType dtype, std::string label) override;
  Event sum(OrderedSum sum, std::string label) override;
  Event broadcast(Bytes data, int root, std::string label) override;
  Event barrier(std::string label) override;
  Event run(std::function<void()> fn, std::string label) override;
  void mark() override;
  std::unique_ptr<Communicator> split(int color) override;
  void abort(const std::string& reason) override;

 private:
  Event launch(std::function<void()> work, std::string label);
  Event launch_alone(const std::function<void()>& work, std::string what);
  void watch(const std::stop_token& stop);

  const std::unique_ptr<Communicator> owned_;
  Communicator& host_;
  const std::shared_ptr<DeviceTransport> transport_;
  const std::unique_ptr<const DeviceRoutes> routes_;  ///< null for a world of one
  std::shared_ptr<const HostPlan> plan_;              ///< the plan of the last sum
  const std::chrono::milliseconds patience_;
  const std::shared_ptr<Marks> marks_;  ///< null unless the world has one rank
  // Used only in a world of several ranks.
  const std::shared_ptr<Failure> failure_;
  const cuda::Stream stream_;
  struct Kept {
    std::string what;
    Event launched, done;
    std::shared_ptr<cuda::Mark> before, finished;
    std::shared_ptr<const std::function<void()>> work;
  };
  std::mutex kept_mutex_;
  std::deque<Kept> kept_;  // until their work is done
  std::jthread watch_;     // ends before what it looks at
};

/// Gives this process the GPU of its place among the `ranks_here` ranks of its host; before any other use of
/// a GPU. Throws Error(kUsage) if there are fewer GPUs than ranks, unless ranks may `share` them.
void take_gpu(int rank, int local_rank, int ranks_here, bool share);

/// Returns a communicator on GPUs that uses NCCL. A world of one rank needs no library. Collective over
/// `host`. Throws Error(kUsage) if this build or machine does not support it.
std::unique_ptr<Communicator> make_device_communicator(Communicator& host,
                                                       std::chrono::milliseconds patience);

/// Returns a transport that uses NCCL. Collective over `host`. `patience` bounds each wait for peers.
std::shared_ptr<DeviceTransport> make_nccl_transport(Communicator& host, std::chrono::milliseconds patience);

}  // namespace trireme
