// Ranks of one host, which see memory of each other.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "distributed/comm/agreement.h"
#include "distributed/comm/transport.h"

namespace trireme {

/// Memory that all ranks of a group see, each at an address of its own.
class VisibleMemory {
 public:
  virtual ~VisibleMemory() = default;
  /// Of this rank, uninitialized, at a multiple of 4096 bytes. Null if there is none left. Any thread may
  /// call; so it may be let go.
  virtual std::shared_ptr<std::byte> allocate(std::size_t bytes) = 0;
  /// The name by which peers find memory of this rank; nothing if they do not see it.
  virtual std::optional<std::uint64_t> name_of(const void* memory) const = 0;
  /// Where this rank sees memory that the member of that place in the group calls so.
  virtual std::byte* find(std::size_t member, std::uint64_t name) const = 0;
  /// After a failure in the middle of a sum: a peer that does not know of it may still read and write what it
  /// was shown, so from now on memory that is let go is not used again while this object lives.
  void keep_all() noexcept { keeps_all_ = true; }

 protected:
  bool keeps_all() const { return keeps_all_; }

 private:
  std::atomic<bool> keeps_all_ = false;
};

/// What one rank shows to the others of its group, in memory that all of them see.
struct Board {
  static constexpr std::size_t kCardBytes = 4096;
  alignas(64) std::atomic<std::uint64_t> meetings;
  alignas(64) std::atomic<std::uint32_t> failed;
  std::int32_t origin;            ///< the rank on which it began
  std::array<char, 1016> reason;  ///< ended by a zero; both are written before `failed`
  // Who has come to meeting n + 1 has read all cards of meeting n, so that two are enough.
  alignas(64) std::array<std::array<std::byte, kCardBytes>, 2> cards;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free &&
              std::atomic<std::uint32_t>::is_always_lock_free);

/// Used by one thread, save for allocate(), announce() and interrupt().
class HostGroup {
 public:
  struct Member {
    int rank;
    Board* board;
  };
  /// `members` are in the order of their ranks, and the same for all. Boards are zero at first and live as
  /// long as `memory`.
  HostGroup(std::vector<Member> members, int rank, std::shared_ptr<VisibleMemory> memory);

  std::size_t size() const { return members_.size(); }
  std::size_t self() const { return self_; }
  int rank_of(std::size_t member) const { return members_[member].rank; }
  VisibleMemory& memory() const { return *memory_; }

  /// A card for all to see, before the meeting it is for. It begins with room for a CallHeader.
  std::span<std::byte, Board::kCardBytes> own_card() { return members_[self_].board->cards[next_ % 2]; }
  /// Returns when all members have come: what each wrote before, to its card or to other memory, is seen by
  /// all after it. Throws as Transport::exchange() does.
  void meet(Deadline deadline);
  /// The same, with the call that this rank is in on its card. Throws Error(kPeer) on all if they are not in
  /// the same.
  void meet_in(const CallHeader& call, Deadline deadline);
  /// What a member showed at the last meeting, until the next.
  ConstBytes card_of(std::size_t member) const { return members_[member].board->cards[(next_ - 1) % 2]; }

  /// Tells the others of a failure, which began on rank `origin`, perhaps on another host.
  void announce(const std::string& reason, int origin) noexcept;
  void interrupt() noexcept { interrupted_ = true; }
  /// Throws what a member has announced.
  void check_members() const;

 private:
  std::vector<Member> members_;
  std::size_t self_ = 0;
  std::shared_ptr<VisibleMemory> memory_;
  std::uint64_t next_ = 1;  ///< number of the next meeting
  std::atomic<bool> interrupted_ = false;
};

/// A group of ranks that are threads of this process: a handle for each.
std::vector<std::unique_ptr<HostGroup>> make_thread_groups(const std::vector<int>& ranks);

}  // namespace trireme
