#include "distributed/comm/device_routes.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/memory.h"
#include "kernels/table.h"

namespace trireme {

namespace {

constexpr std::size_t kAlignment = 16;  // NCCL moves what begins elsewhere byte by byte

}  // namespace

DeviceRoutes::DeviceRoutes(DeviceTransport& transport, std::span<const int> hosts, int rank)
    : transport_(transport), rank_(rank), size_(static_cast<int>(hosts.size())), places_(hosts, rank) {
  for (const int peer : places_.own_ranks()) {
    std::vector<int>& owners = seen_to_by_.emplace_back(1, peer);
    const std::vector<int> far = HostPlaces(hosts, peer).owners;
    owners.insert(owners.end(), far.begin(), far.end());
  }
}

void DeviceRoutes::gather(std::span<const Bytes> slices, cuda::Stream stream) const {
  const auto of = [&](int rank) { return slices[static_cast<std::size_t>(rank)]; };
  const std::vector<int>& near = places_.own_ranks();
  Sends sends;
  Recvs recvs;
  for (const int peer : near) {
    if (peer == rank_) continue;
    sends.push_back({peer, of(rank_)});
    recvs.push_back({peer, of(peer)});
  }
  for (const int agent : places_.agents) sends.push_back({agent, of(rank_)});
  for (const int owner : places_.owners) recvs.push_back({owner, of(owner)});
  transport_.exchange(sends, recvs, stream);

  sends.clear();
  recvs.clear();
  for (std::size_t k = 0; k < near.size(); ++k) {
    if (near[k] == rank_) continue;
    for (const int owner : places_.owners) sends.push_back({near[k], of(owner)});
    for (const int owner : seen_to_by_[k])
      if (owner != near[k]) recvs.push_back({near[k], of(owner)});
  }
  transport_.exchange(sends, recvs, stream);
}

DeviceSum::DeviceSum(const DeviceRoutes& routes, std::shared_ptr<const HostPlan> plan, OrderedSum sum)
    : routes_(routes), plan_(std::move(plan)), sum_(std::move(sum)) {
  const auto add_share = [&](int owner) {
    shares_.push_back({owner, slice_of_rank(sum_, routes_.size_, owner), {}, {}, {}});
  };
  add_share(routes_.rank_);
  for (const int owner : routes_.places_.owners) add_share(owner);
  memory_ = std::make_unique<DeviceMemory>(Device{DeviceType::kCuda, 0}, lay_out(nullptr));
  lay_out(memory_->get());
}

std::pair<std::size_t, std::size_t> DeviceSum::parts_of(std::size_t n) const {
  const TreeNode node = own_nodes().nodes[n];
  const auto begins = [](const HostNodes::Part& part) { return part.node.first_shard(); };
  const auto& parts = own_nodes().parts;
  const auto first = std::ranges::lower_bound(parts, node.first_shard(), {}, begins),
             last = std::ranges::lower_bound(parts, node.first_shard() + (1L << node.level), {}, begins);
  return {first - parts.begin(), last - parts.begin()};
}

std::size_t DeviceSum::lay_out(std::byte* memory) {
  std::size_t used = 0;
  const auto take = [&](std::size_t bytes) {
    std::byte* const here = memory ? memory + used : nullptr;
    used += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return here;
  };
  const HostNodes& host = own_nodes();
  for (Share& share : shares_) {
    share = {share.owner, share.slice, {}, {}, {}};
    for (const HostNodes::Part& part : host.parts) {
      const bool here = routes_.places_.own_ranks()[part.owner] == routes_.rank_;
      share.rooms.push_back(here ? nullptr : take(bytes_of(share)));
      share.parts.push_back(here ? static_cast<const std::byte*>(sum_.partials[part.place]) +
                                       share.slice.first * size_of(sum_.dtype)
                                 : share.rooms.back());
    }
    if (share.owner == routes_.rank_) continue;
    for (std::size_t n = 0; n < host.nodes.size(); ++n) {
      const auto [first, last] = parts_of(n);
      share.merged.push_back(last - first > 1 ? take(bytes_of(share)) : nullptr);
    }
  }
  incoming_.assign(plan_->hosts.size(), {});
  for (std::size_t h = 0; h < plan_->hosts.size(); ++h)
    for (std::size_t n = 0; h != routes_.places_.own_host && n < plan_->hosts[h].nodes.size(); ++n)
      incoming_[h].push_back(take(bytes_of(shares_[0])));
  return used;
}

std::span<std::byte> DeviceSum::slice_of_out(int rank) const {
  const Slice slice = slice_of_rank(sum_, routes_.size_, rank);
  const std::size_t element = size_of(sum_.dtype);
  return {static_cast<std::byte*>(sum_.out) + slice.first * element, slice.count * element};
}

void DeviceSum::run(cuda::Stream stream) {
  collect_parts(stream);
  for (const Share& share : shares_) merge(share);
  exchange_nodes(stream);
  add_up();
  memory_.reset();
  if (sum_.own_slice_only) return;
  std::vector<Bytes> slices;
  for (int rank = 0; rank < routes_.size_; ++rank) slices.push_back(slice_of_out(rank));
  routes_.gather(slices, stream);
}

/// Each rank of the host gets the others' parts of the slices that it adds up.
void DeviceSum::collect_parts(cuda::Stream stream) const {
  const std::vector<int>& near = routes_.places_.own_ranks();
  const std::size_t element = size_of(sum_.dtype);
  DeviceRoutes::Sends sends;
  DeviceRoutes::Recvs recvs;
  for (std::size_t k = 0; k < near.size(); ++k) {
    if (near[k] == routes_.rank_) continue;
    for (const int owner : routes_.seen_to_by_[k]) {
      const Slice slice = slice_of_rank(sum_, routes_.size_, owner);
      for (const void* partial : sum_.partials)
        sends.push_back(
            {near[k],
             {static_cast<const std::byte*>(partial) + slice.first * element, slice.count * element}});
    }
  }
  for (const Share& share : shares_)
    for (std::size_t i = 0; i < share.rooms.size(); ++i)
      if (share.rooms[i])
        recvs.push_back({near[own_nodes().parts[i].owner], {share.rooms[i], bytes_of(share)}});
  routes_.transport_.exchange(sends, recvs, stream);
}

void DeviceSum::add(std::byte* to, const Share& share, std::span<const TreeNode> nodes,
                    std::span<const void* const> parts, int shards, float scale) const {
  const View out{to, sum_.dtype, 1, {static_cast<std::int64_t>(share.slice.count)}, {1}};
  kernels_of({DeviceType::kCuda, 0}).tree_sum(out, nodes, parts, shards, scale);
}

/// The sums of this host's nodes, each as a tree of its own.
void DeviceSum::merge(const Share& share) const {
  for (std::size_t n = 0; n < share.merged.size(); ++n) {
    if (!share.merged[n]) continue;
    const TreeNode top = own_nodes().nodes[n];
    const auto [first, last] = parts_of(n);
    std::vector<TreeNode> below;
    for (std::size_t i = first; i < last; ++i) {
      const TreeNode node = own_nodes().parts[i].node;
      below.push_back({node.level, node.index - (top.index << (top.level - node.level))});
    }
    const std::vector<const void*> parts(share.parts.begin() + static_cast<std::ptrdiff_t>(first),
                                         share.parts.begin() + static_cast<std::ptrdiff_t>(last));
    const long shards = std::min(sum_.shards - top.first_shard(), 1L << top.level);
    add(share.merged[n], share, below, parts, static_cast<int>(shards), 1);
  }
}

/// Owners of slices on other hosts get this host's nodes of them, and this rank those of its own.
void DeviceSum::exchange_nodes(cuda::Stream stream) const {
  const HostPlaces& places = routes_.places_;
  DeviceRoutes::Sends sends;
  DeviceRoutes::Recvs recvs;
  for (const Share& share : shares_)
    for (std::size_t n = 0; n < share.merged.size(); ++n)
      sends.push_back(
          {share.owner,
           {share.merged[n] ? share.merged[n] : share.parts[parts_of(n).first], bytes_of(share)}});
  for (std::size_t h = 0, other = 0; h < incoming_.size(); ++h) {
    if (h == places.own_host) continue;
    for (std::byte* const room : incoming_[h])
      recvs.push_back({places.agents[other], {room, bytes_of(shares_[0])}});
    ++other;
  }
  routes_.transport_.exchange(sends, recvs, stream);
}

void DeviceSum::add_up() const {
  std::vector<const void*> parts;
  for (const HostPlan::Source& source : plan_->sources)
    parts.push_back(source.host == routes_.places_.own_host ? shares_[0].parts[source.index]
                                                            : incoming_[source.host][source.index]);
  add(slice_of_out(routes_.rank_).data(), shares_[0], plan_->nodes, parts, sum_.shards, sum_.scale);
}

}  // namespace trireme
