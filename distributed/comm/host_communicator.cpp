#include "distributed/comm/host_communicator.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

namespace trireme {

namespace {

using namespace std::chrono_literals;

// Above this size a broadcast is a scatter and a gather, so that the root sends the data once or twice
// rather than once to each peer.
constexpr std::size_t kDirectBroadcast = 64 << 10;

bool any_left(std::span<const ConstBytes> sends, std::span<const Bytes> recvs) {
  const auto has_bytes = [](const auto& span) { return !span.empty(); };
  return std::ranges::any_of(sends, has_bytes) || std::ranges::any_of(recvs, has_bytes);
}

std::size_t bytes_of(const auto& spans) {
  std::size_t bytes = 0;
  for (const auto& span : spans) bytes += span.size();
  return bytes;
}

void copy(Bytes to, ConstBytes from) {
  if (!from.empty() && to.data() != from.data()) std::memmove(to.data(), from.data(), from.size());
}

// One rank needs no messages, so there is nothing to implement.
class AloneTransport final : public Transport {
 public:
  AloneTransport() : Transport(0, 1, "alone") {}
  void exchange(std::span<const ConstBytes>, std::span<const Bytes>, Deadline) override {}
  void all_reduce(Bytes, DType, Deadline) override {}
  std::unique_ptr<Transport> split(const std::vector<int>&, Deadline) override {
    return std::make_unique<AloneTransport>();
  }
  void announce(const std::string&) noexcept override {}
  void interrupt() noexcept override {}
};

// Peers need to hear of a failure that began here. One that a peer reported they know, but for those of this
// host who wait for this rank alone.
void announce_own_failure(Transport& transport, const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const SecondaryError& e) {
    if (e.origin() == transport.rank())
      transport.announce(e.what());
    else
      transport.group().announce(e.what(), e.origin());
  } catch (const std::exception& e) {
    transport.announce(e.what());
  } catch (...) {
    transport.announce("an exception of unknown type");
  }
}

}  // namespace

HostCommunicator::HostCommunicator(std::unique_ptr<Transport> transport, std::chrono::milliseconds patience)
    : transport_(std::move(transport)),
      sum_(*transport_, patience),
      gather_(*transport_, patience),
      patience_(patience),
      outgoing_(transport_->size()),
      incoming_(transport_->size()),
      queue_([this](const std::exception_ptr& error) { announce_own_failure(*transport_, error); }) {}

std::shared_ptr<std::byte> HostCommunicator::allocate(std::size_t bytes) {
  auto visible = transport_->group().memory().allocate(bytes);
  return visible ? visible : Communicator::allocate(bytes);
}

Event HostCommunicator::sum(OrderedSum sum, std::string label) {
  const std::size_t bytes = sum.count * size_of(sum.dtype);
  return push(Collective::kSum, std::move(label), bytes,
              [this, sum = std::move(sum)](Call call) { sum_.run(header_of(call), sum); });
}

Event HostCommunicator::all_to_all(std::span<const ConstBytes> sends, std::span<const Bytes> recvs,
                                   std::string label) {
  const auto ranks = static_cast<std::size_t>(size());
  TRIREME_CHECK(sends.size() == ranks && recvs.size() == ranks,
                "all_to_all of \"{}\": needs one buffer per rank ({}), got {} to send and {} to receive",
                label, ranks, sends.size(), recvs.size());
  TRIREME_CHECK(sends[rank()].size() == recvs[rank()].size(),
                "all_to_all of \"{}\": rank {} sends itself {} bytes but receives {}", label, rank(),
                sends[rank()].size(), recvs[rank()].size());
  return push(Collective::kAllToAll, std::move(label), bytes_of(sends),
              [this, from = std::vector(sends.begin(), sends.end()),
               to = std::vector(recvs.begin(), recvs.end())](Call call) mutable {
                copy(to[rank()], from[rank()]);
                from[rank()] = {};
                to[rank()] = {};
                exchange_agreed(call, from, to);
              });
}

Event HostCommunicator::all_gather(std::span<const Bytes> slices, std::string label) {
  TRIREME_CHECK(slices.size() == static_cast<std::size_t>(size()),
                "all_gather of \"{}\": needs one slice per rank ({}), got {}", label, size(), slices.size());
  return push(Collective::kAllGather, std::move(label), bytes_of(slices),
              [this, to = std::vector(slices.begin(), slices.end())](Call call) mutable {
                if (gather_.serves(to)) return gather_.run(header_of(call), to);
                std::vector<ConstBytes> from(to.size(), to[rank()]);
                from[rank()] = {};
                to[rank()] = {};
                exchange_agreed(call, from, to);
              });
}

