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

void Transport::set_hosts(std::vector<int> hosts, std::unique_ptr<HostGroup> group) {
  hosts_ = std::move(hosts);
  if (group) group_ = std::move(group);
}

}  // namespace trireme
