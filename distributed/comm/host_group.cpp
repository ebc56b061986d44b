#include "distributed/comm/host_group.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "distributed/comm/backoff.h"
#include "kernels/device.h"

namespace trireme {

namespace {

class MemoryOfThreads final : public VisibleMemory, public std::enable_shared_from_this<MemoryOfThreads> {
 public:
  explicit MemoryOfThreads(std::size_t ranks) : boards(ranks) {}
  ~MemoryOfThreads() override {
    for (const auto& [memory, bytes] : kept_) deallocate(kCpu, memory, bytes);
  }
  std::vector<Board> boards;

  std::shared_ptr<std::byte> allocate(std::size_t bytes) override {
    auto* const memory = static_cast<std::byte*>(trireme::allocate(kCpu, bytes));
    const std::lock_guard lock(mutex_);
    visible_[memory] = bytes;
    return {memory, [self = shared_from_this(), bytes](std::byte* given) {
              const std::lock_guard let_go(self->mutex_);
              self->visible_.erase(given);
              if (self->keeps_all())
                self->kept_.emplace_back(given, bytes);
              else
                deallocate(kCpu, given, bytes);
            }};
  }
  /// Returns nothing for memory that allocate() did not return. Threads could read it, but the group behaves
  /// as one of processes does.
  std::optional<std::uint64_t> name_of(const void* memory) const override {
    const std::lock_guard lock(mutex_);
    const auto* const at = static_cast<const std::byte*>(memory);
    const auto after = visible_.upper_bound(at);
    if (after == visible_.begin() || at >= std::prev(after)->first + std::prev(after)->second) return {};
    return reinterpret_cast<std::uint64_t>(memory);
  }
  std::byte* find(std::size_t, std::uint64_t name) const override {
    return reinterpret_cast<std::byte*>(name);
  }

 private:
  mutable std::mutex mutex_;
  std::map<const std::byte*, std::size_t> visible_;
  std::vector<std::pair<std::byte*, std::size_t>> kept_;
};

}  // namespace

std::vector<std::unique_ptr<HostGroup>> make_thread_groups(const std::vector<int>& ranks) {
  const auto memory = std::make_shared<MemoryOfThreads>(ranks.size());
  std::vector<HostGroup::Member> members;
  for (std::size_t i = 0; i < ranks.size(); ++i) members.push_back({ranks[i], &memory->boards[i]});
  std::vector<std::unique_ptr<HostGroup>> groups;
  for (const int rank : ranks) groups.push_back(std::make_unique<HostGroup>(members, rank, memory));
  return groups;
}

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
    if (missing.empty()) continue;  // they have come this moment
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

void HostGroup::announce(const std::string& reason, int origin) noexcept {
  Board& board = *members_[self_].board;
  if (board.failed) return;
  const std::size_t length = std::min(reason.size(), board.reason.size() - 1);
  std::memcpy(board.reason.data(), reason.data(), length);
  board.reason[length] = '\0';
  board.origin = origin;
  board.failed.store(1, std::memory_order_release);
}

void HostGroup::check_members() const {
  for (const Member& m : members_) {
    if (m.rank == rank_of(self_) || m.board->failed.load(std::memory_order_acquire) == 0) continue;
    throw SecondaryError(m.board->origin, fmt::format("rank {} reports: {}", m.rank, m.board->reason.data()));
  }
}

}  // namespace trireme