Event HostCommunicator::all_gather_each(std::vector<std::vector<Bytes>> sets,
                                        std::function<void(std::size_t)> arrived, std::string label) {
  for (const auto& slices : sets)
    TRIREME_CHECK(slices.size() == static_cast<std::size_t>(size()),
                  "all_gather_each of \"{}\": needs one slice per rank ({}), got {}", label, size(),
                  slices.size());
  // Ranks of one host go through its memory, one set after another: between hosts that costs some overlap.
  if (gather_.shares_hosts())
    return Communicator::all_gather_each(std::move(sets), std::move(arrived), std::move(label));
  std::uint64_t bytes = 0;
  for (const auto& slices : sets)
    for (const Bytes slice : slices) bytes += slice.size();
  return push(Collective::kAllGather, std::move(label), bytes,
              [this, all = std::move(sets), arrived = std::move(arrived)](Call call) {
                gather_each_now(call, all, arrived);
              });
}

/// The next sets are sent while one is waited for.
void HostCommunicator::gather_each_now(const Call& call, const std::vector<std::vector<Bytes>>& sets,
                                       const std::function<void(std::size_t)>& arrived) {
  constexpr std::size_t kUnderWay = 8;
  const auto self = static_cast<std::size_t>(rank()), ranks = static_cast<std::size_t>(size());
  const auto total = [&](std::size_t peer) {
    std::uint64_t bytes = 0;
    for (const auto& slices : sets) bytes += slices[peer].size();
    return bytes;
  };
  for (std::size_t peer = 0; peer < ranks; ++peer) {
    outgoing_[peer].header = header_of(call);
    outgoing_[peer].header.sends_bytes = total(self);
    outgoing_[peer].header.expects_bytes = total(peer);
  }
  if (ranks > 1)
    swap_frames(
        *transport_, [this](int peer) -> const Frame& { return outgoing_[static_cast<std::size_t>(peer)]; },
        incoming_, deadline());
  const auto begin = [&](std::size_t k) {
    std::vector<ConstBytes> sends(ranks, sets[k][self]);
    std::vector<Bytes> recvs = sets[k];
    sends[self] = {};
    recvs[self] = {};
    transport_->begin(sends, recvs);
  };
  for (std::size_t k = 0; k < std::min(kUnderWay, sets.size()); ++k) begin(k);
  for (std::size_t k = 0; k < sets.size(); ++k) {
    transport_->finish(deadline());
    if (k + kUnderWay < sets.size()) begin(k + kUnderWay);
    arrived(k);
  }
}

Event HostCommunicator::all_reduce_fastest(Bytes data, DType dtype, std::string label) {
  return push(Collective::kAllReduceFastest, std::move(label), data.size(), [this, data, dtype](Call call) {
    call.total_bytes = data.size();
    const std::vector<ConstBytes> no_sends(size());
    const std::vector<Bytes> no_recvs(size());
    exchange_agreed(call, no_sends, no_recvs);
    if (size() > 1 && !data.empty()) transport_->all_reduce(data, dtype, deadline());
  });
}

Event HostCommunicator::broadcast(Bytes data, int root, std::string label) {
  TRIREME_CHECK(root >= 0 && root < size(), "broadcast of \"{}\": root {} is not a rank of 0..{}", label,
                root, size() - 1);
  return push(Collective::kBroadcast, std::move(label), data.size(), [this, data, root](Call call) {
    call.total_bytes = data.size();
    call.root = root;
    broadcast_now(call, data);
  });
}

Event HostCommunicator::barrier(std::string label) {
  return push(Collective::kBarrier, std::move(label), 0, [this](Call call) {
    const std::vector<ConstBytes> no_sends(size());
    const std::vector<Bytes> no_recvs(size());
    exchange_agreed(call, no_sends, no_recvs);
  });
}

Event HostCommunicator::run(std::function<void()> fn, std::string label) {
  return queue_.push("run", std::move(label), [fn = std::move(fn)](const std::string&) { fn(); });
}

void HostCommunicator::pack_messages(bool on) {
  run([this, on] { transport_->pack_messages(on); }, "whether messages are packed");
}

bool HostCommunicator::spans_hosts() const {
  const std::vector<int>& hosts = transport_->hosts();
  return std::ranges::find_if(hosts, [&](int host) { return host != hosts[0]; }) != hosts.end();
}

std::unique_ptr<Communicator> HostCommunicator::split(int color) {
  std::vector<int> colors(static_cast<std::size_t>(size()));
  colors[static_cast<std::size_t>(rank())] = color;
  std::vector<Bytes> slices;
  for (int& one : colors) slices.push_back(std::as_writable_bytes(std::span(&one, 1)));
  all_gather(slices, "colors of a split").wait();
  std::vector<int> members;
  for (int peer = 0; peer < size(); ++peer)
    if (peer == rank() || (color >= 0 && colors[static_cast<std::size_t>(peer)] == color))
      members.push_back(peer);
  std::unique_ptr<Transport> made;
  run([&] { made = transport_->split(members, deadline()); }, "split").wait();
  if (color < 0) return nullptr;
  made->pack_messages(transport_->packs_messages());
  return std::make_unique<HostCommunicator>(std::move(made), patience_);
}

