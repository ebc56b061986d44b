#include "distributed/comm/transport.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "distributed/comm/host_group.h"
#include "kernels/packed_words.h"
#include "kernels/visit.h"

namespace trireme {

namespace {

constexpr std::size_t kLongMessage = std::size_t{4} << 10;  // shorter ones take as long whatever they weigh

}  // namespace

Transport::Transport(int rank, int size, std::string_view backend)
    : rank_(rank),
      size_(size),
      backend_(backend),
      hosts_(static_cast<std::size_t>(size)),
      group_(std::move(make_thread_groups({rank}).front())) {
  std::iota(hosts_.begin(), hosts_.end(), 0);
}

Transport::~Transport() = default;

// Where a backend has no better way, nothing moves before it must.
void Transport::begin(std::span<const ConstBytes> sends, std::span<const Bytes> recvs) {
  begun_.push_back({{sends.begin(), sends.end()}, {recvs.begin(), recvs.end()}});
}

void Transport::finish(Deadline deadline) {
  const Begun oldest = std::move(begun_.front());
  begun_.pop_front();
  exchange(oldest.sends, oldest.recvs, deadline);
}

ConstBytes Transport::outgoing(int peer, ConstBytes message, std::vector<std::byte>& memory) {
  const auto host = [this](int r) { return hosts_[static_cast<std::size_t>(r)]; };
  if (message.size() < kLongMessage || host(peer) == host(rank_)) return message;
  ConstBytes sent = message;
  if (packs_) {
    memory.resize(std::max(memory.size(), packed_room(message.size())));
    if (const std::size_t bytes = pack_words(message, memory.data()); bytes > 0)
      sent = ConstBytes(memory).first(bytes);
  }
  plain_bytes_ += message.size();
  sent_bytes_ += sent.size();
  return sent;
}

bool Transport::incoming(ConstBytes came, Bytes message) {
  const bool in_place = came.data() == message.data();
  if (came.size() == message.size()) {
    if (!in_place && !came.empty()) std::memcpy(message.data(), came.data(), came.size());
    return true;
  }
  if (in_place) {
    came_.assign(came.begin(), came.end());
    came = came_;
  }
  return unpack_words(came, message);
}

void Transport::fail_length(int peer, std::size_t came, std::size_t room) const {
  fail(ExitCode::kInternal, "{} bytes came from rank {} to rank {}: no message of {} bytes, packed or not",
       came, peer, rank_, room);
}

std::vector<int> Transport::hosts_among(const std::vector<int>& members) const {
  std::vector<int> among;
  for (const int member : members) {
    const auto same_host = [&](int other) {
      return hosts_[static_cast<std::size_t>(other)] == hosts_[static_cast<std::size_t>(member)];
    };
    among.push_back(static_cast<int>(std::ranges::find_if(members, same_host) - members.begin()));
  }
  return among;
}

void Transport::all_reduce_by_exchange(Bytes data, DType dtype, Deadline deadline) {
  const auto ranks = static_cast<std::size_t>(size());
  std::vector<std::byte> inputs(data.size() * ranks);
  std::vector<ConstBytes> sends(ranks, data);
  std::vector<Bytes> recvs(ranks);
  for (std::size_t peer = 0; peer < ranks; ++peer)
    recvs[peer] = Bytes(inputs).subspan(peer * data.size(), data.size());
  std::ranges::copy(data, recvs[static_cast<std::size_t>(rank())].begin());
  sends[static_cast<std::size_t>(rank())] = {};
  const Bytes own = std::exchange(recvs[static_cast<std::size_t>(rank())], Bytes());
  exchange(sends, recvs, deadline);
  recvs[static_cast<std::size_t>(rank())] = own;
  visit_gradient(dtype, "all_reduce", [&]<class T>(T) {
    const auto numbers = [](Bytes bytes) {
      return std::span(reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T));
    };
    const std::span<T> sum = numbers(data);
    std::ranges::copy(numbers(recvs[0]), sum.begin());
    for (std::size_t peer = 1; peer < ranks; ++peer)
      std::ranges::transform(sum, numbers(recvs[peer]), sum.begin(), [](T a, T b) { return T(a + b); });
  });
}

void Transport::set_hosts(std::vector<int> hosts, std::unique_ptr<HostGroup> group) {
  hosts_ = std::move(hosts);
  if (group) group_ = std::move(group);
}

}  // namespace trireme
