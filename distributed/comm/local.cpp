#include "distributed/comm/local.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <fmt/ranges.h>

#include "distributed/comm/host_communicator.h"
#include "distributed/comm/host_group.h"

namespace trireme {

namespace {

// A message on its way: the sender's own buffer, which the receiver copies from.
struct Mailbox {
  enum State { kEmpty, kPosted, kBeingCopied };
  State state = kEmpty;
  ConstBytes message;
};

struct LocalWorld {
  explicit LocalWorld(int ranks)
      : size(ranks),
        changed(ranks),
        interrupted(ranks),
        boxes(static_cast<std::size_t>(ranks) * static_cast<std::size_t>(ranks)) {}

  Mailbox& box(int from, int to) {
    return boxes[static_cast<std::size_t>(from) * static_cast<std::size_t>(size) +
                 static_cast<std::size_t>(to)];
  }

  const int size;
  std::mutex mutex;                              // guards all below
  std::vector<std::condition_variable> changed;  // changed[r]: something that rank r may wait for
  std::vector<char> interrupted;
  std::vector<Mailbox> boxes;
  int failed_rank = -1;
  std::string reason;
};

/// The objects that connect the ranks of one process. Each rank moves its own group out of `groups`.
struct LocalParts {
  explicit LocalParts(const std::vector<int>& by_rank)
      : hosts(by_rank),
        world(std::make_shared<LocalWorld>(static_cast<int>(hosts.size()))),
        groups(hosts.size()) {
    std::map<int, std::vector<int>> ranks_of;
    for (std::size_t rank = 0; rank < hosts.size(); ++rank)
      ranks_of[hosts[rank]].push_back(static_cast<int>(rank));
    for (const auto& [host, members] : ranks_of) {
      auto made = make_thread_groups(members);
      for (std::size_t i = 0; i < members.size(); ++i)
        groups[static_cast<std::size_t>(members[i])] = std::move(made[i]);
    }
  }
  const std::vector<int> hosts;  ///< by rank, the lowest rank of its host
  const std::shared_ptr<LocalWorld> world;
  std::vector<std::unique_ptr<HostGroup>> groups;
};

class LocalTransport final : public Transport {
 public:
  LocalTransport(LocalParts& parts, int rank)
      : LocalTransport(parts.world, rank, parts.hosts,
                       std::move(parts.groups[static_cast<std::size_t>(rank)])) {}
  LocalTransport(std::shared_ptr<LocalWorld> world, int rank, std::vector<int> hosts,
                 std::unique_ptr<HostGroup> group)
      : Transport(rank, world->size, "local"), world_(std::move(world)) {
    set_hosts(std::move(hosts), std::move(group));
  }

  void exchange(std::span<const ConstBytes> sends, std::span<const Bytes> recvs, Deadline deadline) override {
    std::vector<ConstBytes> messages(sends.begin(), sends.end());
    packed_.resize(messages.size());
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank()) messages[peer] = outgoing(peer, sends[peer], packed_[peer]);
    std::unique_lock lock(world_->mutex);
    post(messages);
    try {
      receive(lock, recvs, deadline);
      await(lock, deadline, [this](int peer) { return world_->box(rank(), peer).state != Mailbox::kEmpty; });
    } catch (...) {
      withdraw(lock);
      throw;
    }
  }

  void all_reduce(Bytes data, DType dtype, Deadline deadline) override {
    all_reduce_by_exchange(data, dtype, deadline);
  }

  std::unique_ptr<Transport> split(const std::vector<int>& members, Deadline deadline) override {
    // The first one makes what the others share, and hands each a handle of its own.
    const auto self = static_cast<std::size_t>(std::ranges::find(members, rank()) - members.begin());
    std::vector<std::shared_ptr<LocalParts>*> handles(members.size());
    std::vector<ConstBytes> sends(static_cast<std::size_t>(size()));
    std::vector<Bytes> recvs(sends.size());
    const auto place = [&](std::size_t member) { return static_cast<std::size_t>(members[member]); };
    if (self == 0) {
      const auto parts = std::make_shared<LocalParts>(hosts_among(members));
      for (std::size_t i = 0; i < members.size(); ++i) {
        handles[i] = new std::shared_ptr<LocalParts>(parts);
        if (i > 0) sends[place(i)] = std::as_bytes(std::span(&handles[i], 1));
      }
    } else {
      recvs[place(0)] = std::as_writable_bytes(std::span(&handles[self], 1));
    }
    exchange(sends, recvs, deadline);
    const std::unique_ptr<std::shared_ptr<LocalParts>> mine(handles[self]);
    return std::make_unique<LocalTransport>(**mine, static_cast<int>(self));
  }

  void announce(const std::string& reason) noexcept override {
    std::lock_guard lock(world_->mutex);
    if (world_->failed_rank < 0) {
      world_->failed_rank = rank();
      world_->reason = reason;
    }
    for (auto& changed : world_->changed) changed.notify_all();
    group().announce(reason, rank());
  }

  void interrupt() noexcept override {
    std::lock_guard lock(world_->mutex);
    world_->interrupted[rank()] = true;
    group().interrupt();
    world_->changed[rank()].notify_all();
  }