void HostCommunicator::abort(const std::string& reason) {
  const SecondaryError error(rank(), fmt::format("rank {}: aborted: {}", rank(), reason));
  if (queue_.fail(std::make_exception_ptr(error))) transport_->interrupt();
}

Event HostCommunicator::push(Collective op, std::string label, std::size_t bytes,
                             std::function<void(Call)> work) {
  return queue_.push(
      name_of(op), std::move(label),
      [this, op, work = std::move(work)](const std::string& name) {
        const auto where = [&] {
          return fmt::format("rank {}: {} of \"{}\" (call {}, patience {:.1f} s)", rank(), name_of(op), name,
                             sequence_, std::chrono::duration<double>(patience_).count());
        };
        try {
          work(Call{.op = op, .label = name});
        } catch (const SecondaryError& e) {
          throw SecondaryError(e.origin(), fmt::format("{}: {}", where(), e.what()));
        } catch (const Error& e) {
          fail(e.code(), "{}: {}", where(), e.what());
        }
        ++sequence_;
      },
      bytes);
}

CallHeader HostCommunicator::header_of(const Call& call) const {
  CallHeader header{.sequence = sequence_, .op = call.op, .root = call.root, .total_bytes = call.total_bytes};
  header.set_label(call.label);
  return header;
}

void HostCommunicator::exchange_agreed(const Call& call, std::span<const ConstBytes> sends,
                                       std::span<const Bytes> recvs) {
  if (size() == 1) return;
  // Ranks of one host agree where a sum does, since one of them may be in a sum.
  if (HostGroup& host = transport_->group(); host.size() == static_cast<std::size_t>(size())) {
    host.meet_in(header_of(call), deadline());
    if (call.op == Collective::kBarrier || call.op == Collective::kAllReduceFastest) return;
  }
  send_frames(call, sends, recvs);
  std::vector<ConstBytes> big_sends(sends.begin(), sends.end());
  std::vector<Bytes> big_recvs(recvs.begin(), recvs.end());
  for (int peer = 0; peer < size(); ++peer) {
    if (sends[peer].size() <= Frame::kRoom) big_sends[peer] = {};
    if (recvs[peer].size() <= Frame::kRoom) {
      copy(recvs[peer], ConstBytes(incoming_[peer].payload).first(recvs[peer].size()));
      big_recvs[peer] = {};
    }
  }
  if (any_left(big_sends, big_recvs)) transport_->exchange(big_sends, big_recvs, deadline());
}

void HostCommunicator::send_frames(const Call& call, std::span<const ConstBytes> sends,
                                   std::span<const Bytes> recvs) {
  for (int peer = 0; peer < size(); ++peer) {
    Frame& frame = outgoing_[peer];
    frame.header = header_of(call);
    frame.header.sends_bytes = sends[peer].size();
    frame.header.expects_bytes = recvs[peer].size();
    if (sends[peer].size() <= Frame::kRoom) copy(frame.payload, sends[peer]);
  }
  swap_frames(
      *transport_, [this](int peer) -> const Frame& { return outgoing_[peer]; }, incoming_, deadline());
}

void HostCommunicator::broadcast_now(const Call& call, Bytes data) {
  const bool direct = data.size() <= kDirectBroadcast;
  const std::size_t share = (data.size() + size() - 1) / size();
  const auto slice = [&](int owner) {
    if (direct) return data;
    const std::size_t first = std::min(data.size(), owner * share);
    return data.subspan(first, std::min(share, data.size() - first));
  };
  std::vector<ConstBytes> sends(size());
  std::vector<Bytes> recvs(size());
  if (rank() == call.root) {
    for (int peer = 0; peer < size(); ++peer) sends[peer] = slice(peer);
    sends[rank()] = {};
  } else {
    recvs[call.root] = slice(rank());
  }
  exchange_agreed(call, sends, recvs);
  if (direct || size() == 1) return;

  for (int peer = 0; peer < size(); ++peer) {
    sends[peer] = peer == rank() || peer == call.root ? Bytes() : slice(rank());
    recvs[peer] = peer == rank() || rank() == call.root ? Bytes() : slice(peer);
  }
  transport_->exchange(sends, recvs, deadline());
}

std::unique_ptr<HostCommunicator> make_alone_communicator() {
  return std::make_unique<HostCommunicator>(std::make_unique<AloneTransport>(), 1h);
}

}  // namespace trireme
