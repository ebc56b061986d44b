// The ways of vectors between GPUs of several hosts.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "distributed/comm/device_communicator.h"
#include "distributed/comm/host_plan.h"
#include "distributed/comm/memory.h"
#include "distributed/comm/ordered_reduce.h"

namespace trireme {

/// Ranks of one host are near each other (NVLink), hosts are far apart. So what is meant for a slice's owner
/// is first added up inside each host, by one rank there, its agent; and what the owner hands out crosses
/// once to each other host, to its agent, who hands it on. Between hosts a rank then sends as little as in a
/// ring that knows of hosts, and the bits are those of the tree however ranks are placed.
class DeviceRoutes {
 public:
  /// `hosts`: by rank, the lowest rank of its host.
  DeviceRoutes(DeviceTransport& transport, std::span<const int> hosts, int rank);

  HostPlan plan(int shards) const { return plan_hosts(shards, places_.ranks_of, places_.own_host); }
  /// slices[r] goes from rank r to all others, by work given to `stream`.
  void gather(std::span<const Bytes> slices, cuda::Stream stream) const;

 private:
  friend class DeviceSum;
  using Sends = std::vector<DeviceTransport::Send>;
  using Recvs = std::vector<DeviceTransport::Recv>;

  DeviceTransport& transport_;
  const int rank_, size_;
  const HostPlaces places_;
  /// By rank of the own host: the owners whose slices that rank sees to, itself first.
  std::vector<std::vector<int>> seen_to_by_;
};

/// One sum over shards, as ordered_sum() describes it, on the way that `routes` are.
class DeviceSum {
 public:
  /// Takes memory of the stream that this thread works on.
  DeviceSum(const DeviceRoutes& routes, std::shared_ptr<const HostPlan> plan, OrderedSum sum);
  /// Gives all of it to that same stream, which kernels of this thread go to; then the memory goes back, in
  /// the order of the stream. Once.
  void run(cuda::Stream stream);

 private:
  /// A slice that this rank adds up, for its host or for all.
  struct Share {
    int owner;
    Slice slice;
    std::vector<std::byte*>
        rooms;  ///< by part of this host: memory that receives it; null: this rank owns the part
    std::vector<const std::byte*> parts;  ///< by part of this host: its address after collect_parts()
    std::vector<std::byte*> merged;  ///< by node of this host: memory for its sum; null: the node is one part
  };

  std::size_t bytes_of(const Share& share) const { return share.slice.count * size_of(sum_.dtype); }
  std::span<std::byte> slice_of_out(int rank) const;
  const HostNodes& own_nodes() const { return plan_->hosts[routes_.places_.own_host]; }
  /// Gives all that comes in or is made on the way a place from `memory` on. Returns the bytes that takes:
  /// null only counts them.
  std::size_t lay_out(std::byte* memory);
  void collect_parts(cuda::Stream stream) const;
  void merge(const Share& share) const;
  void exchange_nodes(cuda::Stream stream) const;
  void add_up() const;
  void add(std::byte* to, const Share& share, std::span<const TreeNode> nodes,
           std::span<const void* const> parts, int shards, float scale) const;
  /// Parts [first, last) of this host are what its node n consists of.
  std::pair<std::size_t, std::size_t> parts_of(std::size_t n) const;

  const DeviceRoutes& routes_;
  const std::shared_ptr<const HostPlan> plan_;
  const OrderedSum sum_;
  std::vector<Share> shares_;                      ///< the own one first
  std::vector<std::vector<std::byte*>> incoming_;  ///< by host and node there: of the own slice
  std::unique_ptr<DeviceMemory> memory_;
};

}  // namespace trireme