 private:
  void post(std::span<const ConstBytes> sends) {
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank() || sends[peer].empty()) continue;
      world_->box(rank(), peer) = {Mailbox::kPosted, sends[peer]};
      world_->changed[peer].notify_all();
    }
  }

  void receive(std::unique_lock<std::mutex>& lock, std::span<const Bytes> recvs, Deadline deadline) {
    std::vector<int> missing;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank() && !recvs[peer].empty()) missing.push_back(peer);
    }
    const auto posted = [this](int peer) { return world_->box(peer, rank()).state == Mailbox::kPosted; };
    while (!missing.empty()) {
      const auto ready = std::ranges::find_if(missing, posted);
      if (ready == missing.end()) {
        wait(lock, deadline, missing);
      } else {
        take(lock, *ready, recvs[*ready]);
        missing.erase(ready);
      }
    }
  }

  // Copies without the lock, so that ranks copy side by side.
  void take(std::unique_lock<std::mutex>& lock, int peer, Bytes to) {
    Mailbox& box = world_->box(peer, rank());
    const std::size_t came = box.message.size();
    box.state = Mailbox::kBeingCopied;
    lock.unlock();
    const bool fits = incoming(box.message, to);
    lock.lock();
    box.state = Mailbox::kEmpty;
    world_->changed[peer].notify_all();
    if (!fits) fail_length(peer, came, to.size());
  }

  // Waits until `missing` holds for no peer.
  template <class Missing>
  void await(std::unique_lock<std::mutex>& lock, Deadline deadline, Missing missing) {
    for (;;) {
      std::vector<int> peers;
      for (int peer = 0; peer < size(); ++peer) {
        if (missing(peer)) peers.push_back(peer);
      }
      if (peers.empty()) return;
      wait(lock, deadline, peers);
    }
  }

  // Waits for one change; throws if there is no hope.
  void wait(std::unique_lock<std::mutex>& lock, Deadline deadline, const std::vector<int>& peers) {
    if (world_->interrupted[rank()]) fail(ExitCode::kPeer, "interrupted");
    if (world_->failed_rank >= 0 && world_->failed_rank != rank()) {
      throw SecondaryError(world_->failed_rank,
                           fmt::format("rank {} reports: {}", world_->failed_rank, world_->reason));
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      fail(ExitCode::kPeer, "no answer from rank {}: it has failed, is stuck, or needs more --patience",
           fmt::join(peers, ", "));
    }
    world_->changed[rank()].wait_until(lock, deadline);
  }

  // Takes back what nobody has begun to copy. A copy that has begun is short and needs no deadline.
  void withdraw(std::unique_lock<std::mutex>& lock) {
    for (int peer = 0; peer < size(); ++peer) {
      Mailbox& box = world_->box(rank(), peer);
      world_->changed[rank()].wait(lock, [&] { return box.state != Mailbox::kBeingCopied; });
      box.state = Mailbox::kEmpty;
    }
  }

  std::shared_ptr<LocalWorld> world_;
  std::vector<std::vector<std::byte>> packed_;  // by peer
};

// The first error, where a cause goes before a consequence.
class FirstError {
 public:
  void record(const std::exception_ptr& error, bool secondary) {
    std::lock_guard lock(mutex_);
    std::exception_ptr& slot = secondary ? secondary_ : primary_;
    if (!slot) slot = error;
  }

  void rethrow() const {
    if (primary_) std::rethrow_exception(primary_);
    if (secondary_) std::rethrow_exception(secondary_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr primary_;
  std::exception_ptr secondary_;
};

void run_rank(Communicator& comm, const std::function<void(Communicator&)>& body, FirstError& errors) {
  try {
    body(comm);
  } catch (const SecondaryError& e) {
    errors.record(std::current_exception(), true);
    comm.abort(e.what());
  } catch (const std::exception& e) {
    errors.record(std::current_exception(), false);
    comm.abort(e.what());
  } catch (...) {
    errors.record(std::current_exception(), false);
    comm.abort("an exception of unknown type");
  }
}

}  // namespace

void run_local_ranks(int ranks, std::chrono::milliseconds patience,
                     const std::function<void(Communicator&)>& body, const LocalHosts& host_of) {
  if (ranks < 1) fail(ExitCode::kUsage, "local ranks: needs at least 1, got {}", ranks);
  std::map<int, int> first_of;  // rank of each host
  std::vector<int> hosts;
  for (int rank = 0; rank < ranks; ++rank)
    hosts.push_back(first_of.try_emplace(host_of ? host_of(rank) : 0, rank).first->second);
  LocalParts parts(hosts);
  std::vector<std::unique_ptr<HostCommunicator>> comms;
  for (int rank = 0; rank < ranks; ++rank)
    comms.push_back(
        std::make_unique<HostCommunicator>(std::make_unique<LocalTransport>(parts, rank), patience));
  FirstError errors;
  {
    std::vector<std::jthread> threads;
    for (auto& comm : comms) threads.emplace_back([&] { run_rank(*comm, body, errors); });
  }
  comms.clear();
  errors.rethrow();
}

}  // namespace trireme
