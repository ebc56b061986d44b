#include "distributed/comm/transport.h"

#include <numeric>
#include <utility>

#include "distributed/comm/host_group.h"

namespace trireme {

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

void Transport::set_hosts(std::vector<int> hosts, std::unique_ptr<HostGroup> group) {
  hosts_ = std::move(hosts);
  if (group) group_ = std::move(group);
}

}  // namespace trireme
