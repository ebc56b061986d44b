#include "distributed/comm/host_group.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "distributed/comm/backoff.h"
#include "kernels/device.h"

namespace trireme {

namespace {

class MemoryOfThreads final : public VisibleMemory {
 public:
  std::shared_ptr<std::byte> allocate(std::size_t bytes) override {
    return {static_cast<std::byte*>(trireme::allocate(kCpu, bytes)),
            [bytes](std::byte* memory) { deallocate(kCpu, memory, bytes); }};
  }
  std::optional<std::uint64_t> name_of(const void* memory) const override {
    return reinterpret_cast<std::uint64_t>(memory);
  }
  std::byte* find(std::size_t, std::uint64_t name) const override {
    return reinterpret_cast<std::byte*>(name);
  }
};

}  // namespace

std::shared_ptr<VisibleMemory> make_memory_of_threads() { return std::make_shared<MemoryOfThreads>(); }

HostGroup::HostGroup(std::vector<Member> members, int rank, std::shared_ptr<VisibleMemory> memory)
    : members_(std::move(members)), memory_(std::move(memory)) {
  const auto found = std::ranges::find(members_, rank, &Member::rank);
  TRIREME_CHECK(found != members_.end(), "rank {} is not in its own group", rank);
  self_ = static_cast<std::size_t>(found - members_.begin());
}

void HostGroup::meet(Deadline deadline) {
  members_[self_].board->meetings.store(next_, std::memory_order_release);
  std::size_t come = 0;  // these have
  for (Backoff backoff;;) {
    while (come < size() && members_[come].board->meetings.load(std::memory_order_acquire) >= next_) ++come;
    if (come == size()) break;
    if (interrupted_) fail(ExitCode::kPeer, "interrupted");
    if (!backoff.pause()) continue;
    check_members();
    if (std::chrono::steady_clock::now() < deadline) continue;
    std::vector<int> missing;
    for (const Member& m : members_)
      if (m.board->meetings.load() < next_) missing.push_back(m.rank);
    fail(ExitCode::kPeer, "no answer from rank {}: it has failed, is stuck, or needs more --patience",
         fmt::join(missing, ", "));
  }
  ++next_;
}

void HostGroup::meet_in(const CallHeader& call, Deadline deadline) {
  std::memcpy(own_card().data(), &call, sizeof call);
  meet(deadline);
  for (std::size_t i = 0; i < size(); ++i) {
    CallHeader theirs;
    std::memcpy(&theirs, card_of(i).data(), sizeof theirs);
    if (i != self_) check_agreement(rank_of(self_), call, rank_of(i), theirs);
  }
}

void HostGroup::announce(const std::string& reason) noexcept {
  Board& board = *members_[self_].board;
  if (board.failed) return;
  const std::size_t length = std::min(reason.size(), board.reason.size() - 1);
  std::memcpy(board.reason.data(), reason.data(), length);
  board.reason[length] = '\0';
  board.failed.store(1, std::memory_order_release);
}

void HostGroup::check_members() const {
  for (std::size_t i = 0; i < size(); ++i)
    if (i != self_ && members_[i].board->failed.load(std::memory_order_acquire) != 0)
      throw SecondaryError(members_[i].rank, fmt::format("rank {} reports: {}", members_[i].rank,
                                                         members_[i].board->reason.data()));
}

}  // namespace trireme
